"""A result that grows too old between server and client."""

from __future__ import annotations

import pytest

from limpet.contracts.errors import StaleReplyError
from limpet.contracts.tensors import Tensors
from limpet.runtime.client import RobotClient
from limpet.runtime.server import Server
from tests.runtime.clients import x
from tests.runtime.serving import PATIENCE_S, obedient

SECOND = 1_000_000_000


def test_a_result_that_grew_too_old_on_its_way_is_none(
    server: Server, robot: RobotClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot.sync_clock()
    captured_ns = robot.host_time_ns()
    now_ns = robot._clock.now_ns

    def delayed(outputs: Tensors) -> Tensors:
        """What is computed now reaches the client two seconds later by its clock."""
        monkeypatch.setattr(robot._clock, "now_ns", lambda: now_ns() + 2 * SECOND)
        return outputs

    obedient(server, "identity").replace = delayed
    with pytest.raises(StaleReplyError, match="old when its result came, at most 1000"):
        robot.infer(
            "identity", x(1.0), capture_time_ns=captured_ns, max_age_s=1.0, timeout_s=PATIENCE_S
        )
