"""The bench's sensors against a server whose engine obeys the test."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from limpet.contracts.errors import EngineError, RejectedError
from limpet.runtime.bench.sensors import Sensors, process_cpu_s, run_sensors
from limpet.runtime.bench.sensors_plan import SensorsPlan
from limpet.runtime.server import Server
from limpet.runtime.stream import CREDITS
from tests.runtime.serving import CHANNELS, obedient, serving, until

VALUES = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)


def plan_for(server: Server, folder: Path) -> SensorsPlan:
    """Three streams, a message of two rows every 10 ms, 0.2 s of them after 0.1 s."""
    np.save(folder / "values.npy", VALUES)
    return SensorsPlan(
        endpoint=server.listening[0],
        server_pid=os.getpid(),
        values=str(folder / "values.npy"),
        channels=CHANNELS,
        streams=3,
        message_rows=2,
        rate_hz=200.0,
        warm_up_s=0.1,
        seconds=0.2,
    )


def test_every_row_is_sent_and_acknowledged_once(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        report = run_sensors(plan_for(server, tmp_path))
    assert report.rows == report.rows_sent == report.rows_acknowledged == 3 * 30 * 2
    assert report.messages == 3 * 20
    assert report.refused == {}
    assert report.counters["requests.Samples"] == 3 * 30


def test_messages_that_fail_are_counted_and_not_acknowledged(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        obedient(server, "tiny-anomaly").failure = EngineError("out of order")
        report = run_sensors(plan_for(server, tmp_path))
    # The first rows of a stream only fill the look-back, and no engine sees them.
    assert report.refused["failed"] > 0
    failed = 2 * sum(report.refused.values())
    assert report.rows == report.rows_sent == report.rows_acknowledged + failed


def test_what_is_due_without_a_credit_waits_and_the_wait_counts(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with serving(tmp_path) as server:
            engine = obedient(server, "tiny-anomaly")
            plan = msgspec.structs.replace(
                plan_for(server, tmp_path), streams=1, warm_up_s=0.0, seconds=0.4
            )
            socket = context.socket(zmq.DEALER)
            socket.connect(plan.endpoint)
            sensors = Sensors(plan, [socket], VALUES)
            sensors.open()
            engine.gate.clear()

            def open_gate() -> None:
                try:
                    until(lambda: sensors._waited.sum() >= 3)
                finally:
                    engine.gate.set()

            opener = threading.Thread(target=open_gate)
            opener.start()
            report = sensors.play()
            opener.join()
    finally:
        context.destroy(linger=0)
    assert report.waited_for_credit >= 3
    assert report.credit_wait_max_ms > 0
    # The message that held all others up waited for the credits of those behind it.
    assert report.max_ms >= (CREDITS - 1) * 10
    assert report.rows == report.rows_acknowledged


def test_a_refused_stream_ends_the_measurement(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        plan = msgspec.structs.replace(plan_for(server, tmp_path), channels=["speed", "torque"])
        with pytest.raises(RejectedError, match="lacks channel 'current'"):
            run_sensors(plan)


def test_the_cpu_time_of_a_process_is_read_where_the_system_tells() -> None:
    assert (process_cpu_s(os.getpid()) or 0) > 0 or not Path("/proc/self/stat").exists()
    assert process_cpu_s(2**22 + 1) is None
