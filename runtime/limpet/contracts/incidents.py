"""Incidents against labelled intervals: what was found, how late, and what was no fault.

Incidents come from a server's alerts or straight from scores; the detector is the same. Rows are
counted from the first one streamed. Dimension legend: n rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.detector import Detector, DetectorConfig
from limpet.contracts.messages import Alert
from limpet.contracts.signals import Float32


@dataclass(frozen=True)
class Interval:
    """Rows that are labelled anomalous, `start` to before `stop`."""

    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Incident:
    """What a server reports, from `open` to `close`.

    Attributes:
        number: As in the alert log, or counted from 1.
        start: First anomalous row.
        reported: The row that opened it: before, nobody was told.
        stop: Row after the last anomalous one.
        peak_score: Highest score.
        channels: The largest shares in the score when it opened, largest first.
        is_open: Whether it was still open at the end.
    """

    number: int
    start: int
    reported: int
    stop: int
    peak_score: float
    channels: tuple[tuple[str, float], ...] = ()
    is_open: bool = False


@dataclass(frozen=True)
class Finding:
    """A labelled interval and the first incident that overlaps it, None where it was missed."""

    interval: Interval
    incident: Incident | None

    @property
    def delay_rows(self) -> int | None:
        """Rows from the label's beginning to the report; negative where that came first."""
        return None if self.incident is None else self.incident.reported - self.interval.start


@dataclass(frozen=True)
class Comparison:
    """Incidents of one stream against its labels.

    Attributes:
        findings: Every labelled interval, in order.
        outside: Incidents that overlap no labelled interval.
        outside_share: Share of the rows without a label that lie in an incident. One that never
            ended would find every interval; this tells.
    """

    findings: tuple[Finding, ...]
    outside: tuple[Incident, ...]
    outside_share: float


def labelled_intervals(labels_n: NDArray[np.bool_]) -> list[Interval]:
    """Runs of labelled rows. (n,)"""
    edges = np.flatnonzero(np.diff(labels_n.astype(np.int8), prepend=0, append=0))
    return [
        Interval(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]  # fmt: skip


def incidents_of(alerts: Sequence[Alert], rows: int, calm_rows: int) -> list[Incident]:
    """Incidents of one stream, as a server published them.

    Args:
        alerts: Its alerts in order of their numbers.
        rows: How many rows it had: the end of an incident that never closed.
        calm_rows: Calm rows after which an incident closes. They are no part of it.
    """
    incidents: dict[int, Incident] = {}
    for alert in alerts:
        if alert.event == "open":
            shares = tuple((channel.name, channel.share) for channel in alert.channels)
            opened = _opened(alert.incident, alert.row, alert.rows, alert.peak_score, rows)
            incidents[alert.incident] = replace(opened, channels=shares)
        else:
            incidents[alert.incident] = _changed(
                incidents[alert.incident], alert.event, alert.row, alert.peak_score, calm_rows
            )
    return list(incidents.values())


def incidents_of_scores(
    scores_n: Float32, threshold: float, release_threshold: float, config: DetectorConfig
) -> list[Incident]:
    """Incidents of one stream, as a server would publish them.

    Args:
        scores_n: Scores from the stream's first row on, NaN where a row has none. (n,)
        threshold: A row scoring at least this is anomalous.
        release_threshold: Rows below this end an incident.
        config: Rows that open and close one.
    """
    incidents: list[Incident] = []
    for event in Detector(config, threshold, release_threshold).push(scores_n):
        if event.kind == "open":
            number = len(incidents) + 1
            incidents.append(
                _opened(number, event.index, event.rows, event.peak_score, len(scores_n))
            )
        else:
            incidents[-1] = _changed(
                incidents[-1], event.kind, event.index, event.peak_score, config.close_after_rows
            )
    return incidents


def _opened(number: int, row: int, rows_so_far: int, peak_score: float, rows: int) -> Incident:
    return Incident(
        number=number,
        start=row - rows_so_far + 1,
        reported=row,
        stop=rows,
        peak_score=peak_score,
        is_open=True,
    )


def _changed(
    incident: Incident,
    event: Literal["update", "close"],
    row: int,
    peak_score: float,
    calm_rows: int,
) -> Incident:
    if event == "update":
        return replace(incident, peak_score=peak_score)
    stop = max(incident.reported, row - calm_rows) + 1
    return replace(incident, peak_score=peak_score, stop=stop, is_open=False)


def compare(labels_n: NDArray[np.bool_], incidents: Sequence[Incident]) -> Comparison:
    """Matches incidents and labelled intervals: one row in common suffices.

    Args:
        labels_n: Ground truth of the streamed rows. (n,)
        incidents: Of the same stream, in order.
    """
    intervals = labelled_intervals(labels_n)
    in_incident_n = np.zeros(len(labels_n), bool)
    for incident in incidents:
        in_incident_n[incident.start : incident.stop] = True

    def overlaps(incident: Incident, interval: Interval) -> bool:
        return incident.start < interval.stop and interval.start < incident.stop

    return Comparison(
        findings=tuple(
            Finding(interval, next((i for i in incidents if overlaps(i, interval)), None))
            for interval in intervals
        ),
        outside=tuple(
            i for i in incidents if not any(overlaps(i, interval) for interval in intervals)
        ),
        outside_share=float(in_incident_n[~labels_n].mean()) if not labels_n.all() else 0.0,
    )


def label_at(intervals: Sequence[Interval], row: int) -> Interval | None:
    """The labelled interval that holds a row."""
    return next((i for i in intervals if i.start <= row < i.stop), None)
