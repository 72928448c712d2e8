"""A layout: the geometry of one indoor scene, drawn from a seed, without any appearance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from limpet.training.navigation.free_space import FreeSpace
from limpet.training.navigation.furnishing import furnish
from limpet.training.navigation.plan import Plan, make_plan
from limpet.training.navigation.shell import build_shell, wall_footprints
from limpet.training.navigation.solids import Footprints, Rectangle, Solid


@dataclass(frozen=True)
class Layout:
    """One indoor scene.

    Attributes:
        seed: What it was drawn from.
        plan: Rooms and openings.
        solids: Furniture.
        footprints: Walls and furniture as obstacles.
    """

    seed: int
    plan: Plan
    solids: tuple[Solid, ...]
    footprints: Footprints

    def rectangles(self) -> tuple[list[Rectangle], list[Rectangle]]:
        """All surfaces: what is opaque, and the window panes."""
        opaque, panes = build_shell(self.plan)
        return opaque + [face for solid in self.solids for face in solid.rectangles()], panes

    def free_space(self, radius_m: float) -> FreeSpace:
        """Where a robot of this radius can go; worked out once."""
        if radius_m not in self._free_spaces:
            self._free_spaces[radius_m] = FreeSpace.of(self.footprints, self.plan.size, radius_m)
        return self._free_spaces[radius_m]

    @cached_property
    def _free_spaces(self) -> dict[float, FreeSpace]:
        return {}


def make_layout(seed: int) -> Layout:
    """Draws a layout: the same for the same seed.

    Every room is reachable for a robot of radius `furnishing.ROOMY_RADIUS_M`.
    """
    rng = np.random.default_rng([seed, 0x6C61])
    plan = make_plan(rng)
    solids = tuple(furnish(plan, rng))
    walls, furniture = wall_footprints(plan), Footprints.of(solids)
    footprints = Footprints(np.concatenate([walls.table, furniture.table]))
    return Layout(seed, plan, solids, footprints)
