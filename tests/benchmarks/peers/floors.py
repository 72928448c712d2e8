"""What nothing over sockets can beat: the model in the client's process, and a raw ZeroMQ echo."""

from __future__ import annotations

from collections.abc import Callable

import zmq

from tests.benchmarks.peers.links import Buffer
from tests.benchmarks.peers.model import Array, open_model

HEADER_BYTES = 200
"""About what limpet sends beside the tensor."""


def serve(model: str) -> None:
    """Answers each message with its own last frame, until it is killed; prints its endpoint."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind("tcp://127.0.0.1:0")
    print("ready", socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
    header = bytes(HEADER_BYTES)
    while True:
        identity, *_, x = socket.recv_multipart(copy=False)
        socket.send_multipart([identity, header, x], copy=False)


class EchoLink:
    """A DEALER that sends bytes and gets them back."""

    def __init__(self, endpoint: str) -> None:
        self.waited_for = zmq.Context.instance().socket(zmq.DEALER)
        self.waited_for.connect(endpoint)
        self._header = bytes(HEADER_BYTES)

    def send(self, x: Array) -> None:
        """See `Link`."""
        self.waited_for.send_multipart([self._header, x], copy=False)

    def receive(self) -> Buffer:
        """See `Link`."""
        buffer: Buffer = self.waited_for.recv_multipart(copy=False)[1].buffer
        return buffer


def link(endpoint: str, row: str) -> EchoLink:
    """A connection to it."""
    return EchoLink(endpoint)


def in_process(model: str) -> Callable[[Array], Array]:
    """The model itself."""
    return open_model(model)
