"""A connection: who waits how long for whom, and whose replies are whose."""

from __future__ import annotations

import re
import socket
import threading
import time
from pathlib import Path

import pytest
import zmq

from limpet.contracts import messages
from limpet.contracts.clock import Clock
from limpet.contracts.errors import (
    RequestTimeoutError,
    WireError,
)
from limpet.contracts.stream_messages import StreamClosed
from limpet.contracts.wire import encode
from limpet.runtime import connection
from limpet.runtime.client import RobotClient
from limpet.runtime.server import Server
from tests.runtime.clients import fake_server, hear, send_images, takes, tell, value_of, x
from tests.runtime.serving import PATIENCE_S, ObedientEngine, Proxy, obedient, serving, until

SECOND = 10**9
HOUR = 3600 * SECOND


@pytest.fixture
def engine(server: Server) -> ObedientEngine:
    return obedient(server, "identity")


def test_without_a_server_a_request_ends_in_time_and_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        endpoint = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
    with (
        RobotClient(endpoint) as robot,
        takes(0.2, 2.0),
        pytest.raises(RequestTimeoutError, match=f"no server at {endpoint}") as caught,
    ):
        robot.infer("identity", x(), timeout_s=0.2)
    assert "limpet serve" in caught.value.hint


def test_a_client_that_starts_before_its_server_finds_it(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        endpoint = first.listening[0]
    with RobotClient(endpoint) as robot:
        with pytest.raises(RequestTimeoutError):
            robot.infer("identity", x(), timeout_s=0.05)
        with serving(tmp_path, listen=(endpoint,)):
            assert value_of(robot.infer("identity", x(2.0), timeout_s=PATIENCE_S)) == 2.0


@pytest.mark.parametrize("options", [{}, {"capture_time_ns": 10**18}])
def test_a_server_that_accepts_and_never_reads_is_given_up_in_time(options: dict[str, int]) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as deaf:
        port = deaf.bind_to_random_port("tcp://127.0.0.1")
        with RobotClient(f"tcp://127.0.0.1:{port}") as robot:
            for _ in range(2):
                with takes(0.15, 2.0), pytest.raises(RequestTimeoutError) as caught:
                    robot.infer("identity", x(), timeout_s=0.15, **options)
                # What is left of 0.15 s, where the clocks were compared first.
                assert re.search(r"within 0\.1\d* s", str(caught.value))


def test_a_listener_that_speaks_no_zmq_is_given_up_in_time() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        RobotClient(f"tcp://127.0.0.1:{mute.getsockname()[1]}") as robot,
        takes(0.15, 2.0),
        pytest.raises(RequestTimeoutError),
    ):
        robot.infer("identity", x(), timeout_s=0.15)


def test_measuring_the_clock_counts_towards_the_timeout_of_a_request() -> None:
    def slowly(request: messages.Request) -> list[list[bytes]]:
        assert isinstance(request, messages.Ping)
        time.sleep(0.1)
        pong = messages.Pong(
            id=request.id, client_time_ns=request.client_time_ns, server_time_ns=HOUR
        )
        return [encode(pong)]  # type: ignore[list-item]

    with (
        fake_server(slowly) as endpoint,
        RobotClient(endpoint) as robot,
        takes(0.2, 0.7),  # the eight rounds alone would take longer
        pytest.raises(RequestTimeoutError),
    ):
        robot.infer("identity", x(), capture_time_ns=10**18, timeout_s=0.25)


def test_a_late_reply_is_not_taken_for_the_next_one(
    robot: RobotClient, engine: ObedientEngine
) -> None:
    engine.gate.clear()
    for value in (1.0, 2.0, 3.0):
        with pytest.raises(RequestTimeoutError):
            robot.infer("identity", x(value), timeout_s=0.05)
    engine.gate.set()
    for value in (4.0, 5.0):
        assert value_of(robot.infer("identity", x(value), timeout_s=PATIENCE_S)) == value


def test_a_connection_that_breaks_in_a_request_costs_that_request_only(
    server: Server, engine: ObedientEngine
) -> None:
    with Proxy(server.listening[0]) as proxy, RobotClient(proxy.endpoint) as robot:
        assert value_of(robot.infer("identity", x(1.0), timeout_s=PATIENCE_S)) == 1.0
        engine.gate.clear()
        threading.Timer(0.05, proxy.cut).start()
        with takes(0.3, 2.0), pytest.raises(RequestTimeoutError):
            robot.infer("identity", x(2.0), timeout_s=0.3)
        engine.gate.set()
        assert value_of(robot.infer("identity", x(3.0), timeout_s=PATIENCE_S)) == 3.0


def test_a_reply_that_has_come_is_not_lost_with_its_connection(server: Server) -> None:
    # Else the last replies of a server that stops in good order would be.
    with Proxy(server.listening[0]) as proxy, RobotClient(proxy.endpoint, lane=False) as robot:
        first = tell(robot)
        assert robot._socket.poll(1000 * PATIENCE_S)  # it is here, unread
        proxy.cut()
        until(lambda: not robot._is_connected())
        until(robot._is_connected)
        second = tell(robot)
        assert [hear(robot).id for _ in range(2)] == [first, second]


def test_requests_that_nobody_reads_are_bounded_and_said(tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as deaf:
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.bind(f"ipc://{tmp_path}/deaf")
        with (
            RobotClient(f"ipc://{tmp_path}/deaf") as robot,
            pytest.raises(RequestTimeoutError, match="takes no more requests"),
        ):
            send_images(robot, 1000)


def test_a_server_that_ends_in_a_request_costs_that_request_only(tmp_path: Path) -> None:
    with serving(tmp_path, drain_s=0.01) as first:
        engine = obedient(first, "identity")
        robot = RobotClient(first.listening[0])
        engine.gate.clear()
        threading.Timer(0.05, first.stop).start()
        with takes(0.4, 2.0), pytest.raises(RequestTimeoutError):
            robot.infer("identity", x(1.0), timeout_s=0.4)
        engine.gate.set()
    with robot, serving(tmp_path, listen=tuple(first.listening)):
        assert value_of(robot.infer("identity", x(2.0), timeout_s=PATIENCE_S)) == 2.0


def test_bytes_that_are_no_reply_and_replies_of_others_are_passed_over() -> None:
    def noisily(request: messages.Request) -> list[list[bytes]]:
        pong = messages.Pong(id=request.id, client_time_ns=0, server_time_ns=HOUR)
        other = messages.Pong(id=request.id + 1000, client_time_ns=0, server_time_ns=0)
        return [[b"\xff garbage"], [b""], encode(other), [b"x", b"y"], encode(pong)]  # type: ignore[list-item]

    with fake_server(noisily) as endpoint, RobotClient(endpoint) as robot:
        pong, _ = robot.request(messages.Ping(id=5, client_time_ns=0), messages.Pong, PATIENCE_S)
        assert (pong.id, pong.server_time_ns) == (5, HOUR)


def test_a_reply_of_another_kind_is_a_wire_error() -> None:
    def confused(request: messages.Request) -> list[list[bytes]]:
        return [encode(StreamClosed(id=request.id, stream="s", next_sequence=0))]  # type: ignore[list-item]

    with (
        fake_server(confused) as endpoint,
        RobotClient(endpoint) as robot,
        pytest.raises(WireError, match="unexpected reply StreamClosed"),
    ):
        robot.infer("identity", x(), timeout_s=PATIENCE_S)


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1", "tcp://", "http://a:1", ""])
def test_an_endpoint_that_is_none_says_what_one_looks_like(endpoint: str) -> None:
    with pytest.raises(RequestTimeoutError, match="cannot connect to") as caught:
        RobotClient(endpoint)
    assert "tcp://127.0.0.1:7700" in caught.value.hint


def test_the_quickest_round_measures_the_clock() -> None:
    # A delay on one way only misleads by half of itself: the seven slow rounds would, by 50 ms.
    clock, rounds = Clock(), 0

    def late(request: messages.Request) -> list[list[bytes]]:
        nonlocal rounds
        rounds += 1
        pong = messages.Pong(id=request.id, client_time_ns=0, server_time_ns=clock.now_ns())
        if rounds != 5:
            time.sleep(0.1)
        return [encode(pong)]  # type: ignore[list-item]

    with fake_server(late) as endpoint, RobotClient(endpoint) as robot:
        offset_ns = robot.sync_clock(timeout_s=PATIENCE_S)
    assert rounds == connection.CLOCK_ROUNDS
    assert abs(offset_ns) < 40_000_000


def test_an_older_measurement_of_the_clock_serves_on_while_the_server_does_not_answer(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as server:
        robot = RobotClient(server.listening[0])
        offset_ns = robot.sync_clock()
    with robot:
        robot._clock_measured_s = -1e9
        assert robot.server_time_ns(5 * HOUR, timeout_s=0.05) == 5 * HOUR + offset_ns
    with RobotClient(server.listening[0]) as another, pytest.raises(RequestTimeoutError):
        another.server_time_ns(timeout_s=0.05)
