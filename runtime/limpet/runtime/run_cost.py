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
MOST_BATCH_RUNS, FEWEST_BATCH_RUNS, BATCH_S = 20, 2, 0.1
BATCHES_S = 0.8
"""After so long no larger batch is tried: a model of 10 ms is measured up to 16 in 0.9 s."""
HARDLY_MORE, WORTH_IT = 1.05, 0.8
"""How much more than at the best batch an item may cost, and how much less than alone it has to.

A call takes fixed + batch x each, so that each doubling halves what is left to gain and doubles how
long whoever comes meanwhile waits. Of a model of 9.6 ms, of which 2.4 are fixed, batches of 2, 4
and 8 cost 17, 6 and 2 % more than 16 does, and others wait for 17, 30 and 58 ms: a tenth more would
choose 4 or 2 by chance, a twentieth chooses 8. Where `deadline_ms` says how long one may wait, that
decides.
"""


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


def best_batch(run: Callable[[int], object], deadline_ns: float = math.inf) -> int:
    """The smallest batch at which an item costs hardly more than at the best of a few.

    Larger ones would only make others wait.

    Args:
        run: Runs so many items.
        deadline_ns: What a call and then a single item must fit into: so long does a request take
            that comes when a call has just begun.

    Returns:
        1 where no batch is a fifth quicker for each item.
    """
    each_ns: dict[int, float] = {}
    begun_s = time.monotonic()
    for batch in BATCHES:
        took_ns = _quickest(run, batch)
        if each_ns and took_ns + each_ns[1] > deadline_ns:
            break
        each_ns[batch] = took_ns / batch
        if time.monotonic() - begun_s > BATCHES_S:  # a slow model: larger ones would take minutes
            break
    best_ns = min(each_ns.values())
    if best_ns > WORTH_IT * each_ns[1]:
        return 1
    return next(batch for batch, took_ns in each_ns.items() if took_ns <= HARDLY_MORE * best_ns)


def _quickest(run: Callable[[int], object], batch: int) -> int:
    """Nanoseconds of the quickest of a few runs."""
    run(batch)
    took: list[int] = []
    begun_s = time.monotonic()
    while len(took) < FEWEST_BATCH_RUNS or (
        len(took) < MOST_BATCH_RUNS and time.monotonic() - begun_s < BATCH_S
    ):
        start_ns = time.perf_counter_ns()
        run(batch)
        took.append(time.perf_counter_ns() - start_ns)
    return min(took)


def percentile(ascending: Sequence[int], share: float) -> int:
    """The smallest of the values that at least this share of them does not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
