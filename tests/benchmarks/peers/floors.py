"""What nothing over sockets can beat: the model in the client's process, and a raw ZeroMQ echo."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import zmq

from tests.benchmarks.peers.model import Array, open_model


def serve(model: str) -> None:
    """Answers each message with its own last frame, until it is killed; prints its endpoint."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind("tcp://127.0.0.1:0")
    print(socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
    header = bytes(200)
    while True:
        identity, *_, x = socket.recv_multipart(copy=False)
        socket.send_multipart([identity, header, x], copy=False)


def connect(endpoint: str) -> Callable[[Array], Array]:
    """What sends bytes and waits for them to come back."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.connect(endpoint)
    header = bytes(200)

    def echo(x: Array) -> Array:
        socket.send_multipart([header, x], copy=False)
        _, y = socket.recv_multipart(copy=False)
        return np.frombuffer(y.buffer, np.float32).reshape(x.shape)

    return echo


def in_process(model: str) -> Callable[[Array], Array]:
    """The model itself."""
    return open_model(model)
