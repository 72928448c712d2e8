"""Rows of a stream: their scores, and the states that say which of them are scored."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signal_steps import SignalStep
from limpet.runtime.server import Server
from limpet.runtime.stream import CREDITS
from tests.bundles import MAX_FILL_ROWS, anomaly_manifest, tiny_scorer
from tests.runtime.feeding import (
    FILLED,
    HOLE,
    LATE,
    MODEL,
    PARTIAL,
    REPEATED,
    SCORED,
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
    serving,
)

# Scores ------------------------------------------------------------------------------------------


def broken_recording(seed: int, rows: int) -> Floats:
    """Noise with single missing values, gaps of all lengths around the fill limit, and infinity."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 2))
    for _ in range(rows // 40):
        start, length = rng.integers(0, rows), rng.integers(1, 2 * MAX_FILL_ROWS)
        channels = rng.choice(3)
        values[start : start + length, slice(None) if channels == 2 else channels] = rng.choice(
            [np.nan, np.inf, -np.inf]
        )
    return values


@pytest.mark.parametrize("steps", [None, VIBRATION], ids=["rows", "bands"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_in_messages_of_any_size_equal_those_of_the_whole_recording(
    tmp_path: Path, steps: list[SignalStep] | None, dtype: type
) -> None:
    values = broken_recording(seed=3, rows=1500).astype(dtype)
    options: dict[str, Any] = {"steps": steps, "look_back": 3}
    run = functools.partial(tiny_scorer, memory=0.5)
    offline = SignalScorer(anomaly_manifest(**options), run).push(values)
    rng = np.random.default_rng(0)
    with (
        serving(tmp_path, anomaly={**options, "memory": 0.5}) as server,
        RawStream(server.listening[0]) as pump,
    ):
        start = 0
        while start < len(values):
            size = int(rng.choice([1, 2, 7, 8, 9, 64, 300]))
            scores, states = push(pump, start, values[start : start + size])
            stop = start + len(scores)
            np.testing.assert_allclose(scores, offline.scores[start:stop], rtol=1e-5, atol=1e-6)
            assert states == offline.states[start:stop].tolist()
            start = stop
    assert set(offline.states) == {SCORED, FILLED, PARTIAL, WARMING_UP, HOLE}


def test_rows_left_out_are_as_rows_without_values_where_they_may_be_filled(
    server: Server,
) -> None:
    values = np.random.default_rng(0).normal(size=(200, 2))
    values[190:] = 9.0  # an incident, so that alerts are compared too
    holed = values.copy()
    for start in range(20, 180, 30):
        holed[start : start + MAX_FILL_ROWS] = np.nan
    missing = np.isnan(holed).all(axis=1)
    pieces = np.split(np.arange(200), np.flatnonzero(np.diff(missing)) + 1)
    with RawStream(server.listening[0], "sent", "a") as sent:
        scores, states = push(sent, 0, holed)
    with RawStream(server.listening[0], "left-out", "b") as left_out:
        for piece in pieces:
            if not missing[piece[0]]:
                some_scores, some_states = push(left_out, int(piece[0]), values[piece])
                np.testing.assert_array_equal(some_scores, scores[piece])
                assert some_states == [states[i] for i in piece]
        assert counts(left_out)["missing"] == missing.sum()
        found = alerts(left_out)
    fields = ("event", "row", "rows", "score", "peak_score", "time_ns", "start_time_ns", "channels")
    by_stream = {
        name: [[getattr(a, field) for field in fields] for a in found if a.stream == name]
        for name in ("sent", "left-out")
    }
    assert by_stream["sent"] == by_stream["left-out"]
    assert [event for event, *_ in by_stream["sent"]] == ["open", "update"]


# States ------------------------------------------------------------------------------------------


def test_a_stream_warms_up_before_its_first_score(pump: RawStream) -> None:
    scores, states = push(pump, 0, calm(10))
    assert states == [WARMING_UP] * WARM_UP_ROWS + [SCORED] * 3
    assert scores[WARM_UP_ROWS:].tolist() == [1.0] * 3
    assert (counts(pump)["warming_up"], counts(pump)["scored"]) == (WARM_UP_ROWS, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, -1e300])
def test_a_value_missing_for_a_moment_is_held_and_scores_that_look_back_on_it_are_filled(
    pump: RawStream, bad: float
) -> None:
    start = ready(pump)
    values = calm(20)
    values[5, 0] = bad
    scores, states = push(pump, start, values)
    assert states == [SCORED] * 5 + [FILLED] * 8 + [SCORED] * 7
    assert scores.tolist() == [1.0] * 20
    assert counts(pump)["filled"] == 8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_channels_missing_for_longer_are_a_hole_and_the_stream_starts_anew(
    pump: RawStream, bad: float
) -> None:
    start = ready(pump)
    values = calm(30)
    values[5:15] = bad
    _, states = push(pump, start, values)
    assert states == (
        [SCORED] * 5
        + [FILLED] * MAX_FILL_ROWS
        + [HOLE] * (10 - MAX_FILL_ROWS)
        + [WARMING_UP] * WARM_UP_ROWS
        + [SCORED] * 8
    )
    assert counts(pump)["hole"] == 10 - MAX_FILL_ROWS


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_stream_whose_channel_dies_is_scored_without_it_and_says_so(
    pump: RawStream, bad: float
) -> None:
    start = ready(pump)
    values = calm(30)
    values[5:15, 1] = bad
    scores, states = push(pump, start, values)
    absent = 10 - MAX_FILL_ROWS
    assert states == (
        [SCORED] * 5
        + [FILLED] * MAX_FILL_ROWS
        + [PARTIAL] * absent
        + [FILLED] * WARM_UP_ROWS
        + [SCORED] * 8
    )
    # The mean magnitude of one channel at 1 and one that is absent, which a model takes as 0.
    assert scores.tolist() == [1.0] * (5 + MAX_FILL_ROWS) + [0.5] * absent + [1.0] * 15
    assert counts(pump)["partial"] == absent


def test_a_channel_that_never_lived_lets_the_others_be_scored(pump: RawStream) -> None:
    values = calm(50)
    values[:, 1] = np.nan
    _, states = push(pump, 0, values)
    assert states == [WARMING_UP] * WARM_UP_ROWS + [PARTIAL] * (50 - WARM_UP_ROWS)
    found = counts(pump)
    assert (found["state"], found["partial"]) == ("partial", 50 - WARM_UP_ROWS)
    assert "hole" not in found


def test_an_incident_opens_on_what_is_left_of_a_stream_and_names_it(pump: RawStream) -> None:
    values = np.concatenate([calm(20), loud(4)])
    values[:, 1] = np.nan
    _, states = push(pump, 0, values)
    assert states[-4:] == [PARTIAL] * 4
    (opened,) = alerts(pump)
    assert (opened.event, opened.row, opened.score) == ("open", 21, 4.5)
    assert [(c.name, c.share) for c in opened.channels] == [("speed", 1.0), ("current", 0.0)]


def test_a_stream_of_which_nothing_was_ever_measured_is_a_hole(pump: RawStream) -> None:
    _, states = push(pump, 0, np.full((50, 2), np.nan))
    assert states == [HOLE] * 50
    assert counts(pump)["state"] == "hole"


def test_a_channel_without_a_first_value_is_absent_however_short(pump: RawStream) -> None:
    values = calm(12)
    values[: WARM_UP_ROWS + 1, 0] = np.nan
    _, states = push(pump, 0, values)
    assert states == [WARMING_UP] * WARM_UP_ROWS + [PARTIAL] + [FILLED] * 4


@pytest.mark.parametrize("gap", range(1, 2 * MAX_FILL_ROWS))
def test_a_gap_is_filled_up_to_the_limit_and_beyond_it_the_stream_warms_up(
    pump: RawStream, gap: int
) -> None:
    start = ready(pump)
    scores, states = push(pump, start + gap, calm(12))
    if gap <= MAX_FILL_ROWS:
        assert states == [FILLED] * WARM_UP_ROWS + [SCORED] * 5
    else:
        assert states == [WARMING_UP] * WARM_UP_ROWS + [SCORED] * 5
    assert np.nanmax(scores) == np.nanmin(scores) == 1.0
    assert (counts(pump)["gaps"], counts(pump)["missing"]) == (1, gap)


def test_rows_that_come_after_those_that_follow_them_are_late_and_change_nothing(
    pump: RawStream,
) -> None:
    start = ready(pump)
    push(pump, start + 10, calm(20))
    _, states = push(pump, start, loud(10))
    assert states == [LATE] * 10
    assert counts(pump)["late"] == 10
    assert counts(pump)["state"] == "normal"
    assert push(pump, start + 30, calm(3)) == (pytest.approx([1.0] * 3), [SCORED] * 3)
    assert alerts(pump) == []


def test_overlapping_rows_are_told_apart_row_by_row(pump: RawStream) -> None:
    start = ready(pump)
    push(pump, start + 4, calm(10))  # rows 20..23 are missing
    _, states = push(pump, start - 2, calm(20))  # 18..37
    assert states == [REPEATED] * 2 + [LATE] * 4 + [REPEATED] * 10 + [SCORED] * 4
    assert (counts(pump)["repeated"], counts(pump)["late"]) == (12, 4)


def test_a_message_sent_again_gets_the_same_answer_and_is_not_scored_again(
    server: Server, tmp_path: Path
) -> None:
    engine = obedient(server, MODEL)
    with RawStream(server.listening[0]) as pump:
        values = np.concatenate([calm(20), loud(5)])
        first = pump.push(0, values)
        runs, logged = engine.runs, len(alerts(pump))
        for _ in range(3):
            again = pump.push(0, values)
            np.testing.assert_array_equal(again[1], first[1])
            np.testing.assert_array_equal(again[2], first[2])
        assert engine.runs == runs
        assert len(alerts(pump)) == logged == 1
        assert counts(pump)["repeated"] == 3 * len(values)
        assert counts(pump)["scored"] == len(values) - WARM_UP_ROWS


def test_the_last_answers_are_remembered_for_as_many_messages_as_there_are_credits(
    pump: RawStream,
) -> None:
    scores = [push(pump, i, calm(1))[0] for i in range(CREDITS + 4)]
    for i in range(4, CREDITS + 4):
        np.testing.assert_array_equal(push(pump, i, calm(1))[0], scores[i])
    assert push(pump, 3, calm(1))[1] == [REPEATED]
