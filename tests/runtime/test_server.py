from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.errors import FailedError, LimpetError, RejectedError, RequestTimeoutError
from limpet.contracts.messages import Failed, Heartbeat, Infer, Rejected, Result, Scores
from limpet.contracts.wire import decode_published, decode_reply, encode
from limpet.runtime.alert_feed import AlertFeed
from limpet.runtime.client import RobotClient
from limpet.runtime.connection import Connection
from limpet.runtime.run_cost import RunCost
from limpet.runtime.sensor import SensorStream
from limpet.runtime.server import Server
from tests.runtime.serving import (
    CHANNELS,
    PATIENCE_S,
    ObedientEngine,
    RawStream,
    obedient,
    running,
    server_config,
    serving,
    until,
)

MODEL = "tiny-anomaly"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as served:
        yield served


@pytest.fixture
def robot(server: Server) -> Iterator[RobotClient]:
    with RobotClient(server.listening[0]) as connected:
        yield connected


def port_of(endpoint: str) -> tuple[str, int]:
    return "127.0.0.1", int(endpoint.rpartition(":")[2])


def x(value: float) -> dict[str, NDArray[np.float32]]:
    return {"x": np.full((1, 4), value, np.float32)}


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


def hear(connection: Connection) -> messages.Reply:
    answer = connection.receive(time.monotonic() + PATIENCE_S)
    assert answer is not None, "the server does not answer"
    return answer[0]


def counter(server: Server, name: str) -> int:
    return server._metrics.counters().get(name, 0)


# One client never harms another ------------------------------------------------------------------


def half_a_greeting(server: Server, stack: ExitStack) -> None:
    for length in (0, 1, 9, 10, 11, 40, 63):
        raw = stack.enter_context(socket.create_connection(port_of(server.listening[0])))
        raw.sendall((b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(64))[:length])


def no_zmq_at_all(server: Server, stack: ExitStack) -> None:
    for endpoint in (server.listening[0], server.publishing[0]):
        raw = stack.enter_context(socket.create_connection(port_of(endpoint)))
        raw.sendall(b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n" + os.urandom(4096))


def half_a_request(server: Server, stack: ExitStack) -> None:
    """Handshakes as a DEALER, then announces a megabyte and sends a tenth of it."""
    raw = stack.enter_context(socket.create_connection(port_of(server.listening[0])))
    raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL".ljust(22, b"\0") + bytes(33))
    ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    raw.sendall(bytes([4, len(ready)]) + ready)
    raw.sendall(b"\x03" + struct.pack(">Q", 1 << 20) + bytes(100_000))


def a_message_without_end(server: Server, stack: ExitStack) -> None:
    """Parts and more parts, and never the last one."""
    dealer = stack.enter_context(zmq.Context()).socket(zmq.DEALER)
    stack.enter_context(dealer)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.connect(server.listening[0])
    for _ in range(1000):
        dealer.send(bytes(100), zmq.SNDMORE)


def garbage(server: Server, stack: ExitStack) -> None:
    dealer = stack.enter_context(zmq.Context()).socket(zmq.DEALER)
    stack.enter_context(dealer)
    dealer.connect(server.listening[0])
    for frames in ([b""], [b"\xff" * 100], [os.urandom(100)] * 40, [b"\x81\xa1v\x01", b"", b""]):
        dealer.send_multipart(frames)
        assert dealer.poll(round(PATIENCE_S * 1000))
        reply, _ = decode_reply(dealer.recv_multipart())
        assert isinstance(reply, Rejected)
        assert reply.code == "malformed"


def a_frame_beyond_the_limit(server: Server, stack: ExitStack) -> None:
    """Ends the connection; ZeroMQ makes another, over which requests are served."""
    greedy = RobotClient(server.listening[0])
    stack.callback(greedy.close)
    with pytest.raises(RequestTimeoutError):
        greedy.infer("identity", {"x": np.zeros((1 << 21, 4), np.float32)}, timeout_s=0.3)
    check_served(greedy, times=1)


def an_oversized_subscription(server: Server, stack: ExitStack) -> None:
    subscriber = stack.enter_context(zmq.Context()).socket(zmq.SUB)
    stack.enter_context(subscriber)
    subscriber.setsockopt(zmq.LINGER, 0)
    subscriber.setsockopt(zmq.SUBSCRIBE, bytes(100_000))  # libzmq itself crashes at a million
    subscriber.connect(server.publishing[0])


def leaving_before_the_reply(server: Server, stack: ExitStack) -> None:
    engine = obedient(server, "identity")
    engine.gate.clear()
    for _ in range(5):
        hasty = RobotClient(server.listening[0])
        hasty.hello()
        with pytest.raises(RequestTimeoutError):
            hasty.infer("identity", x(99.0), timeout_s=0.05)
        hasty.close()
    engine.gate.set()
    until(lambda: counter(server, "dropped.reply_peer_gone"))


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


HARMS = [
    half_a_greeting,
    no_zmq_at_all,
    half_a_request,
    a_message_without_end,
    garbage,
    a_frame_beyond_the_limit,
    an_oversized_subscription,
    leaving_before_the_reply,
    never_reading_replies,
]


@pytest.mark.parametrize("harm", HARMS)
def test_another_clients_results_stay_right(
    server: Server, robot: RobotClient, harm: Callable[[Server, ExitStack], None]
) -> None:
    with RawStream(server.listening[0]) as pump, AlertFeed(server.listening[0]) as feed:
        pump.push(0, np.ones((20, 2)))
        with ExitStack() as stack:
            harm(server, stack)
            check_served(robot)
            reply, scores, _ = pump.push(20, np.full((2, 2), 9.0))
            assert isinstance(reply, Scores)
            assert scores.tolist() == [9.0, 9.0]
            opened = next(feed.events(timeout_s=PATIENCE_S))
            assert isinstance(opened, messages.Alert)
        check_served(robot)


def test_a_model_that_hangs_delays_no_other_model_and_no_question(
    server: Server, robot: RobotClient
) -> None:
    engine = obedient(server, MODEL)
    with RobotClient(server.listening[0]) as waiting, RawStream(server.listening[0]) as pump:
        engine.gate.clear()
        tell(waiting, model=MODEL)
        until(lambda: engine.runs == 1)
        pump.tell(pump.samples(0), {"values": np.ones((20, 2))})
        until(lambda: engine.runs == 2)  # in the other thread
        pump.tell(pump.opening())
        check_served(robot)
        assert robot.status().models[MODEL]["waiting"] == 1
        assert len(robot.hello().models) == 2
        robot.sync_clock()
        engine.gate.set()
        assert isinstance(hear(waiting), Result)
        assert isinstance(pump.hear()[0], Scores)


def test_many_clients_at_once_get_each_their_own_results(server: Server) -> None:
    wrong: list[Exception] = []

    def work(first: int) -> None:
        try:
            with RobotClient(server.listening[0]) as robot:
                for value in range(first, first + 50):
                    answer = robot.infer("identity", x(value), timeout_s=PATIENCE_S)
                    np.testing.assert_array_equal(answer.outputs["y"], x(value)["x"])
        except (LimpetError, AssertionError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=[1000 * i]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert counter(server, "requests.Infer") == 400


# What fails inside -------------------------------------------------------------------------------


def raise_system_exit(engine: ObedientEngine) -> None:
    engine.failure = SystemExit(3)


def raise_memory_error(engine: ObedientEngine) -> None:
    engine.failure = MemoryError()


def give_no_outputs(engine: ObedientEngine) -> None:
    engine.replace = lambda outputs: dict.fromkeys(outputs)  # type: ignore[assignment, misc]


def give_what_no_frame_can_carry(engine: ObedientEngine) -> None:
    engine.replace = lambda outputs: {name: np.array([object()]) for name in outputs}


FAILURES = [
    raise_system_exit,
    raise_memory_error,
    give_no_outputs,
    give_what_no_frame_can_carry,
]


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("fail", FAILURES)
def test_whatever_an_engine_does_is_answered_and_the_next_request_served(
    server: Server, robot: RobotClient, fail: Callable[[ObedientEngine], None], inline: bool
) -> None:
    engine = obedient(server, "identity")
    server._models["identity"].cost = RunCost(0 if inline else 1e8)
    fail(engine)
    for _ in range(3):
        with pytest.raises(FailedError):
            robot.infer("identity", x(1.0), timeout_s=PATIENCE_S)
    engine.failure, engine.replace = None, lambda outputs: outputs
    check_served(robot, times=3)
    assert robot.status().counters["dropped.failed"] == 3


@pytest.mark.parametrize("fail", [raise_system_exit, raise_memory_error, give_no_outputs])
def test_whatever_an_engine_does_to_a_stream_is_answered_and_its_credits_come_back(
    server: Server, fail: Callable[[ObedientEngine], None]
) -> None:
    engine = obedient(server, MODEL)
    with RawStream(server.listening[0]) as pump:
        fail(engine)
        for _ in range(40):  # more than there are credits
            reply, _, _ = pump.push(0, np.ones((20, 2)))
            assert isinstance(reply, Failed)
        engine.failure, engine.replace = None, lambda outputs: outputs
        reply, _, _ = pump.push(0, np.ones((20, 2)))
        assert isinstance(reply, Scores)


def test_a_log_that_cannot_be_read_is_said_and_the_server_goes_on(
    server: Server, robot: RobotClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server._log._reader.close()
    with pytest.raises(FailedError, match=r"alerts\.db cannot be read: "):
        robot.request(
            messages.GetAlerts(id=robot.next_id(), since=0), messages.AlertPage, PATIENCE_S
        )
    check_served(robot, times=3)


def test_a_bug_in_a_handler_is_answered_and_logged_and_the_server_goes_on(
    server: Server, robot: RobotClient, caplog: pytest.LogCaptureFixture
) -> None:
    server._handlers[messages.Ping] = lambda *_: [][0]
    with pytest.raises(FailedError, match="internal error, see the log"):
        robot.sync_clock()
    assert "IndexError" in caplog.text
    check_served(robot, times=3)


# Starting ----------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_an_endpoint_in_use_is_said_and_nothing_stays_open(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    config = server_config(other, publish=(server.publishing[0],))
    before = descriptors()
    with pytest.raises(LimpetError, match=r"cannot bind tcp://127\.0\.0\.1:\d+: Address") as caught:
        Server(config)
    assert "is another server running?" in caught.value.hint
    until(lambda: descriptors() <= before)
    with serving(other):  # neither the log nor the other port is held
        pass


def test_a_log_in_use_is_said_and_nothing_stays_open(server: Server, tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(LimpetError, match=r"alerts\.db is in use by another server"):
        Server(server_config(tmp_path))
    assert descriptors() <= before


@pytest.mark.parametrize(
    "connect",
    [
        lambda server: RobotClient(server.listening[0]),
        lambda server: SensorStream(server.listening[0], "pump", CHANNELS, rate_hz=10.0),
        lambda server: AlertFeed(server.listening[0]),
    ],
)
def test_two_hundred_connections_leave_no_descriptor_open(
    server: Server, connect: Callable[[Server], RobotClient | SensorStream | AlertFeed]
) -> None:
    def once() -> None:
        with connect(server) as client:
            if isinstance(client, RobotClient):
                client.hello()

    once()
    before = descriptors()
    for _ in range(200):
        once()
    until(lambda: descriptors() <= before + 2)


@pytest.mark.parametrize(
    "connect",
    [
        lambda endpoint: SensorStream(endpoint, "pump", CHANNELS, rate_hz=10.0, timeout_s=0.01),
        lambda endpoint: AlertFeed(endpoint, timeout_s=0.01),
    ],
)
def test_failing_to_connect_leaves_no_descriptor_open(connect: Callable[[str], Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        endpoint = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
    before = descriptors()
    for _ in range(20):
        with pytest.raises(RequestTimeoutError):
            connect(endpoint)
    until(lambda: descriptors() <= before)


def test_servers_that_come_and_go_leave_neither_descriptors_nor_threads(tmp_path: Path) -> None:
    with serving(tmp_path):
        pass
    before, threads = descriptors(), threading.active_count()
    for _ in range(5):
        with serving(tmp_path) as server, RobotClient(server.listening[0]) as robot:
            check_served(robot, times=1)
    until(lambda: descriptors() <= before)
    until(lambda: threading.active_count() <= threads)


# Stopping ----------------------------------------------------------------------------------------


class Beats:
    """Listens to the heartbeats of a server."""

    def __init__(self, server: Server) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, messages.HEARTBEAT_TOPIC)
        self._socket.connect(server.publishing[0])

    def next(self) -> Heartbeat:
        assert self._socket.poll(round(PATIENCE_S * 1000)), "no heartbeat"
        beat = decode_published(self._socket.recv_multipart())
        assert isinstance(beat, Heartbeat)
        return beat

    def __enter__(self) -> Beats:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)


def test_stopping_finishes_what_was_accepted_and_refuses_what_comes_later(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path))
        slow, quick = obedient(server, "identity"), obedient(server, MODEL)
        patient = stack.enter_context(RobotClient(server.listening[0]))
        other = stack.enter_context(RobotClient(server.listening[0]))
        pump = stack.enter_context(RawStream(server.listening[0]))
        beats = stack.enter_context(Beats(server))
        for engine in (slow, quick):
            engine.gate.clear()
        accepted = [tell(patient, value) for value in range(5)]
        for i in range(4):
            pump.tell(pump.samples(8 * i), {"values": np.ones((8, 2))})
        until(lambda: counter(server, "requests.Infer") == 5)
        until(lambda: counter(server, "requests.Samples") == 4)
        server.stop()
        until(lambda: beats.next().state == "stopping")
        with pytest.raises(RejectedError) as caught:
            other.infer("identity", x(1.0), timeout_s=PATIENCE_S)
        assert (caught.value.code, caught.value.hint) == ("stopping", "try again later")
        # What one model finishes is answered while another is still at work.
        quick.gate.set()
        assert [type(pump.hear()[0]) for _ in range(4)] == [Scores] * 4
        slow.gate.set()
        assert [hear(patient).id for _ in range(5)] == accepted
        until(lambda: server._workers["identity"].stop(0.0))


def test_work_that_takes_too_long_is_given_up_and_its_end_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(server_config(tmp_path, drain_s=0.2))
    engine, stream_engine = obedient(server, "identity"), obedient(server, MODEL)
    with (
        running(server),
        RobotClient(server.listening[0]) as robot,
        RawStream(server.listening[0]) as pump,
    ):
        for each in (engine, stream_engine):
            each.gate.clear()
        for _ in range(3):
            tell(robot)
        pump.tell(pump.samples(0), {"values": np.full((20, 2), 9.0)})
        until(lambda: engine.runs and stream_engine.runs)
        server.stop()
        start = time.monotonic()
        until(lambda: "did not finish" in caplog.text)
        assert time.monotonic() - start < 5.0
    assert "model identity did not finish in time, 2 requests wait" in caplog.text
    # The workers go on in a server that is gone; nothing they do may reach a file of others.
    with ExitStack() as stack:
        pipes = [os.pipe() for _ in range(8)]
        for end in (end for pipe in pipes for end in pipe):
            os.set_blocking(end, False)
            stack.callback(os.close, end)
        for each in (engine, stream_engine):
            each.gate.set()
        for worker in server._workers.values():
            assert worker.stop(PATIENCE_S)
        for read, _ in pipes:
            with pytest.raises(BlockingIOError):
                os.read(read, 1)
    with serving(tmp_path) as again, RawStream(again.listening[0], session="s2") as pump:
        page = pump.ask(messages.GetAlerts(id=pump.next_id(), since=0))
        assert isinstance(page, messages.AlertPage)
        assert page.alerts == []  # never acknowledged, so never raised


def test_a_server_may_be_stopped_before_it_runs_and_again_after_it_has(tmp_path: Path) -> None:
    server = Server(server_config(tmp_path))
    server.stop()
    server.run()
    server.stop()
    server._io.wake()


def test_a_client_that_does_not_read_delays_the_end_by_a_second_at_most(tmp_path: Path) -> None:
    with ExitStack() as stack:
        with serving(tmp_path) as server:
            never_reading_replies(server, stack)
            start = time.monotonic()
        assert time.monotonic() - start < 3.0


# What it says of itself --------------------------------------------------------------------------


def test_heartbeats_come_at_their_interval_and_say_what_was_dropped(tmp_path: Path) -> None:
    with serving(tmp_path, heartbeat_s=0.1, name="arm-7") as server, Beats(server) as beats:
        obedient(server, "identity").failure = RuntimeError("broken")
        with RobotClient(server.listening[0]) as robot, pytest.raises(FailedError):
            robot.infer("identity", x(1.0), timeout_s=PATIENCE_S)
        times = [beats.next().time_ns for _ in range(11)]
        mean_s = (times[-1] - times[0]) / 1e10
        assert 0.09 < mean_s < 0.2
        beat = beats.next()
        assert beat.dropped == {"failed": 1}
        assert (beat.server, beat.state, beat.interval_s) == ("arm-7", "serving", 0.1)
        assert beat.engines == {"identity": "obedient", MODEL: "onnxruntime-cpu"}
        assert beat.log_id == server._log.log_id


def test_status_counts_requests_and_measures_models(server: Server, robot: RobotClient) -> None:
    check_served(robot, times=10)
    with pytest.raises(RejectedError):
        robot.infer("nobody", {})
    status = robot.status()
    assert status.uptime_s > 0.0
    assert status.counters["requests.Infer"] == 11
    assert status.counters["rejected.unknown_model"] == 1
    identity = status.models["identity"]
    assert (identity["engine"], identity["requests"]) == ("onnxruntime-cpu", 10)
    assert 0.0 < float(identity["p50_ms"]) <= float(identity["p99_ms"])
    assert status.models[MODEL] == {"engine": "onnxruntime-cpu", "waiting": 0, "requests": 0}


def test_samples_larger_than_a_message_may_be_are_cut_by_the_node(server: Server) -> None:
    # The node's largest message, 4,096 rows, must fit whatever the channels are.
    names = [*CHANNELS, *(f"extra-{i}" for i in range(98))]
    with SensorStream(server.listening[0], "wide", names, rate_hz=100.0) as wide:
        parts = wide.send(np.ones((10_000, 100))) + wide.flush()
        assert sum(len(part.scores) for part in parts) == 10_000
