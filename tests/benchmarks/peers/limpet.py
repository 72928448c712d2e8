"""limpet as a peer: `limpet serve` as it comes, over tcp and over its same-host lane."""

from __future__ import annotations

from collections.abc import Callable

from limpet.runtime.client import RobotClient
from tests.benchmarks.peers.model import Array


def connect(endpoint: str, *, lane: bool) -> Callable[[Array], Array]:
    """What sends a request and waits for its answer."""
    robot = RobotClient(endpoint, lane=lane)

    def infer(x: Array) -> Array:
        return robot.infer("work", {"x": x}, timeout_s=10.0).outputs["y"]

    return infer
