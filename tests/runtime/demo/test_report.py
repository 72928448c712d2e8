"""What the demo says in the end."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from limpet.contracts.incidents import Incident, compare
from limpet.contracts.messages import Alert
from limpet.runtime.demo.pipeline import find_failures
from limpet.runtime.demo.report import (
    DemoReport,
    GroupReport,
    StreamReport,
    format_report,
    group_reports,
    interval_reports,
    when,
)
from limpet.runtime.demo.results import group_notes
from limpet.runtime.demo.robot import RobotReport
from limpet.runtime.demo.sources import Source, user_source

ROBOT = RobotReport(
    rate_hz=20.0, max_age_ms=250.0, requests=600, answered=600, stale=0, failed=0, late_ticks=0,
    p50_ms=1.5, p99_ms=4.5,
)  # fmt: skip
STREAM = StreamReport(
    name="pump", title="pump.npy", recording="pump.npy", channels=2, train_rows=500, train_s=9.0,
    threshold=1.3, false_alarm_rate=0.01, exceeding_share=None, rows=500, acknowledged=500,
    seconds=3.0, times_real_time=None, message_p50_ms=2.0, message_p99_ms=5.0, labelled=False,
    intervals=None, detected=None, missed=None, outside=None, outside_share=None, incidents=2,
)  # fmt: skip


@pytest.fixture
def pump(tmp_path: Path) -> Source:
    """A recording of 1,000 rows without times."""
    np.save(tmp_path / "pump.npy", np.zeros((1000, 2)))
    return user_source(tmp_path / "pump.npy")


def report(stream: StreamReport, robot: RobotReport = ROBOT) -> DemoReport:
    """A demo with one stream."""
    return DemoReport(
        passed=True, failures=[], seconds=60.0, stage_s={}, streams=[stream], alerts=4,
        groups=[], robot=robot, dropped={}, timeline="timeline.png",
    )  # fmt: skip


def labelled(stream: StreamReport, source: Source) -> StreamReport:
    """The same stream with two labelled intervals, one of them found, and a false alarm."""
    truth = np.zeros(500, bool)
    truth[100:150] = truth[300:350] = True
    incidents = [
        Incident(number=n, start=s, reported=s + 2, stop=s + 10, peak_score=2.0)
        for n, s in ((1, 20), (3, 110))
    ]
    found = compare(truth, incidents)
    return msgspec.structs.replace(
        stream, labelled=True, intervals=interval_reports(source.recording, 500, found),
        detected=1, missed=1, outside=1, outside_share=found.outside_share, exceeding_share=0.034,
    )  # fmt: skip


def test_without_labels_nothing_is_claimed(pump: Source) -> None:
    text = format_report(report(STREAM), [pump])
    assert "pump: 2 alerts; no labels: nothing to compare with" in text
    assert "missed" not in text
    assert "detected" not in text


def test_misses_and_false_alarms_are_said_as_they_are(pump: Source) -> None:
    text = format_report(report(labelled(STREAM, pump)), [pump])
    assert (
        "pump: 1 of 2 labelled intervals detected, 1 missed; 1 alert outside the labels "
        "(2.5% of the unlabelled time)" in text
    )
    assert "alert #3 came 12 rows after the label began" in text
    assert "row 800            50 rows      missed" in text
    assert "3.4% of the unlabelled rows reach the threshold, which was set for 1.0%" in text


def opening(incident: int, group: int, stream: str) -> Alert:
    return Alert(
        log_id="log", sequence=incident, event="open", incident=incident, group=group,
        stream=stream, model="m", space_id="s", start_time_ns=0, time_ns=0, row=0, score=4.0,
        peak_score=4.0, threshold=3.0, rows=3, channels=[], recorded_ns=0,
    )  # fmt: skip


def test_alerts_that_belong_together_are_named(pump: Source) -> None:
    alerts = [
        opening(1, 1, "pump"), opening(2, 2, "pump"), opening(3, 1, "mixer"),
        opening(4, 0, "press"), opening(5, 0, "press"), opening(7, 1, "pump"),
    ]  # fmt: skip
    alerts.append(msgspec.structs.replace(alerts[1], event="close"))
    groups = group_reports(alerts)
    assert groups == [GroupReport(group=1, incidents=[1, 3, 7], streams=["pump", "mixer"])]
    text = format_report(msgspec.structs.replace(report(STREAM), groups=groups), [pump])
    assert "alerts #1, #3, #7 belong together (pump, mixer)" in text
    assert "belong together" not in format_report(report(STREAM), [pump])


def test_intervals_are_reported_in_rows_of_the_whole_recording(pump: Source) -> None:
    first, second = labelled(STREAM, pump).intervals or ()
    assert (first.start_row, first.stop_row, first.delay_rows) == (600, 650, 12)
    assert first.delay_s is None  # the file has no times
    assert not second.detected


def test_a_pipeline_that_lost_nothing_has_no_failure_though_a_fault_was_missed(
    pump: Source,
) -> None:
    assert find_failures([labelled(STREAM, pump)], ROBOT, {}) == []


def test_stale_answers_are_shown_and_no_failure(pump: Source) -> None:
    robot = msgspec.structs.replace(ROBOT, answered=598, stale=2)
    assert find_failures([STREAM], robot, {"stale_queue": 2}) == []
    assert "598 of 600 answered, 2 stale" in format_report(report(STREAM, robot), [pump])


@pytest.mark.parametrize(
    ("stream", "robot", "dropped", "said"),
    [
        ({"acknowledged": 499}, {}, {}, "pump: 499 of 500 rows acknowledged"),
        ({}, {"failed": 3, "answered": 597}, {}, "robot: 3 of 600 requests failed"),
        ({}, {"requests": 0, "answered": 0}, {}, "robot: 0 of 0 requests failed"),
        ({}, {}, {"reply_peer_gone": 1}, "the server dropped 1: reply_peer_gone"),
    ],
)
def test_whatever_was_lost_is_a_failure(
    stream: dict[str, int], robot: dict[str, int], dropped: dict[str, int], said: str
) -> None:
    failures = find_failures(
        [msgspec.structs.replace(STREAM, **stream)],
        msgspec.structs.replace(ROBOT, **robot),
        dropped,
    )
    assert failures == [said]


def test_notes_that_differ_in_a_name_only_become_one() -> None:
    notes = ["channel 'a' is constant", "few rows", "channel 'b' is constant"]
    assert group_notes(notes) == ["channel 'a' is constant (and 1 more)", "few rows"]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (["2014-01-01 00:00:00", "2014-01-01 00:05:00"], "2014-01-01 00:05"),
        (["2014-01-01 00:00:00", "2014-01-01 00:00:01"], "2014-01-01 00:00:01"),
        (["0.0", "0.5"], "0.50 s"),
    ],
)
def test_a_row_is_named_by_its_time(tmp_path: Path, times: list[str], said: str) -> None:
    rows = "\n".join(f"{time},{row}" for row, time in enumerate(times))
    (tmp_path / "timed.csv").write_text(f"time,x\n{rows}\n")
    assert when(user_source(tmp_path / "timed.csv"), 1) == said
