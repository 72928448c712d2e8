"""A server from its start to its end, and what it says of itself."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from limpet.contracts import messages
from limpet.contracts.errors import FailedError, LimpetError, RejectedError, RequestTimeoutError
from limpet.contracts.messages import Heartbeat
from limpet.contracts.stream_messages import Scores
from limpet.contracts.wire import decode_published
from limpet.runtime.alert_feed import AlertFeed
from limpet.runtime.client import RobotClient
from limpet.runtime.sensor import SensorStream
from limpet.runtime.server import Server
from tests.runtime.clients import hear, x
from tests.runtime.questions import (
    MODEL,
    check_served,
    counter,
    never_reading_replies,
    tell,
)
from tests.runtime.serving import (
    CHANNELS,
    PATIENCE_S,
    RawStream,
    obedient,
    running,
    server_config,
    serving,
    until,
)

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
