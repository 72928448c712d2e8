"""A threshold for a stated number of false alarms a day, beyond what was ever seen.

Held-out rows of an hour hold no quantile for one alarm a day, so the tail is extrapolated: peaks
over a high level follow a generalized Pareto distribution (Pickands 1975; for streams Siffer et al.
2017). A peak is the highest score of what a detector would report as one incident, since a day's
alarms are incidents and not rows.

Dimension legend: m frames, k peaks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

LEVEL_QUANTILES = (0.995, 0.99, 0.98, 0.95, 0.9)
"""Shares of normal frames below the level that peaks are taken over; the first with enough peaks
is taken."""
ENOUGH_PEAKS = 50
LEAST_PEAKS = 10
"""Fewer peaks say nothing about the shape of the tail, which then counts as exponential."""
LARGEST_SHAPE = 0.5
"""A heavier tail than this has no variance, and no few peaks prove it. A tail with an end, of shape
below 0, is never assumed either: what lies beyond the end would come as a surprise."""


@dataclass(frozen=True)
class Tail:
    """Peaks over a level: how many there are a frame, and how far they reach.

    Attributes:
        level: The level u.
        peaks_per_frame: Peaks over it, for each frame.
        scale: σ of the excess over u, above 0.
        shape: ξ; 0 is exponential, above 0 heavier.
        peaks: Number k of peaks that this was estimated from.
    """

    level: float
    peaks_per_frame: float
    scale: float
    shape: float
    peaks: int

    def reached_by(self, rate: float) -> float:
        """The score that so many peaks a frame reach; the level, if more than all peaks do."""
        if rate >= self.peaks_per_frame:
            return self.level
        ratio = math.log(self.peaks_per_frame / rate)
        # (e^(ξ·ratio) - 1) / ξ, which is the ratio itself at ξ = 0.
        reach = math.expm1(self.shape * ratio) / self.shape if self.shape else ratio
        return self.level + self.scale * reach


def fit_tail(scores: NDArray[np.floating], open_after: int, close_after: int) -> Tail:
    """Estimates the tail of normal scores.

    Args:
        scores: Scores of normal frames in order of time, none NaN. (m,)
        open_after: Frames in a row above a threshold that open an incident.
        close_after: Frames in a row below that close it.
    """
    # An incident opens where the least of the last frames reaches the threshold.
    lasting = scores.astype(np.float64)
    if len(lasting) >= open_after:
        lasting = sliding_window_view(lasting, open_after).min(axis=1)
    levels = [float(np.quantile(lasting, quantile)) for quantile in LEVEL_QUANTILES]
    found = [(level, _peaks(lasting, level, close_after) - level) for level in levels]
    level, excess = next((pair for pair in found if len(pair[1]) >= ENOUGH_PEAKS), found[-1])
    scale, shape = _pareto(excess)
    return Tail(level, len(excess) / len(scores), scale, shape, len(excess))


def _peaks(scores: Float64, level: float, close_after: int) -> Float64:
    """Highest score of each run above the level; runs are apart by so many frames below. (k,)"""
    above = np.flatnonzero(scores > level)
    if not len(above):
        return np.array([scores.max()])  # scores that are all alike
    begins = np.flatnonzero(np.diff(above, prepend=-close_after - 1) > close_after)
    return np.maximum.reduceat(scores[above], begins)


def _pareto(excess: Float64) -> tuple[float, float]:
    """Scale and shape by probability-weighted moments (Hosking and Wallis 1987), which suit few
    values.
    """
    mean = max(float(excess.mean()), 1e-9)
    if len(excess) < LEAST_PEAKS:
        return mean, 0.0
    ordered = np.sort(excess)
    k = len(ordered)
    weighted = float((ordered * (k - np.arange(1, k + 1)) / (k - 1)).mean())
    shape = 2.0 - mean / max(mean - 2.0 * weighted, 1e-9)
    shape = min(max(shape, 0.0), LARGEST_SHAPE)
    return mean * (1.0 - shape), shape
