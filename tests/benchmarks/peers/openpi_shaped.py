"""A policy server of the shape of openpi's websocket server, written from its public description:
a websocket without compression, msgpack with arrays as raw bytes, metadata on connecting, inference
in the event loop.

Ours, not theirs: it shows what that shape costs, not what their code does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_websocket

from tests.benchmarks.peers.model import Array, open_model


def _pack(message: dict[str, Any]) -> bytes:
    def array(value: Any) -> dict[str, Any]:
        return {
            "__ndarray__": True,
            "data": value.tobytes(),
            "dtype": value.dtype.str,
            "shape": value.shape,
        }

    packed: bytes = msgpack.packb(message, default=array)
    return packed


def _unpack(packed: bytes | str) -> dict[str, Any]:
    def array(value: dict[str, Any]) -> Any:
        if "__ndarray__" in value:
            return np.ndarray(value["shape"], value["dtype"], value["data"])
        return value

    message: dict[str, Any] = msgpack.unpackb(packed, object_hook=array)
    return message


def serve(model: str) -> None:
    """Serves until it is killed; prints its endpoint."""
    run = open_model(model)

    async def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await connection.send(_pack({"server": "openpi-shaped"}))
            async for request in connection:
                await connection.send(_pack({"y": run(_unpack(request)["x"])}))

    async def main() -> None:
        async with serve_websocket(
            handle, "127.0.0.1", 0, compression=None, max_size=None
        ) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            print(f"ws://127.0.0.1:{port}", flush=True)
            await server.serve_forever()

    asyncio.run(main())


def connect(endpoint: str) -> Callable[[Array], Array]:
    """What sends a request and waits for its answer."""
    connection = connect_websocket(endpoint, compression=None, max_size=None)
    connection.recv()  # metadata

    def infer(x: Array) -> Array:
        connection.send(_pack({"x": x}))
        answer: Array = _unpack(connection.recv())["y"]
        return answer

    return infer
