"""A policy server of the shape of openpi's websocket server, written from its public description:
a websocket without compression, msgpack with arrays as raw bytes, metadata on connecting, inference
in the event loop.

Ours, not theirs: it shows what that shape costs, not what their code does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import msgpack
import numpy as np
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from tests.benchmarks.peers.links import Buffer
from tests.benchmarks.peers.model import Array, open_model

READ_BYTES = 1 << 20


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
            print(f"ready ws://127.0.0.1:{port}", flush=True)
            await server.serve_forever()

    asyncio.run(main())


class WebsocketLink:
    """A websocket without threads: openpi's own client has one that reads, which costs a little."""

    def __init__(self, endpoint: str) -> None:
        address = parse_uri(endpoint)
        self._socket = socket.create_connection((address.host, address.port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waited_for = self._socket.fileno()
        self._protocol = ClientProtocol(address, max_size=None)
        self._protocol.send_request(self._protocol.connect())
        self._write()
        while self.receive() is None:
            pass  # the answer to the handshake, then metadata

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            self._socket.sendall(data)

    def send(self, x: Array) -> None:
        """See `Link`."""
        self._protocol.send_binary(_pack({"x": x}))
        self._write()

    def receive(self) -> Buffer | None:
        """See `Link`."""
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._protocol.receive_data(data)
        self._write()  # pongs
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                message = _unpack(event.data)
                return message["y"].data.cast("B") if "y" in message else b""
        return None


def link(endpoint: str, row: str) -> WebsocketLink:
    """A connection to it."""
    return WebsocketLink(endpoint)
