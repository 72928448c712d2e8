"""The floor under every server on ZeroMQ: a process that answers each message with ready bytes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import zmq


def serve_echo(endpoints: Sequence[str], reply_sizes: Sequence[int]) -> None:
    """Answers every message with frames of `reply_sizes` bytes, until it is killed.

    Prints the endpoints that were bound on one line.
    """
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    bound = []
    for endpoint in endpoints:
        router.bind(endpoint)
        bound.append(router.getsockopt_string(zmq.LAST_ENDPOINT))
    sys.stdout.write(f"{' '.join(bound)}\n")
    sys.stdout.flush()
    reply = [bytes(size) for size in reply_sizes]
    while True:
        identity = router.recv_multipart(copy=False)[0]
        router.send_multipart([identity, *reply], copy=False)


if __name__ == "__main__":
    serve_echo(sys.argv[1].split(","), [int(size) for size in sys.argv[2].split(",")])
