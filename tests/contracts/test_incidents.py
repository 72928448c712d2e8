"""Incidents against labels: what counts as found, how late, and what as a false alarm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.detector import Detector, DetectorConfig
from limpet.contracts.incidents import (
    Incident,
    Interval,
    compare,
    incidents_of,
    incidents_of_scores,
    label_at,
    labelled_intervals,
)
from limpet.contracts.messages import Alert, ChannelShare

CALM_ROWS = 16


def labels(rows: int, *intervals: tuple[int, int]) -> NDArray[np.bool_]:
    """Labels of so many rows, True within the intervals."""
    truth = np.zeros(rows, bool)
    for start, stop in intervals:
        truth[start:stop] = True
    return truth


def incident(start: int, stop: int, *, number: int = 1, rows_to_report: int = 2) -> Incident:
    """An incident reported so many rows after it began."""
    return Incident(
        number=number, start=start, reported=start + rows_to_report, stop=stop, peak_score=2.0
    )


def alert(event: str, row: int, *, number: int = 1, rows: int = 1, peak: float = 2.0) -> Alert:
    """An entry of the alert log."""
    return Alert(
        log_id="log",
        sequence=row,
        event=event,  # type: ignore[arg-type]
        incident=number,
        stream="s",
        model="m",
        space_id="space",
        start_time_ns=0,
        time_ns=0,
        row=row,
        score=1.5,
        peak_score=peak,
        threshold=1.0,
        rows=rows,
        channels=[ChannelShare("a", 0.75), ChannelShare("b", 0.25)],
        recorded_ns=0,
    )


@pytest.mark.parametrize("intervals", [[], [(0, 3)], [(2, 5), (7, 10)], [(0, 10)]])
def test_labelled_intervals_are_the_runs_of_labelled_rows(intervals: list[tuple[int, int]]) -> None:
    assert labelled_intervals(labels(10, *intervals)) == [Interval(*i) for i in intervals]


def test_an_incident_begins_with_its_first_anomalous_row_and_ends_with_its_last() -> None:
    alerts = [
        alert("open", 102, rows=3),
        alert("update", 110, rows=11, peak=4.0),
        alert("close", 120 + CALM_ROWS, rows=35, peak=4.0),
    ]
    (found,) = incidents_of(alerts, 1000, CALM_ROWS)
    assert (found.start, found.reported, found.stop) == (100, 102, 121)
    assert found.peak_score == 4.0
    assert found.channels == (("a", 0.75), ("b", 0.25))
    assert not found.is_open


def test_an_incident_that_never_closed_lasts_to_the_end() -> None:
    (found,) = incidents_of([alert("open", 102, rows=3)], 1000, CALM_ROWS)
    assert found.stop == 1000
    assert found.is_open


def test_an_incident_holds_the_row_that_reported_it() -> None:
    (found,) = incidents_of([alert("open", 102), alert("close", 105)], 1000, CALM_ROWS)
    assert found.stop == 103


def test_incidents_of_scores_are_those_of_the_alerts_that_a_server_would_publish() -> None:
    config = DetectorConfig(open_after_rows=3, close_after_rows=CALM_ROWS, update_every_rows=10)
    scores = np.random.default_rng(0).random(5000).astype(np.float32)
    scores[::500] = np.nan
    scores[1000:1050] += 1.0
    scores[-20:] += 1.0
    events = Detector(config, 0.8, 0.95).push(scores)
    alerts, number = [], 0
    for e in events:
        number += e.kind == "open"
        alerts.append(alert(e.kind, e.index, number=number, rows=e.rows, peak=e.peak_score))
    wanted = [replace(i, channels=()) for i in incidents_of(alerts, 5000, CALM_ROWS)]
    assert incidents_of_scores(scores, 0.8, 0.95, config) == wanted
    assert len(wanted) > 5
    assert [i.is_open for i in wanted] == [False] * (len(wanted) - 1) + [True]


def test_every_interval_is_found_by_the_first_incident_that_overlaps_it() -> None:
    incidents = [incident(105, 110, number=1), incident(150, 160, number=2)]
    comparison = compare(labels(1000, (100, 200), (500, 600)), incidents)
    first, second = comparison.findings
    assert first.incident is incidents[0]
    assert first.delay_rows == 7
    assert second.incident is None
    assert second.delay_rows is None
    assert comparison.outside == ()


def test_an_incident_that_began_before_the_label_and_reaches_into_it_came_early() -> None:
    comparison = compare(labels(1000, (100, 200)), [incident(80, 101)])
    assert comparison.findings[0].delay_rows == -18
    assert comparison.outside == ()


@pytest.mark.parametrize(("start", "stop"), [(80, 100), (200, 220)])
def test_an_incident_beside_the_label_is_outside(start: int, stop: int) -> None:
    comparison = compare(labels(1000, (100, 200)), [incident(start, stop)])
    assert comparison.findings[0].incident is None
    assert [i.start for i in comparison.outside] == [start]
    assert comparison.outside_share == 20 / 900


def test_an_incident_that_never_ends_finds_everything_and_its_share_tells() -> None:
    comparison = compare(labels(1000, (100, 200), (500, 600)), [incident(0, 1000)])
    assert all(finding.incident for finding in comparison.findings)
    assert comparison.outside_share == 1.0


def test_without_an_incident_nothing_is_found_and_nothing_is_outside() -> None:
    comparison = compare(labels(10, (0, 10)), [])
    assert comparison.findings[0].incident is None
    assert comparison.outside_share == 0.0


def test_the_interval_at_a_row_is_the_one_that_holds_it() -> None:
    intervals = [Interval(10, 20), Interval(30, 40)]
    assert label_at(intervals, 19) is intervals[0]
    assert label_at(intervals, 20) is None
    assert label_at(intervals, 30) is intervals[1]
