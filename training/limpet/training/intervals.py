"""How sure a mean is: intervals that hold the true one in 95 of 100 cases.

Dimension legend: n values.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def wilson(successes: int, number: int) -> Interval:
    """A share with Wilson's score interval (1927), 95 %."""
    z = 1.959964
    share = successes / number
    center = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = (
        z
        / (1 + z * z / number)
        * np.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    )
    return Interval(
        mean=share, low=max(0.0, float(center - half)), high=min(1.0, float(center + half))
    )


def bootstrap(values: NDArray[np.float64]) -> Interval:
    """A mean with its bootstrap interval (percentiles), 95 %. (n,)"""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))
