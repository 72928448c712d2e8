"""limpet as a peer: `limpet serve` as it comes, over tcp and over its same-host lane."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from limpet.contracts.messages import Hello, Infer, LaneOffer, Result, Welcome
from limpet.contracts.wire import decode_reply, encode
from limpet.runtime.client import RobotClient
from limpet.runtime.frames import receive_frames, send_frames
from limpet.runtime.lane import open_lane
from tests.benchmarks.peers.links import Buffer, WrongAnswerError
from tests.benchmarks.peers.model import Array

NAME = "served"
"""What the model is called, whichever it is."""


def serve(model: str) -> None:
    """Becomes `limpet serve` of the bundle that holds `model`."""
    bundle = Path(model).parent
    config = bundle.with_suffix(".toml")
    config.write_text(
        '[server]\nlisten = ["tcp://127.0.0.1:0"]\npublish = ["tcp://127.0.0.1:0"]\n'
        f'[[models]]\nbundle = "{bundle.name}"\nname = "{NAME}"\n',
        encoding="utf-8",
    )
    own = [sys.executable, "-m", "limpet.runtime.cli", "serve", str(config)]
    os.execv(sys.executable, own)


def connect(endpoint: str, row: str) -> Callable[[Array], Array]:
    """A node's own client, with its lane or without it."""
    robot = RobotClient(endpoint, lane="lane" in row)

    def infer(x: Array) -> Array:
        return robot.infer(NAME, {"x": x}, timeout_s=10.0).outputs["y"]

    return infer


def result(frames: Sequence[Buffer]) -> Buffer:
    """Bytes of what the model gave.

    Raises:
        WrongAnswerError: The server gave no result.
    """
    reply, tensors = decode_reply(frames)
    if not isinstance(reply, Result):
        raise WrongAnswerError(f"answered {reply}")
    return tensors["y"].data.cast("B")


class WireLink:
    """A DEALER that speaks limpet's wire."""

    def __init__(self, endpoint: str) -> None:
        self.waited_for = zmq.Context.instance().socket(zmq.DEALER)
        self.waited_for.connect(endpoint)
        self._ids = itertools.count(1)

    def send(self, x: Array) -> None:
        """See `Link`."""
        frames = encode(Infer(id=next(self._ids), model=NAME), {"x": x})
        send_frames(self.waited_for, frames)

    def receive(self) -> Buffer:
        """See `Link`."""
        return result(receive_frames(self.waited_for, wait=True))


class LaneLink:
    """A same-host lane. Its server keeps it for as long as the socket that asked for it."""

    def __init__(self, endpoint: str) -> None:
        self._robot = RobotClient(endpoint, lane=False)
        hello = Hello(id=self._robot.next_id(), client=self._robot.name, lane=True)
        welcome, _ = self._robot.request(hello, Welcome, timeout_s=5.0)
        lane = open_lane(welcome.lane) if isinstance(welcome.lane, LaneOffer) else None
        if lane is None:
            raise ConnectionError(f"{endpoint} offers no lane")
        self._lane = lane
        self.waited_for = lane.fileno()

    def send(self, x: Array) -> None:
        """See `Link`."""
        request = Infer(id=self._robot.next_id(), model=NAME)
        if not self._lane.send(encode(request, {"x": x})):
            raise ConnectionError("the lane has no room")

    def receive(self) -> Buffer:
        """See `Link`."""
        frames = self._lane.receive(time.monotonic() + 10.0)
        if not frames:
            raise ConnectionError("no answer over the lane")
        return result(frames)


def link(endpoint: str, row: str) -> WireLink | LaneLink:
    """A connection to it."""
    return LaneLink(endpoint) if "lane" in row else WireLink(endpoint)
