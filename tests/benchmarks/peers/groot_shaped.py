"""A policy server of the shape of Isaac GR00T's ZeroMQ service, written from its public
description: REQ and REP, one msgpack map a message, arrays as `.npy` bytes in it, one request after
another.

Ours, not theirs: it shows what that shape costs, not what their code does.
"""

from __future__ import annotations

import io
from typing import Any

import msgpack
import numpy as np
import zmq

from tests.benchmarks.peers.links import Buffer
from tests.benchmarks.peers.model import Array, open_model


def _pack(message: dict[str, Any]) -> bytes:
    def array(value: Any) -> dict[str, Any]:
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        return {"__ndarray__": True, "as_npy": file.getvalue()}

    packed: bytes = msgpack.packb(message, default=array)
    return packed


def _unpack(packed: bytes) -> dict[str, Any]:
    def array(value: dict[str, Any]) -> Any:
        if "__ndarray__" in value:
            return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
        return value

    message: dict[str, Any] = msgpack.unpackb(packed, object_hook=array)
    return message


def serve(model: str) -> None:
    """Serves until it is killed; prints its endpoint."""
    run = open_model(model)
    socket = zmq.Context().socket(zmq.REP)
    socket.bind("tcp://127.0.0.1:0")
    print("ready", socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
    while True:
        request = _unpack(socket.recv())
        assert request["endpoint"] == "get_action"
        socket.send(_pack({"y": run(request["data"]["x"])}))


class RequestLink:
    """A REQ socket."""

    def __init__(self, endpoint: str) -> None:
        self.waited_for = zmq.Context.instance().socket(zmq.REQ)
        self.waited_for.connect(endpoint)

    def send(self, x: Array) -> None:
        """See `Link`."""
        self.waited_for.send(_pack({"endpoint": "get_action", "data": {"x": x}}))

    def receive(self) -> Buffer:
        """See `Link`."""
        answer: Array = _unpack(self.waited_for.recv())["y"]
        return answer.data.cast("B")


def link(endpoint: str, row: str) -> RequestLink:
    """A connection to it."""
    return RequestLink(endpoint)
