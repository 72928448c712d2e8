"""How long one run of a model takes: measured when it is loaded, followed while it serves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

LARGEST_STEP = 0.1
"""Of the estimate, in one observation: one run that was interrupted moves it by a tenth."""
QUANTILE = 0.95
"""Of what a run costs. On a machine that others use as well, one run in a hundred is interrupted
for milliseconds, wherever it runs: a higher one would say more of them than of the model."""
WARM_UP_RUNS, FEWEST_RUNS, MOST_RUNS = 3, 5, 200
MEASURE_S = 0.5


class RunCost:
    """A running estimate of the 95th percentile of a duration.

    Each observation above the estimate raises it by 0.95 steps, each below lowers it by 0.05 steps:
    at rest, one in twenty lies above (stochastic approximation; Robbins and Monro, 1951).

    Args:
        nanoseconds: The first estimate.
    """

    def __init__(self, nanoseconds: float) -> None:
        self.p95_ns = nanoseconds

    def observe(self, nanoseconds: int) -> None:
        """Takes a duration into account."""
        step = LARGEST_STEP * self.p95_ns
        self.p95_ns += step * (QUANTILE if nanoseconds > self.p95_ns else QUANTILE - 1)


def measure_runs(run: Callable[[], object]) -> list[int]:
    """Durations in nanoseconds, ascending, of 5 to 200 runs, half a second's worth of them.

    A few runs before them are not counted: libraries allocate and choose kernels in their first.
    """
    for _ in range(WARM_UP_RUNS):
        run()
    took: list[int] = []
    begun_s = time.monotonic()
    while len(took) < FEWEST_RUNS or (
        len(took) < MOST_RUNS and time.monotonic() - begun_s < MEASURE_S
    ):
        start_ns = time.perf_counter_ns()
        run()
        took.append(time.perf_counter_ns() - start_ns)
    return sorted(took)


def percentile(ascending: Sequence[int], share: float) -> int:
    """The smallest of the values that at least this share of them does not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
