"""Questions to a server under test, and whether the answers are those to the questions."""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np
import zmq

from limpet.contracts.messages import Infer
from limpet.contracts.wire import encode
from limpet.runtime.client import RobotClient
from limpet.runtime.connection import Connection
from limpet.runtime.server import Server
from tests.runtime.clients import x
from tests.runtime.serving import PATIENCE_S, until

MODEL = "tiny-anomaly"


def check_served(robot: RobotClient, times: int = 20) -> None:
    """Every result is that of its own request."""
    for value in range(times):
        answer = robot.infer("identity", x(value), timeout_s=PATIENCE_S)
        np.testing.assert_array_equal(answer.outputs["y"], x(value)["x"])


def tell(connection: Connection, value: float = 1.0, model: str = "identity") -> int:
    request = Infer(id=connection.next_id(), model=model)
    inputs = x(value) if model == "identity" else {"rows": np.full((1, 8, 2), 1.0, np.float32)}
    connection.send(request, inputs, time.monotonic() + PATIENCE_S)
    return request.id


def counter(server: Server, name: str) -> int:
    return server._metrics.counters().get(name, 0)


def never_reading_replies(server: Server, stack: ExitStack) -> None:
    """Asks for more than all buffers between hold, and reads nothing."""
    dealer = stack.enter_context(zmq.Context()).socket(zmq.DEALER)
    stack.enter_context(dealer)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.setsockopt(zmq.RCVHWM, 1)
    dealer.setsockopt(zmq.RCVBUF, 4096)
    dealer.connect(server.listening[0])
    frames = encode(Infer(id=1, model="identity"), {"x": np.zeros((256, 4), np.float32)})

    def flooded() -> bool:
        dealer.send_multipart(frames)
        return counter(server, "dropped.reply_peer_does_not_read") > 10

    until(flooded)
