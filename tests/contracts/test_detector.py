from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.contracts.detector import Detector, DetectorConfig, Event

NAN = math.nan
THRESHOLD, RELEASE = 3.0, 2.0
SMALL = DetectorConfig(open_after_rows=2, close_after_rows=3, update_every_rows=4)

score = st.sampled_from([0.0, 1.875, 2.0, 2.5, 2.875, 3.0, 4.0, 7.5, NAN])  # exact in float32
recording = st.lists(score, max_size=60)
settings = st.builds(
    DetectorConfig,
    open_after_rows=st.integers(1, 4),
    close_after_rows=st.integers(1, 4),
    update_every_rows=st.integers(1, 6),
)


def detector(config: DetectorConfig = SMALL) -> Detector:
    return Detector(config, THRESHOLD, RELEASE)


def push(watch: Detector, scores: Sequence[float], chunks: Sequence[int] = ()) -> list[Event]:
    """Events by row of the whole recording, pushed in chunks of the given sizes, then the rest."""
    events, start = [], 0
    for size in [*chunks, len(scores)]:
        chunk = np.array(scores[start : start + size], np.float32)
        events += [replace(e, index=e.index + start) for e in watch.push(chunk)]
        start += len(chunk)
    return events


def seen(events: Sequence[Event]) -> list[tuple[str, int]]:
    return [(event.kind, event.index) for event in events]


@given(settings, recording, st.lists(st.integers(0, 7), max_size=20))
def test_any_chunking_gives_the_same_events(
    config: DetectorConfig, scores: list[float], chunks: list[int]
) -> None:
    # repr: NaN equals itself there
    whole, cut = detector(config), detector(config)
    assert repr(push(cut, scores, chunks)) == repr(push(whole, scores))
    assert repr(cut) == repr(whole)


@given(settings, recording)
def test_events_are_what_their_rows_say(config: DetectorConfig, scores: list[float]) -> None:
    events = push(detector(config), scores)
    runs = "".join("x" if value >= THRESHOLD else " " for value in scores)
    assert bool(events) == ("x" * config.open_after_rows in runs)
    kinds, first = "", 0
    for event in events:
        rows = scores[: event.index + 1]
        if event.kind == "open":
            run = rows[-config.open_after_rows :]
            assert all(value >= THRESHOLD for value in run)
            assert event.rows == config.open_after_rows
            first = event.index - event.rows + 1
        if event.kind == "close":
            scored = [value for value in rows[first:] if not math.isnan(value)]
            assert all(value < RELEASE for value in scored[-config.close_after_rows :])
        assert event.rows == event.index - first + 1
        assert event.peak_score == np.nanmax(rows[first:])
        assert event.score == rows[-1] or math.isnan(rows[-1])
        kinds += event.kind[0]
    # Of each incident one open, then updates, then one close, before the next opens.
    for incident in kinds.split("c"):
        assert incident == "" or incident == "o" + "u" * (len(incident) - 1)


def test_a_row_at_the_threshold_is_anomalous_and_one_below_is_not() -> None:
    assert seen(push(detector(), [3.0, 3.0])) == [("open", 1)]
    assert push(detector(), [2.999, 2.999, 2.999]) == []


def test_shorter_runs_than_open_after_rows_open_nothing() -> None:
    assert push(detector(), [9.0, 0.0, 9.0, 2.9, 9.0]) == []


def test_a_score_between_release_and_threshold_keeps_an_incident_open_but_opens_none() -> None:
    assert push(detector(), [2.5] * 20) == []
    watch = detector()
    assert seen(push(watch, [5.0, 5.0, 1.0, 1.0, 2.5, 1.0, 1.0])) == [("open", 1), ("update", 5)]
    assert seen(push(watch, [1.0])) == [("close", 0)]


def test_an_unscored_row_ends_a_run_that_had_not_opened_an_incident() -> None:
    assert push(detector(), [5.0, NAN, 5.0, NAN]) == []
    assert seen(push(detector(), [5.0, NAN, 5.0, 5.0])) == [("open", 3)]


def test_unscored_rows_neither_feed_nor_calm_an_open_incident() -> None:
    quiet = replace_config(update_every_rows=1000)
    watch = detector(quiet)
    assert seen(push(watch, [5.0, 5.0])) == [("open", 1)]
    assert push(watch, [NAN] * 100) == []
    assert watch.is_open
    # Calm rows on both sides of a hole count together, the hole's own do not.
    assert seen(push(watch, [1.0, 1.0, NAN, NAN, 1.0])) == [("close", 4)]


def test_updates_come_at_their_cadence_even_while_nothing_is_scored() -> None:
    watch = detector()
    events = push(watch, [5.0] * 3 + [NAN] * 8)
    assert seen(events) == [("open", 1), ("update", 5), ("update", 9)]
    assert math.isnan(events[-1].score)
    assert events[-1].peak_score == 5.0
    assert events[-1].rows == 10


def test_an_update_is_not_due_on_the_row_that_closes() -> None:
    watch = detector(replace_config(update_every_rows=3))
    assert seen(push(watch, [5.0, 5.0, 0.0, 0.0, 0.0])) == [("open", 1), ("close", 4)]


def test_the_peak_of_a_new_incident_forgets_the_last_one() -> None:
    events = push(detector(), [9.0, 9.0, 0.0, 0.0, 0.0, 4.0, 5.0])
    assert [(e.kind, e.peak_score, e.rows) for e in events] == [
        ("open", 9.0, 2),
        ("close", 9.0, 5),
        ("open", 5.0, 2),
    ]


def test_a_restored_incident_goes_on_and_opens_no_second_time() -> None:
    watch = Detector(SMALL, THRESHOLD, RELEASE, is_open=True, peak_score=8.0, rows=40)
    events = push(watch, [NAN, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0])
    assert [(e.kind, e.index, e.peak_score, e.rows) for e in events] == [
        ("update", 3, 8.0, 44),
        ("close", 6, 8.0, 47),
    ]


def test_skipped_rows_count_in_an_open_incident_and_end_a_run_that_is_none_yet() -> None:
    watch = detector()
    push(watch, [5.0])
    watch.skip(10)
    assert push(watch, [5.0]) == []
    push(watch, [5.0])
    assert watch.is_open
    watch.skip(10)
    (close,) = push(watch, [0.0, 0.0, 0.0])
    assert (close.kind, close.rows) == ("close", 15)


@pytest.mark.parametrize("threshold", [0.1, 2.7, 3.3])
def test_a_float32_score_of_the_threshold_is_compared_exactly(threshold: float) -> None:
    # 0.1 as float32 lies above 0.1, 2.7 and 3.3 below: the same rule holds for one row and many.
    watch = Detector(replace_config(open_after_rows=1), threshold, threshold)
    rounded = np.float32(threshold)
    assert len(push(watch, [float(rounded)])) == int(float(rounded) >= threshold)


def replace_config(**fields: int) -> DetectorConfig:
    return DetectorConfig(
        **{"open_after_rows": 2, "close_after_rows": 3, "update_every_rows": 4, **fields}
    )
