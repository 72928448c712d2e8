"""A recording's scores beside its labels: flags, incidents, and what they found.

Pure NumPy: scores may come from any engine. Dimension legend: n rows of a recording, for `Judged`
from the first evaluated one on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.detector import DetectorConfig
from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.incidents import Finding, Incident, compare, incidents_of_scores
from limpet.contracts.manifest import Calibration
from limpet.contracts.recordings import Recording
from limpet.contracts.signals import Float32
from limpet.training.anomaly.volumes import metric_window

Labels = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """The evaluated rows of one recording, beside their labels.

    Attributes:
        labels: Ground truth. (n,)
        scores: Scores, where missing filled by `fill_unscored`. (n,)
        flags: Rows that reach the threshold. (n,)
        alert: Rows in an incident. (n,)
        findings: Labelled intervals, each with its incident.
        incidents: Number of incidents.
        outside: Number of those that overlap no label.
        rate_hz: Sampling rate.
        window_rows: Window of the volumes.
        unscored: Rows without a score of their own.
    """

    labels: Labels
    scores: Float32
    flags: Labels
    alert: Labels
    findings: tuple[Finding, ...]
    incidents: int
    outside: int
    rate_hz: float
    window_rows: int
    unscored: int


def judge(
    recording: Recording,
    scores: Float32,
    calibration: Calibration,
    *,
    detector: DetectorConfig,
    from_row: int = 0,
) -> Judged:
    """Puts a recording's scores beside its labels.

    Args:
        recording: With labels.
        scores: One for each of its rows, NaN where there is none.
        calibration: Thresholds.
        detector: Rows that open and close an incident. It runs over all rows, like the model.
        from_row: First row that counts.

    Raises:
        DataError: The recording has no labels, or no row has a score.
        UsageError: No row is left from `from_row` on.
    """
    labels = check_labels(recording)
    if from_row >= len(recording):
        raise UsageError(
            f"--from-row {from_row} leaves nothing of {recording.path}, which has "
            f"{len(recording)} rows (counted from 0)"
        )
    if np.isnan(scores).all():
        raise DataError(
            f"{recording.path}: none of its {len(scores)} rows has a score",
            "segments shorter than the model's window, or holes in every window, give none",
        )
    filled = fill_unscored(scores, recording.segments)
    alert, incidents, outside = np.zeros(len(scores), bool), 0, 0
    findings: list[Finding] = []
    stops = (*recording.segments[1:], len(recording))
    for start, stop in zip(recording.segments, stops, strict=True):
        first = max(start, from_row)
        if first >= stop:
            continue
        found = incidents_of_scores(
            scores[start:stop], calibration.threshold, calibration.release_threshold, detector
        )
        found = _from(found, first - start)
        comparison = compare(labels[first:stop], found)
        for incident in found:
            alert[first + incident.start : first + incident.stop] = True
        findings += comparison.findings
        incidents, outside = incidents + len(found), outside + len(comparison.outside)
    rows = slice(from_row, None)
    return Judged(
        labels=labels[rows],
        scores=filled[rows],
        flags=filled[rows] >= calibration.threshold,
        alert=alert[rows],
        findings=tuple(findings),
        incidents=incidents,
        outside=outside,
        rate_hz=recording.rate_hz,
        window_rows=metric_window(recording.values[:, 0]),
        unscored=int(np.isnan(scores[rows]).sum()),
    )


def _from(incidents: Sequence[Incident], row: int) -> list[Incident]:
    """What of the incidents lies at or after a row, with rows counted from there."""
    return [
        replace(
            incident,
            start=max(incident.start - row, 0),
            reported=incident.reported - row,
            stop=incident.stop - row,
        )
        for incident in incidents
        if incident.stop > row
    ]


def check_labels(recording: Recording) -> Labels:
    """The ground truth of a recording. (n,)

    Raises:
        DataError: It has none.
    """
    if recording.labels is not None:
        return recording.labels
    unusable = [w for w in recording.warnings if w.startswith("label ")]
    found = "; ".join(unusable) or f"channels: {', '.join(recording.channels)}"
    if recording.left_out:
        found += f"; left out: {', '.join(recording.left_out)}"
    raise DataError(
        f"{recording.path} has no labels to evaluate against ({found})",
        "name its label column (0 normal, 1 anomalous) with --label NAME",
    )


def fill_unscored(scores: Float32, segments: Sequence[int]) -> Float32:
    """Gives rows without a score one, so that warming up and holes gain nothing.

    Such a row takes the next score of its segment, while warming up thus the segment's first; the
    last one where none follows; the lowest of all where its segment has none.

    Args:
        scores: NaN where there is none; at least one is finite. (n,)
        segments: First row of each segment.
    """
    filled: Float32 = scores.copy()
    for segment, stop in zip(segments, (*segments[1:], len(scores)), strict=True):
        scored = segment + np.flatnonzero(~np.isnan(scores[segment:stop]))
        if not len(scored):
            filled[segment:stop] = np.nanmin(scores)
            continue
        following = np.searchsorted(scored, np.arange(segment, stop))
        filled[segment:stop] = scores[scored[np.minimum(following, len(scored) - 1)]]
    return filled
