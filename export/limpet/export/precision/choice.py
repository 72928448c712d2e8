"""Which nodes may compute at a lower precision: measured in groups, then together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from limpet.contracts.golden import Check, Parity

HEADROOM = 0.5
"""Part of each tolerance that the choice may use; the rest is for devices that sum in another
order."""
GROUPS = 24
"""How many groups of neighbours nodes are put into at first."""
HARMFUL = HEADROOM / 2
"""Cost above which a group is halved, to find the nodes in it that harm. At HEADROOM itself groups
that harm a little stay whole, and then fewer of them fit together: a fifth fewer nodes where grasps
are found."""

Measure = Callable[[Sequence[Collection[str]]], Sequence[float]]
"""Shares of the tolerances that graphs with these nodes at the lower precision use (`cost_of`)."""


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


def choose(candidates: Sequence[str], measure: Measure) -> Choice:
    """Takes the nodes that harm least, as many as fit in `HEADROOM` of the tolerances.

    All together are tried first, which mostly is all there is to do. Else groups of neighbours are
    measured by themselves, and halved where they harm. In ascending order of harm they are then
    taken together, and how many is found by bisection: rounding errors hardly ever cancel, so more
    nodes are worse.

    Args:
        candidates: Names of nodes, in order of computation.
        measure: Measures several choices; it may do so at the same time.
    """
    if not candidates:
        return Choice(chosen=[], kept=[], cost=0.0)
    (together,) = measure([candidates])
    if together <= HEADROOM:
        return Choice(chosen=list(candidates), kept=[], cost=together)
    ranked = _ranked(candidates, measure)
    chosen, cost = set[str](), 0.0
    low, high = 1, len(ranked)
    while low <= high:
        count = (low + high + 1) // 2
        some = {name for group in ranked[:count] for name in group}
        (together,) = measure([some])
        if together <= HEADROOM:
            chosen, cost, low = some, together, count + 1
        else:
            high = count - 1
    return Choice(
        chosen=[name for name in candidates if name in chosen],
        kept=[name for name in candidates if name not in chosen],
        cost=cost,
    )


def _ranked(candidates: Sequence[str], measure: Measure) -> list[Sequence[str]]:
    """Groups of neighbours that fit by themselves, those that harm least first."""
    size = -(-len(candidates) // GROUPS)
    groups = [candidates[start : start + size] for start in range(0, len(candidates), size)]
    measured: list[tuple[float, Sequence[str]]] = []
    while groups:
        halves: list[Sequence[str]] = []
        for group, cost in zip(groups, measure(groups), strict=True):
            if cost > HARMFUL and len(group) > 1:
                half = len(group) // 2
                halves += [group[:half], group[half:]]
            elif cost <= HEADROOM:
                measured.append((cost, group))
        groups = halves
    return [group for _, group in sorted(measured, key=lambda one: one[0])]


def cost_of(parity: Parity) -> float:
    """Largest share of a tolerance that a comparison uses; above 1 it fails."""
    return max(map(_share, parity.checks))


def _share(check: Check) -> float:
    if check.name.endswith("cosine"):
        return (1.0 - check.measured) / (1.0 - check.bound)
    if check.bound == 0.0:
        return 0.0 if check.measured == 0.0 else float("inf")
    return check.measured / check.bound if check.measured == check.measured else float("inf")
