from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.correlation import GroupingConfig
from limpet.contracts.stream_messages import Scores
from limpet.runtime.config import DetectorConfig, StreamConfig
from limpet.runtime.server import Server
from tests.runtime.feeding import (
    MODEL,
    VIBRATION,
    WARMING_UP,
    Floats,
    alerts,
    calm,
    counts,
    loud,
    push,
    ready,
)
from tests.runtime.serving import (
    WARM_UP_ROWS,
    RawStream,
    obedient,
    running,
    server_config,
    serving,
)

# Incidents ---------------------------------------------------------------------------------------


def test_an_incident_says_when_where_and_why(pump: RawStream) -> None:
    start = ready(pump)  # 20
    values = np.tile([9.0, 3.0], (6, 1))
    reply, _, _ = pump.push(start, values)
    assert isinstance(reply, Scores)
    assert reply.incident == 1
    (opened,) = alerts(pump)
    time_ns = 10**18 + 21 * 10**8
    assert (opened.event, opened.incident, opened.row, opened.rows) == ("open", 1, 21, 2)
    assert (opened.start_time_ns, opened.time_ns) == (time_ns - 10**8, time_ns)
    assert (opened.score, opened.peak_score, opened.threshold) == (6.0, 6.0, 3.0)
    assert [(c.name, c.share) for c in opened.channels] == [("speed", 0.75), ("current", 0.25)]
    assert (opened.stream, opened.model, opened.space_id) == ("pump", MODEL, "tiny")
    reply, _, _ = pump.push(start + 6, calm(5))
    assert isinstance(reply, Scores)
    assert reply.incident == 0
    assert [(a.event, a.incident, a.row, a.rows) for a in alerts(pump, since=1)] == [
        ("update", 1, 26, 7),
        ("close", 1, 28, 9),
    ]
    assert alerts(pump)[-1].start_time_ns == time_ns - 10**8


def test_all_alerts_of_an_incident_say_why_it_opened_and_the_model_is_asked_once(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as server:
        engine = obedient(server, MODEL)
        with RawStream(server.listening[0], session="a") as pump:
            start = ready(pump)
            pump.push(start, np.tile([9.0, 3.0], (2, 1)))
            engine.runs = 0
            pump.push(start + 2, np.tile([3.0, 9.0], (12, 1)))
            assert engine.runs == 1
    with serving(tmp_path) as server, RawStream(server.listening[0], session="b") as pump:
        pump.push(0, np.tile([3.0, 9.0], (WARM_UP_ROWS + 1, 1)))
        pump.push(WARM_UP_ROWS + 1, calm(3))
        found = alerts(pump)
        assert [alert.event for alert in found] == ["open", *["update"] * 4, "close"]
        assert {tuple((c.name, c.share) for c in alert.channels) for alert in found} == {
            (("speed", 0.75), ("current", 0.25))
        }


def test_an_incident_that_opens_while_a_score_holds_says_why_too(tmp_path: Path) -> None:
    # Frames of 12 rows every 5: most messages of two rows have none, and each row repeats a score.
    detector = DetectorConfig(open_after_rows=3, close_after_rows=3, update_every_rows=1)
    options = {"steps": VIBRATION, "look_back": 1, "threshold": 2.0, "channels": ["a", "b"]}
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 2))
    values[:, 0] *= 1e4
    with (
        serving(tmp_path, anomaly=options, streams=[StreamConfig(detector=detector)]) as server,
        RawStream(server.listening[0], channels=["a", "b"]) as pump,
    ):
        for start in range(0, 60, 2):
            push(pump, start, values[start : start + 2])
        found = alerts(pump)
    assert found[0].row == 13  # the first frame ends with row 11
    assert len(found) > 20
    for alert in found:
        assert [c.name for c in alert.channels] == ["a", "b"]
        assert alert.channels[0].share > 0.8


def test_what_is_acknowledged_is_in_the_log_by_then(pump: RawStream) -> None:
    sequence = ready(pump)
    for number in range(1, 40, 2):
        reply, _, _ = pump.push(sequence, loud(2))
        assert isinstance(reply, Scores)
        assert [a.sequence for a in alerts(pump, since=number - 1)] == [number] == [reply.incident]
        pump.push(sequence + 2, calm(3))
        sequence += 5


def test_a_new_server_goes_on_with_the_incident_that_is_open_and_closes_it(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as server, RawStream(server.listening[0], session="a") as pump:
        start = ready(pump)
        assert pump.push(start, loud(4, 8.0))[0].incident == 1
        (opened,) = alerts(pump)
    with serving(tmp_path) as server, RawStream(server.listening[0], session="b") as pump:
        reply, _, states = pump.push(0, loud(WARM_UP_ROWS, 7.0))
        assert isinstance(reply, Scores)
        assert reply.incident == 1
        assert set(states) == {WARMING_UP}
        assert counts(pump)["state"] == "incident"
        assert pump.push(7, np.concatenate([loud(4, 6.0), calm(3)]))[0].incident == 0
        found = alerts(pump, since=1)
        assert {a.incident for a in found} == {1}
        assert [a.event for a in found] == ["update", "update", "close"]
        assert {a.peak_score for a in found} == {8.0}
        assert {a.start_time_ns for a in found} == {opened.start_time_ns}
        reply, _, _ = pump.push(14, loud(2))
        assert isinstance(reply, Scores)
        assert reply.incident == alerts(pump)[-1].sequence == 5


def test_incidents_of_several_streams_do_not_mix(server: Server) -> None:
    endpoint = server.listening[0]
    with RawStream(endpoint, "a") as a, RawStream(endpoint, "b") as b:
        for stream in (a, b):
            ready(stream)
        assert a.push(20, loud(2))[0].incident == 1
        assert b.push(20, loud(2))[0].incident == 2
        assert a.push(22, calm(3))[0].incident == 0
        assert b.push(22, calm(1))[0].incident == 2
        assert [(x.stream, x.event, x.incident) for x in alerts(a)] == [
            ("a", "open", 1),
            ("b", "open", 2),
            ("a", "close", 1),
        ]


# Groups ------------------------------------------------------------------------------------------


def in_direction(speed: float, current: float, seed: int) -> Floats:
    """Rows of a stream that leaves normal after 60 of them. (63, 2)"""
    calm_rows = np.random.default_rng(seed).normal(0.0, 0.5, (60, 2))
    return np.concatenate([calm_rows, np.tile([speed, current], (3, 1))])


def test_streams_that_leave_normal_the_same_way_at_a_time_are_one_group(tmp_path: Path) -> None:
    ways = {"a": (9.0, 0.0), "b": (0.0, 9.0), "c": (14.0, 0.0), "d": (0.0, 7.0)}
    with serving(tmp_path) as server, contextlib.ExitStack() as opened:
        for seed, (name, (speed, current)) in enumerate(ways.items()):
            stream = opened.enter_context(RawStream(server.listening[0], name))
            push(stream, 0, in_direction(speed, current, seed))
        found = [(a.stream, a.event, a.incident, a.group) for a in alerts(stream)]
    assert found == [
        ("a", "open", 1, 1),
        ("b", "open", 2, 2),
        ("c", "open", 3, 1),
        ("d", "open", 4, 2),
    ]
    # A new server knows them: they are compared with what comes, and close in their groups.
    with serving(tmp_path) as server, contextlib.ExitStack() as opened:
        for name, way in (("e", (0.0, 8.0)), ("c", (1.0, 1.0))):
            stream = opened.enter_context(RawStream(server.listening[0], name))
            push(stream, 0, in_direction(*way, seed=9))
        found = [(a.stream, a.event, a.incident, a.group) for a in alerts(stream, since=4)]
    assert found == [("e", "open", 5, 2), ("c", "update", 3, 1), ("c", "close", 3, 1)]


def test_a_server_that_does_not_group_says_0(tmp_path: Path) -> None:
    config = msgspec.structs.replace(
        server_config(tmp_path), grouping=GroupingConfig(enabled=False)
    )
    with running(Server(config)) as server, RawStream(server.listening[0]) as pump:
        push(pump, 0, in_direction(9.0, 0.0, 0))
        assert [(a.incident, a.group) for a in alerts(pump)] == [(1, 0)]
