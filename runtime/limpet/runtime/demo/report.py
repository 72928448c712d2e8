"""What a demo came to: the keys of `summary.json` and of `limpet demo --json`, and the words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import msgspec

from limpet.contracts.incidents import Comparison
from limpet.contracts.messages import Alert
from limpet.contracts.recordings import Recording
from limpet.contracts.reports import format_table
from limpet.runtime.demo.driving import DriveReport
from limpet.runtime.demo.pick import PickReport
from limpet.runtime.demo.robot import RobotReport
from limpet.runtime.demo.sources import Source


class IntervalReport(msgspec.Struct, frozen=True, kw_only=True):
    """One labelled interval; rows are counted in the whole recording.

    Attributes:
        start_row: First labelled row.
        stop_row: Row after the last.
        start_time_ns: When it began, None where the recording has no times.
        detected: Whether an incident overlaps it.
        incident: Number of the first that does.
        delay_rows: From the label's beginning to the report; negative where that came first.
        delay_s: The same in seconds, None where the recording has no times.
    """

    start_row: int
    stop_row: int
    start_time_ns: int | None
    detected: bool
    incident: int | None
    delay_rows: int | None
    delay_s: float | None


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """One stream.

    Attributes:
        name: Of stream and model.
        title: What it is.
        recording: The file.
        channels: How many.
        train_rows: Rows that trained its encoder.
        train_s: Seconds that training took, as it says itself.
        threshold: Score from which a row is anomalous.
        false_alarm_rate: Share of normal rows for which it was set.
        exceeding_share: Share of the scored, unlabelled rows that did reach it; None where
            there are none.
        rows: Rows streamed.
        acknowledged: Rows that the server scored or accounted for, each exactly once.
        seconds: How long they took to stream.
        times_real_time: How much faster than they were measured; None without times.
        message_p50_ms: Median time from sending rows to having their scores.
        message_p99_ms: 99th percentile.
        labelled: Whether there is a ground truth: without one the next five are None.
        intervals: Its labelled intervals.
        detected: How many of them were found.
        missed: How many were not.
        outside: Incidents that overlap none.
        outside_share: Share of the unlabelled rows that lie in an incident.
        incidents: Incidents in all.
    """

    name: str
    title: str
    recording: str
    channels: int
    train_rows: int
    train_s: float
    threshold: float
    false_alarm_rate: float
    exceeding_share: float | None
    rows: int
    acknowledged: int
    seconds: float
    times_real_time: float | None
    message_p50_ms: float
    message_p99_ms: float
    labelled: bool
    intervals: list[IntervalReport] | None
    detected: int | None
    missed: int | None
    outside: int | None
    outside_share: float | None
    incidents: int


class GroupReport(msgspec.Struct, frozen=True, kw_only=True):
    """Incidents that belong together, as the server said when they opened.

    Attributes:
        group: Its number, that of its first incident.
        incidents: Their numbers, ascending; at least two.
        streams: Where they opened, in order, each once.
    """

    group: int
    incidents: list[int]
    streams: list[str]


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole demo.

    Attributes:
        passed: Whether the pipeline worked; detections have no part in it.
        failures: What did not.
        seconds: How long it took.
        stage_s: Seconds by stage.
        streams: Each stream.
        alerts: Alerts received, updates included.
        groups: Groups of more than one incident.
        robot: What the robot met.
        dropped: The server's counters of what it dropped, by reason; stale requests of the robot,
            which it was told of, among them.
        timeline: The picture.
        navigation: What the mobile robot met, None where no policy was served.
        trajectories: The picture of its ways, empty where there is none.
        picking: What the picking robot met, None where no grasp model was served.
        grasps: The picture of what it was told to grasp, empty where there is none.
    """

    passed: bool
    failures: list[str]
    seconds: float
    stage_s: dict[str, float]
    streams: list[StreamReport]
    alerts: int
    groups: list[GroupReport]
    robot: RobotReport
    dropped: dict[str, int]
    timeline: str
    navigation: DriveReport | None = None
    trajectories: str = ""
    picking: PickReport | None = None
    grasps: str = ""


def group_reports(alerts: Sequence[Alert]) -> list[GroupReport]:
    """Groups of more than one incident, in the order of their numbers."""
    members: dict[int, list[Alert]] = {}
    for alert in alerts:
        if alert.event == "open" and alert.group:
            members.setdefault(alert.group, []).append(alert)
    return [
        GroupReport(
            group=group,
            incidents=[alert.incident for alert in opened],
            streams=list(dict.fromkeys(alert.stream for alert in opened)),
        )
        for group, opened in sorted(members.items())
        if len(opened) > 1
    ]


def interval_reports(
    recording: Recording, first_row: int, found: Comparison
) -> list[IntervalReport]:
    """Findings, in rows of the whole recording."""
    times_ns = recording.times_ns
    reports = []
    for finding in found.findings:
        start, delay = finding.interval.start + first_row, finding.delay_rows
        reports.append(
            IntervalReport(
                start_row=start,
                stop_row=finding.interval.stop + first_row,
                start_time_ns=None if times_ns is None else int(times_ns[start]),
                detected=finding.incident is not None,
                incident=finding.incident.number if finding.incident else None,
                delay_rows=delay,
                delay_s=None if times_ns is None or delay is None else delay / recording.rate_hz,
            )
        )
    return reports


def format_report(report: DemoReport, sources: Sequence[Source]) -> str:
    """The summary for a person."""
    lines = []
    for stream, source in zip(report.streams, sources, strict=True):
        lines += [f"{stream.name}: {_found(stream)}", *_intervals(stream, source)]
        if stream.exceeding_share is not None:
            lines.append(
                f"  {stream.exceeding_share:.1%} of the unlabelled rows reach the threshold, which "
                f"was set for {stream.false_alarm_rate:.1%}"
            )
    lines += [
        f"alerts {', '.join(f'#{i}' for i in group.incidents)} belong together "
        f"({', '.join(group.streams)})"
        for group in report.groups
    ]
    robot = report.robot
    dropped = sum(report.dropped.values()) - robot.stale
    drive = report.navigation
    if drive is not None:
        dropped -= sum(drive.stale.values())
    rows = [
        [
            f"{stream.name} rows",
            f"{stream.acknowledged:,} of {stream.rows:,} acknowledged, each once",
            f"{stream.message_p50_ms:.1f} ms",
            f"{stream.message_p99_ms:.1f} ms",
        ]
        for stream in report.streams
    ]
    rows.append(
        [
            f"robot at {robot.rate_hz:g} Hz",
            f"{robot.answered:,} of {robot.requests:,} answered, {robot.stale} stale, "
            f"{robot.failed} failed" + (f", {robot.late_ticks} late" if robot.late_ticks else ""),
            _milliseconds(robot.p50_ms),
            _milliseconds(robot.p99_ms),
        ]
    )
    if drive is not None:
        stale = sum(drive.stale.values()) + drive.late
        rows.append(
            [
                f"mobile robot at {drive.reached_hz:.1f} Hz",
                f"{drive.followed:,} of {drive.frames:,} frames acted on, {stale} stale, "
                f"stopped {sum(drive.stops.values())} times",
                _milliseconds(drive.p50_ms),
                _milliseconds(drive.p99_ms),
            ]
        )
    if (pick := report.picking) is not None:
        rows.append(
            [
                "picking robot",
                f"{pick.answered:,} of {pick.requests:,} scenes answered, the last by "
                + (f"no grasp: {pick.nothing}" if pick.nothing else f"{pick.rows} grasps"),
                _milliseconds(pick.p50_ms),
                _milliseconds(pick.p99_ms),
            ]
        )
    rows.append(["dropped", f"{dropped}", "", ""])
    table = format_table(["", "", "p50", "p99"], rows)
    return "\n".join([*lines, "", table])


def _found(stream: StreamReport) -> str:
    if stream.intervals is None:
        return f"{count_of(stream.incidents, 'alert')}; no labels: nothing to compare with"
    if not stream.intervals:
        return f"{count_of(stream.incidents, 'alert')} where nothing is labelled anomalous"
    return (
        f"{stream.detected} of {count_of(len(stream.intervals), 'labelled interval')} detected, "
        f"{stream.missed} missed; {count_of(stream.outside or 0, 'alert')} outside the labels "
        f"({stream.outside_share:.1%} of the unlabelled time)"
    )


def _intervals(stream: StreamReport, source: Source) -> list[str]:
    lines = []
    for interval in stream.intervals or ():
        length = source.duration(interval.stop_row - interval.start_row)
        what = "missed"
        if interval.delay_rows is not None:
            what = f"alert #{interval.incident} {describe_delay(source, interval.delay_rows)}"
        lines.append(f"  {when(source, interval.start_row):<18} {length:<12} {what}")
    return lines


def describe_delay(source: Source, delay_rows: int) -> str:
    """How a report lies to the beginning of a label."""
    if delay_rows < 0:
        return f"was open since {source.duration(-delay_rows)} before the label began"
    return f"came {source.duration(delay_rows)} after the label began"


def when(source: Source, row: int) -> str:
    """Time of a row of the whole recording, or its number where there are no times."""
    times_ns = source.recording.times_ns
    if times_ns is None:
        return f"row {row:,}"
    if source.counts_from_0:
        return f"{times_ns[row] / 1e9:,.2f} s"
    moment = datetime.fromtimestamp(int(times_ns[row]) / 1e9, timezone.utc)
    fast = source.recording.rate_hz > 0.1
    return f"{moment:%Y-%m-%d %H:%M:%S}" if fast else f"{moment:%Y-%m-%d %H:%M}"


def count_of(count: int, what: str) -> str:
    """`1 alert`, `2 alerts`."""
    return f"{count} {what}{'s' * (count != 1)}"


def _milliseconds(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} ms"
