"""What tests of clients ask, and a server that answers as they say."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.messages import Infer, Reply
from limpet.contracts.wire import decode_request
from limpet.runtime import client
from limpet.runtime.connection import Connection
from limpet.runtime.server import Server
from tests.runtime.serving import PATIENCE_S


def x(value: float = 1.0) -> dict[str, NDArray[np.float32]]:
    return {"x": np.full((1, 4), value, np.float32)}


def value_of(answer: client.Inference) -> float:
    return float(answer.outputs["y"][0, 0])


def tell(connection: Connection, value: float = 1.0, **options: Any) -> int:
    """Sends an `Infer` without waiting for its reply; its id."""
    request = Infer(id=connection.next_id(), model="identity", **options)
    connection.send(request, x(value), time.monotonic() + PATIENCE_S)
    return request.id


def send_images(connection: Connection, count: int) -> None:
    image = {"x": np.zeros((1, 1 << 16), np.float32)}
    for _ in range(count):
        request = Infer(id=connection.next_id(), model="identity")
        connection.send(request, image, time.monotonic() + 0.1)


def hear(connection: Connection) -> Reply:
    answer = connection.receive(time.monotonic() + PATIENCE_S)
    assert answer is not None, "the server does not answer"
    return answer[0]


def waiting(server: Server) -> int:
    return server._workers["identity"].waiting


@contextlib.contextmanager
def fake_server(answer: Callable[[messages.Request], list[list[bytes]]]) -> Iterator[str]:
    """A ROUTER that answers each request with the frames that `answer` gives; its endpoint."""
    stop = threading.Event()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def serve() -> None:
            while not stop.is_set():
                if router.poll(10):
                    identity, *frames = router.recv_multipart()
                    for reply in answer(decode_request(frames)[0]):
                        router.send_multipart([identity, *reply])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{port}"
        finally:
            stop.set()
            thread.join()


@contextlib.contextmanager
def takes(at_least_s: float, at_most_s: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert at_least_s - 0.01 <= time.monotonic() - start <= at_most_s  # polls count milliseconds
