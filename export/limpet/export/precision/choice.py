"""Which nodes may compute at a lower precision: measured one by one, then together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from limpet.contracts.golden import Check, Parity

HEADROOM = 0.5
"""Part of each tolerance that the choice may use; the rest is for devices that sum in another
order."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen.

    Attributes:
        chosen: Names of the nodes at the lower precision, in order of computation.
        kept: Names of those that could have been, and stay float32.
        cost: Largest share of a tolerance that the chosen ones use together.
    """

    chosen: list[str]
    kept: list[str]
    cost: float


def choose(candidates: Sequence[str], measure: Callable[[Collection[str]], float]) -> Choice:
    """Takes the nodes that harm least, as many as fit in `HEADROOM` of the tolerances.

    Each candidate is measured alone. In ascending order of harm they are then taken together, and
    how many is found by bisection: rounding errors hardly ever cancel, so more nodes are worse.

    Args:
        candidates: Names of nodes, in order of computation.
        measure: Share of the tolerances that a graph with these nodes at the lower precision uses,
            as `cost_of` gives it.
    """
    alone = {name: measure([name]) for name in candidates}
    ranked = sorted(candidates, key=lambda name: alone[name])
    fits, costs = 0, {0: 0.0}
    low, high = 1, sum(cost <= HEADROOM for cost in alone.values())
    count = high  # mostly all of them fit
    while low <= high:
        costs[count] = measure(ranked[:count])
        if costs[count] <= HEADROOM:
            fits, low = count, count + 1
        else:
            high = count - 1
        count = (low + high + 1) // 2
    chosen = set(ranked[:fits])
    return Choice(
        chosen=[name for name in candidates if name in chosen],
        kept=[name for name in candidates if name not in chosen],
        cost=costs[fits],
    )


def cost_of(parity: Parity) -> float:
    """Largest share of a tolerance that a comparison uses; above 1 it fails."""
    return max(map(_share, parity.checks))


def _share(check: Check) -> float:
    if check.name.endswith("cosine"):
        return (1.0 - check.measured) / (1.0 - check.bound)
    if check.bound == 0.0:
        return 0.0 if check.measured == 0.0 else float("inf")
    return check.measured / check.bound if check.measured == check.measured else float("inf")
