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
PACE_STEP, MOST_OF_PACE = 0.05, 4.0
"""Weight of one call in the mean, and how many times the mean it counts at most."""
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


class Pace:
    """How quickly a queue is worked off, followed while it is.

    Attributes:
        each_ns: Mean time for one request, those that run in one call counted one by one; 0 before
            the first call.
    """

    def __init__(self) -> None:
        self.each_ns = 0.0
        self._call: RunCost | None = None

    @property
    def call_ns(self) -> float:
        """The 95th percentile of a call; 0 before the first."""
        return 0.0 if self._call is None else self._call.p95_ns

    def observe(self, nanoseconds: int, requests: int) -> None:
        """Takes a call into account."""
        each_ns = nanoseconds / requests
        if self._call is None:
            self.each_ns, self._call = each_ns, RunCost(nanoseconds)
            return
        # One call during which the machine did something else says little about the next.
        self.each_ns += PACE_STEP * (min(each_ns, MOST_OF_PACE * self.each_ns) - self.each_ns)
        self._call.observe(nanoseconds)


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
