"""How well scores tell anomalous rows from normal ones, and how well alerts tell of them.

There is no point-adjusted F1 here, with which random scores look good. Dimension legend: n rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.training.anomaly.judged import Judged
from limpet.training.anomaly.volumes import volumes


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Whether anomalous rows score higher than normal ones; NaN without rows of both kinds.

    Attributes:
        auroc: Probability that one of a pair does, ties counting half.
        average_precision: Area under precision over recall, without interpolation.
        vus_pr: Volume under the precision-recall surface.
        vus_roc: Volume under the ROC surface.
    """

    auroc: float
    average_precision: float
    vus_pr: float
    vus_roc: float


class RowFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Rows at the calibrated threshold; a share of no rows is NaN.

    Attributes:
        rows: Evaluated rows.
        anomalous: Labelled ones among them.
        flagged: Those that reach the threshold.
        precision: Labelled share of the flagged rows.
        recall: Flagged share of the labelled rows.
        f1: Harmonic mean of the two.
        false_alarm_rate: Flagged share of the normal rows (FAR).
        missed_alarm_rate: Share of the labelled rows that is not flagged (MAR).
    """

    rows: int
    anomalous: int
    flagged: int
    precision: float
    recall: float
    f1: float
    false_alarm_rate: float
    missed_alarm_rate: float


class EventFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled intervals against the incidents that a server would report.

    Attributes:
        labelled: Labelled intervals.
        detected: Those that share a row with an incident.
        incidents: Incidents that reach into the evaluated rows.
        outside: Those that overlap no labelled interval.
        delay_rows: Rows from an interval's beginning to the report, median over the detected
            ones; negative where the report came first, NaN where none is detected.
        delay_s: The same in seconds.
        alert_share_of_normal: Share of the normal rows that lie in an incident. One that never
            ended would detect everything; this tells.
    """

    labelled: int
    detected: int
    incidents: int
    outside: int
    delay_rows: float
    delay_s: float
    alert_share_of_normal: float


def ranking(judged: Judged) -> Ranking:
    """How one recording's rows are ranked."""
    found = volumes(judged.scores, judged.labels, judged.window_rows)
    return Ranking(
        auroc=auroc(judged.scores, judged.labels),
        average_precision=average_precision(judged.scores, judged.labels),
        vus_pr=found.pr,
        vus_roc=found.roc,
    )


def row_figures(judged: Sequence[Judged]) -> RowFigures:
    """Rows at the threshold, pooled over recordings."""
    labels = np.concatenate([one.labels for one in judged])
    flags = np.concatenate([one.flags for one in judged])
    anomalous, flagged = int(labels.sum()), int(flags.sum())
    hits, normal = int((labels & flags).sum()), len(labels) - anomalous
    return RowFigures(
        rows=len(labels),
        anomalous=anomalous,
        flagged=flagged,
        precision=_share(hits, flagged),
        recall=_share(hits, anomalous),
        f1=_share(2 * hits, flagged + anomalous),
        false_alarm_rate=_share(flagged - hits, normal),
        missed_alarm_rate=_share(anomalous - hits, anomalous),
    )


def event_figures(judged: Sequence[Judged]) -> EventFigures:
    """Intervals and incidents, over recordings."""
    delays = [
        (finding.delay_rows, finding.delay_rows / one.rate_hz)
        for one in judged
        for finding in one.findings
        if finding.delay_rows is not None
    ]
    delay_rows, delay_s = np.median(delays, axis=0) if delays else (np.nan, np.nan)
    normal = sum(int((~one.labels).sum()) for one in judged)
    return EventFigures(
        labelled=sum(len(one.findings) for one in judged),
        detected=len(delays),
        incidents=sum(one.incidents for one in judged),
        outside=sum(one.outside for one in judged),
        delay_rows=float(delay_rows),
        delay_s=float(delay_s),
        alert_share_of_normal=_share(
            sum(int((one.alert & ~one.labels).sum()) for one in judged), normal
        ),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def auroc(scores: NDArray[np.floating], anomalous: NDArray[np.bool_]) -> float:
    """Probability that an anomalous row scores higher than a normal one, ties counting half.

    Args:
        scores: Finite scores, higher is stranger. (n,)
        anomalous: Ground truth. (n,)

    Returns:
        Between 0 and 1; NaN without rows of both kinds.
    """
    positives = int(anomalous.sum())
    negatives = len(anomalous) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2.0)[inverse]  # mean rank of ties, from 1
    return float(
        (rank[anomalous].sum() - positives * (positives + 1) / 2.0) / (positives * negatives)
    )


def average_precision(scores: NDArray[np.floating], anomalous: NDArray[np.bool_]) -> float:
    """Mean of the precision at every distinct score, weighted by the recall that it adds.

    Args:
        scores: Finite scores, higher is stranger. (n,)
        anomalous: Ground truth. (n,)

    Returns:
        Between 0 and 1; NaN without rows of both kinds.
    """
    positives = int(anomalous.sum())
    if positives in (0, len(anomalous)):
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    found = np.bincount(inverse, anomalous)[::-1]  # of each distinct score, highest first
    precision = np.cumsum(found) / np.cumsum(counts[::-1])
    return float((found * precision).sum() / positives)
