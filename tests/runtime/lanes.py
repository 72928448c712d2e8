"""Servers with lanes, and a client that keeps to none of their rules."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.lane import (
    ACCEPTED,
    MAX_PACKET_BYTES,
    Block,
    pack,
    unpack,
)
from limpet.contracts.messages import Infer, LaneOffer, Reply
from limpet.contracts.wire import Buffer, decode_reply, encode
from limpet.runtime.bench.identity import write_identity_bundle
from limpet.runtime.client import RobotClient
from limpet.runtime.connection import Connection
from limpet.runtime.lane_memory import Area, map_memory
from limpet.runtime.server import Server
from tests.bundles import anomaly_bundle
from tests.runtime.serving import PATIENCE_S, serving

LARGE = 40_000
"""float32 values of a row that goes through the memory: 160 KB."""


def wide_serving(folder: Path, **options: Any) -> AbstractContextManager[Server]:
    """`serving` with an identity that takes rows of any size."""
    write_identity_bundle(folder / "identity")
    anomaly_bundle(folder / "anomaly")
    return serving(folder, **options)


def x(value: float, size: int = LARGE) -> dict[str, NDArray[np.float32]]:
    return {"x": np.full((1, size), value, np.float32)}


def ask(robot: RobotClient, value: float, size: int = LARGE) -> NDArray[np.float32]:
    y = robot.infer("identity", x(value, size), timeout_s=PATIENCE_S).outputs["y"]
    np.testing.assert_array_equal(y, x(value, size)["x"])
    return y


def take_lane(robot: RobotClient) -> None:
    """The first request asks for a lane beside itself."""
    ask(robot, 0.0, 4)
    assert robot._lane is not None


def counter(server: Server, name: str) -> int:
    return server._metrics.counters().get(name, 0)


def lanes_of(server: Server) -> int:
    assert server._lanes is not None
    return len(server._lanes._lanes)


def offer_of(connection: Connection) -> LaneOffer:
    hello = messages.Hello(id=connection.next_id(), client="liar", lane=True)
    welcome, _ = connection.request(hello, messages.Welcome, PATIENCE_S)
    assert isinstance(welcome.lane, LaneOffer)
    return welcome.lane


class RawLane:
    """Speaks the protocol without keeping to its rules."""

    def __init__(self, server: Server) -> None:
        with RobotClient(server.listening[0], lane=False) as connection:
            offer = offer_of(connection)
        self.socket = connect(offer)
        self.socket.send(bytes.fromhex(offer.token))
        sizes, (self.descriptor,), _, _ = socket.recv_fds(self.socket, ACCEPTED.size, 1)
        self.area_bytes, _ = ACCEPTED.unpack(sizes)
        self.memory = map_memory(self.descriptor, self.area_bytes)
        self.requests = Area(self.memory, 0, self.area_bytes)
        self.replies = Area(self.memory, self.area_bytes, self.area_bytes)

    def tell(
        self, frames: Sequence[Buffer | tuple[Block, int]], released: Sequence[Block] = ()
    ) -> None:
        self.socket.send(pack(frames, released))

    def hear(self) -> tuple[Reply, list[Block]]:
        packet = self.socket.recv(MAX_PACKET_BYTES)
        assert packet, "the server ended the lane"
        described, released = unpack(packet)
        frames = [self.replies.read(*f) if isinstance(f, tuple) else f for f in described]
        return decode_reply(frames)[0], released

    def is_ended(self) -> bool:
        try:
            return self.socket.recv(MAX_PACKET_BYTES) == b""
        except ConnectionError:
            return True

    def __enter__(self) -> RawLane:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        os.close(self.descriptor)


def connect(offer: LaneOffer) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(f"\0{offer.address}")
    connection.settimeout(PATIENCE_S)
    return connection


def request(request_id: int = 7, size: int = LARGE) -> list[Buffer]:
    return encode(Infer(id=request_id, model="identity"), x(1.0, size))


def mapped_lanes() -> int:
    """Lanes' memory that this process has mapped."""
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("memfd:limpet-lane")
