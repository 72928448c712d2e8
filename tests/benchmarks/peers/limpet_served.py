"""limpet as a peer: `limpet serve` as it comes, over tcp and over its same-host lane."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import zmq

from limpet.contracts.messages import Infer, Result
from limpet.contracts.wire import decode_reply, encode
from limpet.runtime.client import RobotClient
from limpet.runtime.frames import receive_frames, send_frames
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


class WireLink:
    """A DEALER that speaks limpet's wire."""

    def __init__(self, endpoint: str) -> None:
        self.waited_for = zmq.Context.instance().socket(zmq.DEALER)
        self.waited_for.connect(endpoint)
        self._ids = itertools.count(1)

    def send(self, x: Array) -> None:
        """See `Link`."""
        send_frames(self.waited_for, encode(Infer(id=next(self._ids), model=NAME), {"x": x}))

    def receive(self) -> Buffer:
        """See `Link`."""
        frames = receive_frames(self.waited_for, wait=True)
        reply, tensors = decode_reply([frame.buffer for frame in frames])
        if not isinstance(reply, Result):
            raise WrongAnswerError(f"answered {reply}")
        return tensors["y"].data.cast("B")


link = WireLink
