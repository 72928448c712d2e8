"""Sizes of dynamic axes that a plan is built for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from limpet.contracts.errors import UsageError
from limpet.contracts.manifest import Manifest


class Sizes(NamedTuple):
    """Smallest, usual and largest size of an axis."""

    least: int
    usual: int
    most: int


BATCH = Sizes(1, 1, 64)
"""Of the axis `batch`: robots ask for one at a time."""
VIEWS = Sizes(1, 2, 2)
"""Of the axis `views`: a reference view, and an auxiliary one where there is one."""
OTHER = Sizes(1, 16, 1024)
"""Of any other, such as the rows of a stream's chunk."""


def parse_sizes(text: str) -> tuple[str, Sizes]:
    """Reads `NAME=LEAST:USUAL:MOST`.

    Raises:
        UsageError: It is something else, or the numbers do not ascend from at least 1.
    """
    name, _, numbers = text.partition("=")
    try:
        sizes = Sizes(*map(int, numbers.split(":")))
    except (TypeError, ValueError):
        sizes = Sizes(0, 0, 0)
    if not name or not 1 <= sizes.least <= sizes.usual <= sizes.most:
        raise UsageError(
            f"--axis {text} is no axis with three ascending sizes", "say --axis batch=1:1:64"
        )
    return name, sizes


def profile_of(manifest: Manifest, given: Mapping[str, Sizes]) -> dict[str, Sizes]:
    """Sizes of every dynamic axis of a model's inputs.

    Args:
        manifest: The model's.
        given: Sizes that replace the usual ones.

    Raises:
        UsageError: An axis was given that the model does not have.
    """
    axes = {size for spec in manifest.inputs for size in spec.shape if isinstance(size, str)}
    if unknown := given.keys() - axes:
        raise UsageError(
            f"{manifest.name} has no axis {', '.join(sorted(unknown))}",
            f"its axes: {', '.join(sorted(axes)) or 'none, all sizes are fixed'}",
        )
    named = {"batch": BATCH, "views": VIEWS}
    usual = {axis: named.get(axis, OTHER) for axis in sorted(axes)}
    return {**usual, **given}
