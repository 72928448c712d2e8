"""A client of one peer, in that peer's environment, which does what is asked of it line by line.

{"values": 1024, "count": 50}               -> {"ns": [...]}: one request after another
{"values": 1024, "clients": 16, "seconds": 2} -> {"count": ...}: clients at a time, a thread each
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.benchmarks.peers.model import Array

Infer = Callable[[Array], Array]


def connector(peer: str, endpoint: str) -> Callable[[], Infer]:
    """Makes connections to a peer."""
    if peer == "in process":
        from tests.benchmarks.peers.floors import in_process

        return lambda: in_process(endpoint)
    if peer.startswith("limpet"):
        from tests.benchmarks.peers.limpet import connect

        return lambda: connect(endpoint, lane=peer == "limpet lane")
    module = importlib.import_module(f"tests.benchmarks.peers.{peer}")
    return lambda: module.connect(endpoint)


def one_after_another(infer: Infer, x: Array, count: int) -> dict[str, Any]:
    """Nanoseconds of each request."""
    took = []
    for _ in range(count):
        start_ns = time.perf_counter_ns()
        y = infer(x)
        took.append(time.perf_counter_ns() - start_ns)
    assert np.array_equal(x, y)
    return {"ns": took}


def at_a_time(
    connect: Callable[[], Infer], x: Array, clients: int, seconds: float
) -> dict[str, Any]:
    """Requests that several clients had answered."""
    counts = [0] * clients
    begin, end_s = threading.Barrier(clients), [0.0]

    def work(number: int) -> None:
        infer = connect()
        infer(x)
        begin.wait()
        end_s[0] = end_s[0] or time.monotonic() + seconds
        while time.monotonic() < end_s[0]:
            infer(x)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"count": sum(counts)}


def main(peer: str, endpoint: str) -> None:
    """Does what standard input asks."""
    connect = connector(peer, endpoint)
    infer = connect()
    for line in sys.stdin:
        asked = json.loads(line)
        x = np.random.default_rng(0).normal(size=(1, asked["values"])).astype(np.float32)
        if "clients" in asked:
            answer = at_a_time(connect, x, asked["clients"], asked["seconds"])
        else:
            answer = one_after_another(infer, x, asked["count"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
