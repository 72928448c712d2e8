"""Whether this machine can serve what a configuration declares, said before anybody relies on it.

What is declared are requests per second and deadlines of each model (`rate_hz`, `deadline_ms`);
what they cost is measured when the models are loaded (p99 of a run). Three conditions are
necessary, and none is sufficient: requests may come in bursts, and sensor streams come on top.

1. A model runs one request at a time, so rate x p99 is at most 1.
2. All models share the processor's cores: the sum of rate x p99 x threads is at most their number.
3. In any window as long as a model's deadline, what must be finished in it fits into it (the demand
   of periodic tasks under earliest deadline first; Baruah, Rosier and Howell, 1990), and the model
   alone is done by its deadline.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import msgspec


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is declared of a model, and what it costs here.

    Attributes:
        name: The model's.
        rate_hz: Requests per second, of all nodes together.
        deadline_ms: From capture to answer; None is until the next request.
        p99_ms: Of one run.
        threads: Processor threads that it uses.
    """

    name: str
    rate_hz: float
    deadline_ms: float | None
    p99_ms: float
    threads: int

    @property
    def due_ms(self) -> float:
        """The deadline, or the time between two requests."""
        return 1000.0 / self.rate_hz if self.deadline_ms is None else self.deadline_ms


def find_overloads(loads: Sequence[Load], cores: int) -> list[str]:
    """What cannot be served, each with its arithmetic; nothing where all may be.

    Args:
        loads: Of the models that declare one.
        cores: Of the processor, that this process may use.
    """
    found = []
    for load in loads:
        busy = load.rate_hz * load.p99_ms / 1000
        if busy > 1.0:
            found.append(
                f"model {load.name!r}: {load.rate_hz:g} requests/s x {load.p99_ms:.3g} ms (p99) = "
                f"{busy:.2f} s of work a second, and it runs one at a time: at most 1"
            )
        if load.p99_ms > load.due_ms:
            found.append(
                f"model {load.name!r}: one run takes {load.p99_ms:.3g} ms (p99), its answer is due "
                f"within {load.due_ms:.3g} ms"
            )
    total = sum(load.rate_hz * load.p99_ms / 1000 * load.threads for load in loads)
    if total > cores:
        terms = " + ".join(
            f"{load.rate_hz:g}/s x {load.p99_ms:.3g} ms"
            + (f" x {load.threads} threads" if load.threads > 1 else "")
            for load in loads
        )
        found.append(f"all models: {terms} = {total:.2f} s of work a second, of {cores} cores")
    elif not found:
        found += _late(loads, cores)
    return found


def _late(loads: Sequence[Load], cores: int) -> list[str]:
    """The tightest window into which not all fits that must be finished in it."""
    for window_ms in sorted({load.due_ms for load in loads}):
        runs = [
            (load, math.floor((window_ms - load.due_ms) * load.rate_hz / 1000) + 1)
            for load in loads
            if load.due_ms <= window_ms
        ]
        demand_ms = sum(count * load.p99_ms * load.threads for load, count in runs)
        if demand_ms > cores * window_ms:
            terms = " + ".join(
                f"{count} x {load.name} {load.p99_ms:.3g} ms" for load, count in runs
            )
            return [
                f"within {window_ms:.3g} ms must be finished: {terms} = {demand_ms:.3g} ms, and "
                f"{cores} cores do {cores * window_ms:.3g} ms"
            ]
    return []


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
