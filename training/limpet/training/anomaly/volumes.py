"""Volume under the surface: ranking scores against labels whose edges are uncertain.

VUS-PR and VUS-ROC of Paparrizos et al., "Volume Under the Surface: A New Accuracy Evaluation
Measure for Time-Series Anomaly Detection" (VLDB 2022). Each labelled interval gets a buffer that
fades with the distance from it; the area under the curve is averaged over the buffer's widths.
The figures are those of the public package TSB-AD (`generate_curve`, version `opt`), which the
tests hold us to; its choice of the largest width is here as well.

Dimension legend: n rows, t thresholds, w widths of the buffer (0 to the window), s intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]

THRESHOLDS = 250
"""Operating points of a curve, evenly over the ranks of the scores."""

DEFAULT_WINDOW_ROWS = 125
"""Window of a channel without a period."""
MOST_ROWS, MOST_LAGS = 20_000, 400
SHORTEST_LAG = 3
"""Lags below this are not looked at."""


@dataclass(frozen=True)
class Volumes:
    """Areas under the curves, averaged over the buffer's widths; NaN without rows of both kinds."""

    pr: float
    roc: float


def volumes(
    scores_n: NDArray[np.floating], anomalous_n: NDArray[np.bool_], window_rows: int
) -> Volumes:
    """VUS-PR and VUS-ROC.

    With E the buffer's weight in the rows at or above a threshold, T the labelled ones among
    them, P all labelled ones and n all rows: recall is (T + E) / (P + E / 2), at most 1, times the
    share of intervals (with their buffers, those that touch being one) that hold such a row;
    precision is (T + E) / flagged; the false-alarm rate is (flagged − T − E) / (n − P − E / 2).

    Args:
        scores_n: Finite scores, higher is stranger. (n,)
        anomalous_n: Ground truth. (n,)
        window_rows: Widest buffer, half of it on either side; see `metric_window`.
    """
    n, positives = len(scores_n), int(anomalous_n.sum())
    if positives in (0, n):
        return Volumes(float("nan"), float("nan"))
    assert np.isfinite(scores_n).all()
    assert window_rows >= 0
    ranked = -np.sort(-scores_n)
    thresholds_t = ranked[np.linspace(0, n - 1, THRESHOLDS).astype(np.intp)]
    level_n = np.searchsorted(-thresholds_t, -scores_n)  # the first threshold that a row reaches
    flagged_t, hits_t = _reaching(level_n), _reaching(level_n[anomalous_n])

    edges = np.flatnonzero(np.diff(anomalous_n.astype(np.int8), prepend=0, append=0))
    starts_s, ends_s = edges[::2], edges[1::2] - 1
    outside = np.flatnonzero(~anomalous_n)
    nearest, second = _two_nearest(outside, starts_s, ends_s, far=2 * (n + window_rows))
    buffer_wt = np.empty((window_rows + 1, THRESHOLDS))
    found_wt = np.empty_like(buffer_wt)
    for width in range(window_rows + 1):
        half = width // 2
        inside = nearest <= half
        distance = nearest[inside] / max(width, 1)
        # Two buffers that overlap add up to more than 1, since neither is below sqrt(1/2) there.
        weight = np.where(second[inside] <= half, 1.0, np.sqrt(1.0 - distance))
        buffer_wt[width] = _reaching(level_n[outside[inside]], weight)
        if width % 2:
            found_wt[width] = found_wt[width - 1]
        else:
            found_wt[width] = _found_share(level_n, starts_s - half, ends_s + half)

    true_wt = hits_t + buffer_wt
    size_wt = positives + buffer_wt / 2.0
    recall_wt = np.minimum(true_wt / size_wt, 1.0) * found_wt
    false_wt = (flagged_t - true_wt) / (n - size_wt)
    pr_w = (np.diff(recall_wt, prepend=0.0) * (true_wt / flagged_t)).sum(axis=1)
    zeros, ones = np.zeros((window_rows + 1, 1)), np.ones((window_rows + 1, 1))
    hit_wt = np.concatenate([zeros, recall_wt, ones], axis=1)
    step_wt = np.diff(np.concatenate([zeros, false_wt, ones], axis=1))
    roc_w = (step_wt * (hit_wt[:, 1:] + hit_wt[:, :-1]) / 2.0).sum(axis=1)
    return Volumes(float(pr_w.mean()), float(roc_w.mean()))


def _reaching(levels: Indices, weights: Float64 | None = None) -> Float64:
    """How many rows, or how much weight, reach each threshold. (t,)"""
    return np.cumsum(np.bincount(levels, weights, minlength=THRESHOLDS), dtype=np.float64)


def _two_nearest(
    rows: Indices, starts_s: Indices, ends_s: Indices, far: int
) -> tuple[Indices, Indices]:
    """Distances from unlabelled rows to the nearest labelled interval and to the next nearest.

    Args:
        rows: The rows. (r,)
        starts_s: First row of each interval, ascending. (s,)
        ends_s: Last row of each interval. (s,)
        far: Distance where there is none.
    """
    before = np.concatenate([[-far, -far], ends_s])
    after = np.concatenate([starts_s, [2 * far, 2 * far]])
    passed = np.searchsorted(starts_s, rows)
    distances = np.stack(
        [
            rows - before[passed + 1],
            rows - before[passed],
            after[passed] - rows,
            after[passed + 1] - rows,
        ]
    )  # (4, r)
    nearest, second = np.partition(distances, 1, axis=0)[:2]
    return nearest, second


def _found_share(level_n: Indices, first_s: Indices, last_s: Indices) -> Float64:
    """Share of intervals with a row that reaches each threshold; those that touch are one. (t,)"""
    apart = last_s[:-1] < first_s[1:]
    first = np.maximum(first_s[np.concatenate([[True], apart])], 0)
    last = np.minimum(last_s[np.concatenate([apart, [True]])], len(level_n) - 1)
    bounds = np.stack([first, last + 1], axis=1).ravel()
    padded = np.append(level_n, THRESHOLDS)  # so that a bound behind the last row is an index
    return _reaching(np.minimum.reduceat(padded, bounds)[::2]) / len(first)


def metric_window(values_n: NDArray[np.floating]) -> int:
    """Rows of the widest buffer for a recording, as TSB-AD chooses it (`find_length_rank`, rank 1).

    The lag of the highest peak of the autocorrelation over the first `MOST_ROWS` rows.

    Args:
        values_n: Its first channel; a missing value counts as the mean of the others. (n,)

    Returns:
        6 to 303; `DEFAULT_WINDOW_ROWS` where no peak lies there.
    """
    values = np.asarray(values_n[:MOST_ROWS], np.float64)
    measured = np.isfinite(values)
    if not measured.any() or np.ptp(values[measured]) == 0.0:
        return DEFAULT_WINDOW_ROWS
    centred = np.where(measured, values - values[measured].mean(), 0.0)
    spectrum = np.fft.rfft(centred, 1 << (2 * len(centred)).bit_length())
    power = np.fft.irfft(np.abs(spectrum) ** 2)[: min(MOST_LAGS + 1, len(centred))]
    correlation = (power / power[0])[SHORTEST_LAG:]  # lags from SHORTEST_LAG
    middle = correlation[1:-1]
    peaks = 1 + np.flatnonzero((middle > correlation[:-2]) & (middle > correlation[2:]))
    if not len(peaks):
        return DEFAULT_WINDOW_ROWS
    highest = int(peaks[np.argmax(correlation[peaks])])
    return highest + SHORTEST_LAG if 3 <= highest <= 300 else DEFAULT_WINDOW_ROWS
