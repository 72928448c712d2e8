from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.clock import Clock
from limpet.contracts.errors import (
    FailedError,
    RejectedError,
    RequestTimeoutError,
    StaleReplyError,
    WireError,
)
from limpet.contracts.messages import Infer, Rejected, Reply, Result, Stale
from limpet.contracts.wire import decode_request, encode
from limpet.runtime import client
from limpet.runtime.client import Connection, RobotClient, same_transport
from limpet.runtime.inference import FUTURE_NS
from limpet.runtime.server import Server
from tests.runtime.serving import PATIENCE_S, ObedientEngine, Proxy, obedient, serving, until

SECOND = 10**9
HOUR = 3600 * SECOND


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def robot(server: Server) -> Iterator[RobotClient]:
    with RobotClient(server.listening[0]) as connected:
        yield connected


@pytest.fixture
def engine(server: Server) -> ObedientEngine:
    return obedient(server, "identity")


def x(value: float = 1.0) -> dict[str, NDArray[np.float32]]:
    return {"x": np.full((1, 4), value, np.float32)}


def value_of(answer: client.Inference) -> float:
    return float(answer.outputs["y"][0, 0])


def tell(connection: Connection, value: float = 1.0, **options: Any) -> int:
    """Sends an `Infer` without waiting for its reply; its id."""
    request = Infer(id=connection.next_id(), model="identity", **options)
    connection.send(request, x(value), time.monotonic() + PATIENCE_S)
    return request.id


def send_images(connection: Connection, count: int) -> None:
    image = {"x": np.zeros((1, 1 << 16), np.float32)}
    for _ in range(count):
        request = Infer(id=connection.next_id(), model="identity")
        connection.send(request, image, time.monotonic() + 0.1)


def hear(connection: Connection) -> Reply:
    answer = connection.receive(time.monotonic() + PATIENCE_S)
    assert answer is not None, "the server does not answer"
    return answer[0]


def waiting(server: Server) -> int:
    return server._workers["identity"].waiting


@contextlib.contextmanager
def fake_server(answer: Callable[[messages.Request], list[list[bytes]]]) -> Iterator[str]:
    """A ROUTER that answers each request with the frames that `answer` gives; its endpoint."""
    stop = threading.Event()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def serve() -> None:
            while not stop.is_set():
                if router.poll(10):
                    identity, *frames = router.recv_multipart()
                    for reply in answer(decode_request(frames)[0]):
                        router.send_multipart([identity, *reply])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{port}"
        finally:
            stop.set()
            thread.join()


@contextlib.contextmanager
def takes(at_least_s: float, at_most_s: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert at_least_s - 0.01 <= time.monotonic() - start <= at_most_s  # polls count milliseconds


# Results -----------------------------------------------------------------------------------------


def test_an_inference_gives_outputs_and_says_what_made_them(robot: RobotClient) -> None:
    inputs = {"x": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}
    answer = robot.infer("identity", inputs)
    np.testing.assert_array_equal(answer.outputs["y"], inputs["x"])
    assert not answer.outputs["y"].flags.writeable
    assert (answer.space_id, answer.engine) == ("identity", "onnxruntime-cpu")
    assert 0.0 <= answer.queue_s <= answer.total_s < PATIENCE_S
    assert 0.0 < answer.inference_s <= answer.total_s


def test_hello_tells_what_is_served(server: Server, robot: RobotClient) -> None:
    welcome = robot.hello()
    assert welcome.alerts == server.publishing
    assert {m.name: (m.kind, m.channels, m.threshold) for m in welcome.models} == {
        "identity": ("custom", [], None),
        "tiny-anomaly": ("anomaly", ["speed", "current"], 3.0),
    }
    (spec,) = (m.inputs for m in welcome.models if m.name == "identity")
    assert spec[0].describe() == "x float32 [batch, 4]"


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/s"
    with serving(tmp_path, listen=(endpoint,)), RobotClient(endpoint) as robot:
        assert value_of(robot.infer("identity", x(7.0))) == 7.0


def test_arrays_that_are_neither_contiguous_nor_little_endian_arrive_as_they_are(
    robot: RobotClient,
) -> None:
    values = np.arange(24, dtype=">f4").reshape(4, 6)[:, ::2].T  # (3, 4)
    answer = robot.infer("identity", {"x": values})
    np.testing.assert_array_equal(answer.outputs["y"], values)


# Timeouts ----------------------------------------------------------------------------------------


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
    with Proxy(server.listening[0]) as proxy, RobotClient(proxy.endpoint) as robot:
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
        return [encode(messages.StreamClosed(id=request.id, stream="s", next_sequence=0))]  # type: ignore[list-item]

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


# Refusals ----------------------------------------------------------------------------------------


def test_an_unknown_model_is_refused_with_those_that_are_served(robot: RobotClient) -> None:
    with pytest.raises(RejectedError, match="no model 'grasp'") as caught:
        robot.infer("grasp", x())
    assert (caught.value.code, caught.value.hint) == (
        "unknown_model",
        "served: identity, tiny-anomaly",
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "tensor 'x' is missing, found none"),
        ({"z": np.ones((1, 4), np.float32)}, r"tensor 'x' is missing, found \['z'\]"),
        ({"x": np.ones((1, 4))}, "tensor 'x' is float64, wanted float32"),
        ({"x": np.ones((1, 5), np.float32)}, r"has shape \[1, 5\], wanted \[batch, 4\]"),
        ({"x": np.ones(4, np.float32)}, r"has shape \[4\], wanted \[batch, 4\]"),
        ({"x": np.ones((257, 4), np.float32)}, "batch of 257, at most 256"),
        ({**x(), "z": np.ones(1)}, "unknown tensor 'z'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_and_the_next_ones_served(
    robot: RobotClient, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(RejectedError, match=message) as caught:
        robot.infer("identity", inputs)
    assert caught.value.code == "bad_input"
    assert value_of(robot.infer("identity", x(3.0))) == 3.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_with_a_value_missing_are_refused_and_not_scored(
    robot: RobotClient, value: float
) -> None:
    rows = np.ones((1, 8, 2), np.float32)
    rows[0, 3, 1] = value
    with pytest.raises(RejectedError, match="NaN or infinite values") as caught:
        robot.infer("tiny-anomaly", {"rows": rows})
    assert caught.value.code == "bad_input"


def test_rows_up_to_a_first_score_get_the_score_that_a_stream_of_them_would(
    robot: RobotClient,
) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 8, 2)).astype(np.float32)
    answer = robot.infer("tiny-anomaly", {"rows": rows})
    assert list(answer.outputs) == ["embedding", "score"]
    np.testing.assert_array_equal(answer.outputs["embedding"], rows[:, -1])
    np.testing.assert_allclose(answer.outputs["score"], np.abs(rows[:, -1]).mean(axis=1), rtol=1e-6)


def test_a_client_is_told_which_rows_a_model_that_scores_streams_takes(robot: RobotClient) -> None:
    (model,) = (m for m in robot.hello().models if m.kind == "anomaly")
    assert [spec.describe() for spec in model.inputs] == ["rows float32 [batch, 8, 2]"]
    assert [spec.describe() for spec in model.outputs] == [
        "embedding float32 [batch, 2]",
        "score float32 [batch]",
    ]
    assert model.channels == ["speed", "current"]
    for rows in (np.ones((1, 7, 2), np.float32), np.ones((1, 8, 3), np.float32)):
        with pytest.raises(RejectedError, match=r"wanted \[batch, 8, 2\]"):
            robot.infer("tiny-anomaly", {"rows": rows})
    with pytest.raises(RejectedError, match="tensor 'rows' is missing, found"):
        robot.infer("tiny-anomaly", {"samples": np.ones((1, 8, 2), np.float32)})


def test_an_engine_that_fails_is_a_failed_error(robot: RobotClient, engine: ObedientEngine) -> None:
    engine.failure = ValueError("out of memory")
    with pytest.raises(FailedError, match="internal error, see the log"):
        robot.infer("identity", x())
    engine.failure = None
    assert value_of(robot.infer("identity", x(3.0))) == 3.0


def test_a_full_queue_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    with serving(tmp_path, queue=2) as server, RobotClient(server.listening[0]) as robot:
        engine = obedient(server, "identity")
        engine.gate.clear()
        first = tell(robot)
        until(lambda: engine.runs)
        ids = [tell(robot) for _ in range(3)]
        refused = hear(robot)
        assert isinstance(refused, Rejected)
        assert (refused.id, refused.code) == (ids[2], "overloaded")
        assert refused.reason == (
            "more requests wait for model 'identity' than it can answer in time or than 2"
        )
        engine.gate.set()
        assert [hear(robot).id for _ in range(3)] == [first, *ids[:2]]


# Age ---------------------------------------------------------------------------------------------


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
    assert rounds == client.CLOCK_ROUNDS
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


# The queue ---------------------------------------------------------------------------------------


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


# Endpoints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "offered", "chosen"),
    [
        ("tcp://10.0.0.7:7700", ["tcp://0.0.0.0:7701"], "tcp://10.0.0.7:7701"),
        ("tcp://robot.local:1", ["ipc:///a", "tcp://127.0.0.1:2"], "tcp://robot.local:2"),
        ("ipc:///run/a.sock", ["tcp://127.0.0.1:2", "ipc:///run/b.sock"], "ipc:///run/b.sock"),
    ],
)
def test_alerts_come_over_the_transport_and_from_the_host_of_requests(
    endpoint: str, offered: list[str], chosen: str
) -> None:
    assert same_transport(endpoint, offered) == chosen


def test_a_server_that_publishes_elsewhere_only_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="publishes on") as caught:
        same_transport("tcp://127.0.0.1:1", ["ipc:///run/b.sock"])
    assert "add a tcp endpoint to `publish`" in caught.value.hint
