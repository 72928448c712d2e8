"""Requests that wait: the newest of a key, priorities, and what is too old to be answered."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from limpet.contracts import messages
from limpet.contracts.clock import Clock
from limpet.contracts.errors import (
    RejectedError,
    StaleReplyError,
)
from limpet.contracts.messages import Result, Stale
from limpet.runtime.client import RobotClient
from limpet.runtime.inference import FUTURE_NS
from limpet.runtime.server import Server
from tests.runtime.clients import hear, tell, value_of, waiting, x
from tests.runtime.serving import PATIENCE_S, ObedientEngine, obedient, serving, until

SECOND = 10**9
HOUR = 3600 * SECOND


@pytest.fixture
def engine(server: Server) -> ObedientEngine:
    return obedient(server, "identity")


def test_what_grew_too_old_in_the_queue_is_not_inferred(
    robot: RobotClient, engine: ObedientEngine
) -> None:
    engine.gate.clear()
    first = tell(robot)
    until(lambda: engine.runs)
    now_ns = time.time_ns()
    old = tell(robot, capture_time_ns=now_ns - SECOND, max_age_ns=SECOND)
    fresh = tell(robot, capture_time_ns=now_ns, max_age_ns=60 * SECOND)
    engine.gate.set()
    assert hear(robot).id == first
    stale = hear(robot)
    assert isinstance(stale, Stale)
    assert (stale.id, stale.stage, stale.max_age_ns) == (old, "queue", SECOND)
    assert SECOND < (stale.age_ns or 0) < 60 * SECOND
    assert hear(robot).id == fresh
    assert engine.runs == 2
    assert robot.status().counters["dropped.stale_queue"] == 1


def test_what_would_be_too_old_when_answered_takes_no_other_requests_time(
    server: Server, robot: RobotClient, engine: ObedientEngine
) -> None:
    server._workers["identity"]._pace.observe(10 * SECOND, 1)  # 10 s a run
    engine.gate.clear()
    first = tell(robot)
    until(lambda: engine.runs)
    now_ns = time.time_ns()
    doomed = tell(robot, capture_time_ns=now_ns, max_age_ns=9 * SECOND)
    fresh = tell(robot, capture_time_ns=now_ns, max_age_ns=60 * SECOND)
    until(lambda: waiting(server) == 2)
    engine.gate.set()
    assert hear(robot).id == first
    stale = hear(robot)
    assert isinstance(stale, Stale)
    assert (stale.id, stale.stage) == (doomed, "queue")
    assert (stale.age_ns or 0) > 9 * SECOND, "as old as it would have been"
    assert hear(robot).id == fresh
    assert engine.runs == 2
    engine.gate.clear()
    tell(robot)
    until(lambda: engine.runs == 3)
    alone = tell(robot, capture_time_ns=time.time_ns(), max_age_ns=9 * SECOND)
    until(lambda: waiting(server) == 1)
    engine.gate.set()
    hear(robot)
    answer = hear(robot)  # where nobody waits, it is tried
    assert isinstance(answer, messages.Result)
    assert answer.id == alone


def test_of_two_clients_first_requests_the_one_that_is_due_first_is_first(
    server: Server, robot: RobotClient, engine: ObedientEngine
) -> None:
    with RobotClient(server.listening[0]) as other:
        engine.gate.clear()
        tell(robot)
        until(lambda: engine.runs)
        now_ns = time.time_ns()
        tell(robot, 1.0, capture_time_ns=now_ns, max_age_ns=50 * SECOND)
        until(lambda: waiting(server) == 1)
        tell(robot, 2.0, capture_time_ns=now_ns, max_age_ns=20 * SECOND)
        until(lambda: waiting(server) == 2)
        tell(other, 3.0, capture_time_ns=now_ns, max_age_ns=30 * SECOND)
        until(lambda: waiting(server) == 3)
        order: list[float] = []
        engine.replace = lambda outputs: order.append(float(outputs["y"][0, 0])) or outputs
        engine.gate.set()
        until(lambda: len(order) >= 3)
    assert order[-3:] == [3.0, 1.0, 2.0], "a client's second waits for the other's first"


def test_what_grew_too_old_in_the_engine_is_not_answered_with_a_result(
    robot: RobotClient, engine: ObedientEngine
) -> None:
    engine.gate.clear()
    threading.Timer(0.15, engine.gate.set).start()
    with pytest.raises(StaleReplyError, match=r"input was \d+\.\d ms old, at most 100.0 ms wanted"):
        robot.infer("identity", x(), max_age_s=0.1, timeout_s=PATIENCE_S)
    assert robot.status().counters["dropped.stale_reply"] == 1


def test_without_a_capture_time_age_counts_from_the_arrival(
    robot: RobotClient, engine: ObedientEngine
) -> None:
    assert value_of(robot.infer("identity", x(), max_age_s=5.0)) == 1.0
    engine.gate.clear()
    first = tell(robot)
    until(lambda: engine.runs == 2)
    tell(robot, max_age_ns=1)
    engine.gate.set()
    assert hear(robot).id == first
    stale = hear(robot)
    assert isinstance(stale, Stale)
    assert stale.stage == "queue"


def test_what_was_captured_in_the_future_is_refused_and_a_little_ahead_is_not(
    robot: RobotClient,
) -> None:
    ahead = time.time_ns() + FUTURE_NS
    with pytest.raises(RejectedError, match="captured in the future") as caught:
        robot.infer("identity", x(), capture_time_ns=ahead + SECOND)
    assert (caught.value.code, caught.value.hint) == (
        "bad_input",
        "measure the clock offset with Ping",
    )
    ahead = time.time_ns() + FUTURE_NS // 2
    assert value_of(robot.infer("identity", x(), capture_time_ns=ahead, max_age_s=1.0)) == 1.0


@pytest.mark.parametrize("shift_ns", [HOUR, -HOUR])
def test_ages_hold_where_the_servers_clock_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift_ns: int
) -> None:
    class Shifted(Clock):
        def now_ns(self) -> int:
            return super().now_ns() + shift_ns

    monkeypatch.setattr("limpet.runtime.server.Clock", Shifted)
    with serving(tmp_path) as server, RobotClient(server.listening[0]) as robot:
        assert abs(robot.sync_clock() - shift_ns) < 50_000_000
        now_ns = time.time_ns()
        fresh = robot.infer("identity", x(), capture_time_ns=now_ns, max_age_s=1.0)
        assert value_of(fresh) == 1.0
        with pytest.raises(StaleReplyError, match=r"input was 2\d\d\d\.\d ms old"):
            robot.infer("identity", x(), capture_time_ns=now_ns - 2 * SECOND, max_age_s=1.0)
        with pytest.raises(RejectedError, match="captured in the future"):
            robot.infer("identity", x(), capture_time_ns=now_ns + 2 * SECOND)


def test_a_newer_request_takes_the_place_of_a_waiting_one_of_the_same_key(
    server: Server, robot: RobotClient, engine: ObedientEngine
) -> None:
    engine.gate.clear()
    running = tell(robot, 1.0, replaces="front")
    until(lambda: engine.runs)
    with RobotClient(server.listening[0]) as other:
        elsewhere = tell(other, 9.0, replaces="front")
        until(lambda: waiting(server) == 1)
        front = [tell(robot, value, replaces="front") for value in (2.0, 3.0, 4.0)]
        rear = tell(robot, 5.0, replaces="rear")
        for replaced in front[:2]:
            reply = hear(robot)
            assert isinstance(reply, Stale)
            assert (reply.id, reply.stage) == (replaced, "replaced")
        until(lambda: waiting(server) == 3)
        engine.gate.set()
        replies = [hear(robot) for _ in range(3)]
        assert all(isinstance(reply, Result) for reply in replies)
        assert [reply.id for reply in replies] == [running, front[2], rear]
        assert hear(other).id == elsewhere  # another client's key is another key
    assert robot.status().counters["dropped.stale_replaced"] == 2
    assert engine.runs == 4


def test_higher_priorities_leave_the_queue_first_and_equal_ones_in_order(
    robot: RobotClient, engine: ObedientEngine
) -> None:
    engine.gate.clear()
    first = tell(robot)
    until(lambda: engine.runs)
    ids = {priority: [] for priority in (-100, 0, 5, 100)}  # type: dict[int, list[int]]
    for priority in (0, 100, -100, 5, 0, 100, -100, 5):
        ids[priority].append(tell(robot, priority=priority))
    robot.status(PATIENCE_S)  # by now all of them wait
    engine.gate.set()
    assert [hear(robot).id for _ in range(9)] == [first, *ids[100], *ids[5], *ids[0], *ids[-100]]
