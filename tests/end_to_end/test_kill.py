"""`kill -9` of the server in mid-stream: sensors go on by themselves, and no alert is lost."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.messages import Alert
from limpet.contracts.signals import RowState
from limpet.runtime.alert_feed import AlertFeed
from limpet.runtime.sensor import ScoredRows, SensorStream
from tests.end_to_end.serving import Serve, ServerProcess

KILLS = 5
WARM_UP_ROWS = 7
CALM_ROWS, LOUD_ROWS = 16, 9
"""An incident every 25 rows; `DETECTOR` opens, updates and closes each."""
DETECTOR = """
[[streams]]
[streams.detector]
open_after_rows = 2
close_after_rows = 3
update_every_rows = 5
"""
PATIENCE_S = 60.0


def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "what was waited for did not happen"
        time.sleep(0.005)


class Sensor:
    """Streams incident after incident in a thread, until it is told to stop."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.name, self.rows = name, 0
        self.parts: list[ScoredRows] = []
        self.levels: list[float] = []
        self.hold_loud = threading.Event()
        """While it is set, the next incident does not end; `holds` says that it has begun."""
        self.holds = threading.Event()
        self._endpoint, self._stop = endpoint, threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def _level(self, phase: int) -> float:
        return 9.0 if phase >= CALM_ROWS else 1.0

    def _run(self) -> None:
        try:
            phase = 0
            with SensorStream(
                self._endpoint, self.name, ["speed", "current"], rate_hz=1000.0
            ) as stream:
                while not self._stop.is_set():
                    levels = []
                    for _ in range(10):
                        levels.append(self._level(phase))
                        if self.hold_loud.is_set() and phase == CALM_ROWS + LOUD_ROWS - 1:
                            self.holds.set()
                        else:
                            self.holds.clear()
                            phase = (phase + 1) % (CALM_ROWS + LOUD_ROWS)
                    self.levels += levels
                    self._take(stream.send(np.repeat(np.array(levels)[:, None], 2, axis=1)))
                    self._stop.wait(0.01)
                self._take(stream.flush())
        except Exception as error:
            self._error = error
            raise

    def _take(self, parts: Sequence[ScoredRows]) -> None:
        self.parts += parts
        self.rows += sum(len(part.scores) for part in parts)

    @property
    def incident(self) -> int:
        """The open incident's number, 0 for none, as of the newest acknowledgement."""
        return self.parts[-1].incident if self.parts else 0

    def goes_on(self, rows: int = 100) -> None:
        """Waits for that many more acknowledged rows."""
        wanted = self.rows + rows
        until(lambda: self.rows >= wanted or self._error)
        assert self._error is None

    def end(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Stops; scores and states of all rows, each acknowledged exactly once."""
        self.stop()
        assert not self._thread.is_alive()
        assert self._error is None
        sequence = np.concatenate([p.sequence + np.arange(len(p.scores)) for p in self.parts])
        np.testing.assert_array_equal(np.sort(sequence), np.arange(len(self.levels)))
        order = np.argsort(sequence)
        scores = np.concatenate([p.scores for p in self.parts])[order]
        return scores, np.concatenate([p.states for p in self.parts])[order]

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)


class Subscriber:
    """Collects a feed's alerts in a thread."""

    def __init__(self, endpoint: str, since: int) -> None:
        self.alerts: list[Alert] = []
        self._feed, self._stop = AlertFeed(endpoint, since=since), threading.Event()
        self._thread = threading.Thread(target=self._run, name="subscriber")
        self._thread.start()

    def _run(self) -> None:
        with self._feed:
            while not self._stop.is_set():
                for event in self._feed.events(timeout_s=0.1):
                    if isinstance(event, Alert):
                        self.alerts.append(event)
                    if self._stop.is_set():
                        break

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)


def read_log(server: ServerProcess) -> list[Alert]:
    """What the database holds, read without limpet's own reader."""
    path = server.config_path.parent / "state" / "alerts.db"
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = database.execute("SELECT sequence, incident, event, body FROM alerts").fetchall()
    alerts = [msgspec.msgpack.decode(body, type=Alert) for *_, body in rows]
    assert [(a.sequence, a.incident, a.event) for a in alerts] == [row[:3] for row in rows]
    return alerts


def check_incidents(alerts: Sequence[Alert]) -> dict[int, list[Alert]]:
    """Of each stream one incident at a time: open, updates, close. Returns them by number."""
    incidents: dict[int, list[Alert]] = {}
    opened: dict[str, int] = {}
    for alert in alerts:
        if alert.event == "open":
            assert alert.stream not in opened, f"{alert.stream} opened twice: {alert}"
            assert alert.incident == alert.sequence
            opened[alert.stream] = alert.incident
        assert alert.incident == opened[alert.stream], alert
        incidents.setdefault(alert.incident, []).append(alert)
        assert alert.group == incidents[alert.incident][0].group, alert
        assert incidents[alert.group][0].group == alert.group, "its first incident founded it"
        if alert.event == "close":
            del opened[alert.stream]
    return incidents


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    return serve(tables=DETECTOR)


@pytest.fixture
def sensors(server: ServerProcess) -> Iterator[list[Sensor]]:
    running = [Sensor(server.endpoint, name) for name in ("press", "pump")]
    yield running
    for sensor in running:
        sensor.stop()


@pytest.fixture
def live(server: ServerProcess) -> Iterator[Subscriber]:
    subscriber = Subscriber(server.endpoint, since=0)
    yield subscriber
    subscriber.stop()


def test_five_kills_in_mid_stream_lose_and_repeat_nothing(
    server: ServerProcess, sensors: list[Sensor], live: Subscriber
) -> None:
    over_a_restart = []
    seen_before = 0
    for number in range(KILLS):
        for sensor in sensors:
            sensor.goes_on()
        sensor = sensors[number % 2]
        sensor.hold_loud.set()  # the other one is interrupted wherever it happens to be
        until(sensor.holds.is_set)
        sensor.goes_on()
        incident = sensor.incident
        assert incident
        server.kill()
        seen_before = seen_before or len(live.alerts)
        server.start()
        over_a_restart.append(incident)
        sensor.goes_on()
        assert sensor.incident == incident
        sensor.hold_loud.clear()
        until(lambda sensor=sensor, incident=incident: sensor.incident != incident)  # type: ignore[misc]
    results = [sensor.end() for sensor in sensors]

    for sensor, (scores, states) in zip(sensors, results, strict=True):
        # A warm-up on each server and nothing else: no row late, repeated, missing or misread.
        assert (states == RowState.WARMING_UP).sum() == (KILLS + 1) * WARM_UP_ROWS
        assert set(states) == {RowState.SCORED, RowState.WARMING_UP}
        scored = states == RowState.SCORED
        np.testing.assert_array_equal(scores[scored], np.array(sensor.levels)[scored])
        assert np.isnan(scores[~scored]).all()

    last = live.alerts[-1].sequence if live.alerts else 0
    with AlertFeed(server.endpoint, since=0) as feed:
        since_0 = [e for e in feed.events(timeout_s=1.0) if isinstance(e, Alert)]
    since = len(since_0) // 2
    with AlertFeed(server.endpoint, since=since) as feed:
        since_n = [e for e in feed.events(timeout_s=1.0) if isinstance(e, Alert)]
    until(lambda: live.alerts and live.alerts[-1].sequence >= since_0[-1].sequence)
    live.stop()
    assert server.terminate() == 0

    alerts = read_log(server)
    assert [a.sequence for a in alerts] == list(range(1, len(alerts) + 1))
    assert since_0 == alerts
    assert since_n == alerts[since:]
    assert live.alerts == alerts
    assert 0 < seen_before <= last  # the live feed had begun before the first kill
    assert len({a.log_id for a in alerts}) == 1

    incidents = check_incidents(alerts)
    assert len(incidents) > 2 * KILLS
    for incident in over_a_restart:
        kinds = [a.event for a in incidents[incident]]
        assert (kinds[0], kinds[-1]) == ("open", "close")
        assert {a.start_time_ns for a in incidents[incident]} == {
            incidents[incident][0].start_time_ns
        }


def test_what_a_node_was_told_before_the_kill_is_in_the_log_after_it(
    server: ServerProcess, sensors: list[Sensor]
) -> None:
    for sensor in sensors:
        sensor.goes_on(rows=300)
    server.kill()
    told = {part.incident for sensor in sensors for part in sensor.parts} - {0}
    logged = read_log(server)
    assert told
    assert told <= {alert.incident for alert in logged if alert.event == "open"}
    assert [alert.sequence for alert in logged] == list(range(1, len(logged) + 1))
    server.start()
    for sensor in sensors:
        sensor.goes_on()
        sensor.end()
    check_incidents(read_log(server))
