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
BATCHES = (1, 2, 4, 8, 16, 32)
BATCH_RUNS = 5
BATCHES_S = 0.3
HARDLY_MORE, WORTH_IT = 1.1, 0.8


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


def best_batch(run: Callable[[int], object]) -> int:
    """The smallest batch at which an item costs hardly more than at the best of a few.

    Larger ones would only make others wait.

    Args:
        run: Runs so many items.

    Returns:
        1 where no batch is a fifth quicker for each item.
    """
    each_ns: dict[int, float] = {}
    begun_s = time.monotonic()
    for batch in BATCHES:
        run(batch)
        took = []
        for _ in range(BATCH_RUNS):
            start_ns = time.perf_counter_ns()
            run(batch)
            took.append((time.perf_counter_ns() - start_ns) / batch)
        each_ns[batch] = min(took)
        if time.monotonic() - begun_s > BATCHES_S:  # a slow model: larger ones would take minutes
            break
    best_ns = min(each_ns.values())
    if best_ns > WORTH_IT * each_ns[1]:
        return 1
    return next(batch for batch, took_ns in each_ns.items() if took_ns <= HARDLY_MORE * best_ns)


def percentile(ascending: Sequence[int], share: float) -> int:
    """The smallest of the values that at least this share of them does not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
