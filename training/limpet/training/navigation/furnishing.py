"""Furniture put into a plan's rooms, so that every room stays reachable and open.

A piece is kept only if it covers no door, no other piece and (a tall one) no window, and if a robot
of `ROOMY_RADIUS_M` still gets through every opening and reaches `LEAST_FREE` of every room's floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from limpet.training.navigation.free_space import cell_centers, largest_part
from limpet.training.navigation.furniture import AT_WALL, IN_THE_MIDDLE
from limpet.training.navigation.pieces import Piece, Rng
from limpet.training.navigation.plan import Opening, Plan
from limpet.training.navigation.shell import Side, wall_footprints
from limpet.training.navigation.solids import Box, Cylinder, Float64, Footprints, Solid, Surface

ROOMY_RADIUS_M = 0.26
"""Radius, m, of the largest robot that every layout has room for."""
LEAST_FREE = 0.22
"""Share of each room's floor that the centre of such a robot can reach."""

Area = tuple[float, float, float, float]  # x0, y0, x1, y1


class Furnisher:
    """Puts pieces one after another and knows what is still free."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.solids: list[Solid] = []
        self.shape, self.centers = cell_centers(plan.size)
        self.clearance: Float64 = wall_footprints(plan).clearance(self.centers)
        self.taken: list[Area] = [_before(hole) for hole in plan.openings if hole.kind != "window"]
        # Both sides of each opening have to stay connected.
        doors = [hole for hole in plan.openings if hole.kind != "window"]
        self.gates = np.array([self._nearest(_middle(hole)) for hole in doors])
        self.rooms = [self._cells(room.inner) for room in plan.rooms]

    def _nearest(self, point: tuple[float, float]) -> int:
        return int(np.square(self.centers - point).sum(axis=1).argmin())

    def _cells(self, area: Area) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        x, y = self.centers.T
        x0, y0, x1, y1 = area
        return np.asarray((x > x0) & (x < x1) & (y > y0) & (y < y1))

    def put(self, solids: Sequence[Solid], area: Area, overlaps: bool = False) -> bool:
        """Adds solids if the area is free and the building stays open; says whether.

        Args:
            solids: In world coordinates.
            area: What they take of the floor.
            overlaps: Whether they may share floor with others (a rug below a table).
        """
        if not overlaps and any(_overlap(area, other) for other in self.taken):
            return False
        clearance = np.minimum(self.clearance, Footprints.of(solids).clearance(self.centers))
        if not self._open(clearance):
            return False
        self.clearance = clearance
        self.solids += solids
        if not overlaps:
            self.taken.append(area)
        return True

    def _open(self, clearance: Float64) -> bool:
        free = largest_part((clearance >= ROOMY_RADIUS_M).reshape(self.shape)).ravel()
        if not free[self.gates].all():
            return False
        return all(free[cells].sum() >= LEAST_FREE * cells.sum() for cells in self.rooms)


def furnish(plan: Plan, rng: Rng) -> list[Solid]:
    """Furniture for all rooms of a plan, in world coordinates."""
    furnisher = Furnisher(plan)
    for hole in plan.openings:
        if hole.kind == "door" and rng.random() < 0.5:
            _hang_leaf(furnisher, hole, rng)
    for index, room in enumerate(plan.rooms):
        sides = [Side(plan, index, number) for number in range(4)]
        for family, likely in AT_WALL[room.kind]:
            if rng.random() < likely:
                _put_at_wall(furnisher, sides, family(rng), rng)
        for family, likely in IN_THE_MIDDLE.get(room.kind, ()):
            if rng.random() < likely:
                _put_in_middle(furnisher, room.inner, family(rng), rng)
        for side in sides:
            _put_on_wall(furnisher, side, rng)
    return furnisher.solids


def _put_at_wall(furnisher: Furnisher, sides: list[Side], piece: Piece, rng: Rng) -> None:
    tall = max(_top(solid) for solid in piece.solids)
    corner = piece.width < 0.8
    for _ in range(12):
        side = sides[rng.integers(4)]
        low, high = side.start + piece.width / 2 + 0.04, side.stop - piece.width / 2 - 0.04
        if low > high:
            continue
        along = rng.uniform(low, high)
        if corner or rng.random() < 0.4:
            along = low if rng.random() < 0.5 else high
        a, b = along - piece.width / 2, along + piece.width / 2
        if any(hole.start < b and hole.stop > a and hole.bottom < tall for hole in side.holes):
            continue
        x, y, _ = side.at(along, 0.015, 0.0)
        # The piece's y axis points into the room.
        yaw = {(0, 1.0): 0.0, (0, -1.0): math.pi, (1, 1.0): -math.pi / 2, (1, -1.0): math.pi / 2}[
            side.axis, side.inward
        ]
        one, other = side.at(a, 0.0, 0.0), side.at(b, piece.depth, 0.0)
        solids = [solid.moved(x, y, yaw) for solid in piece.solids]
        if furnisher.put(solids, _area(one, other)):
            return


def _put_in_middle(furnisher: Furnisher, inner: Area, piece: Piece, rng: Rng) -> None:
    x0, y0, x1, y1 = inner
    flat = all(_top(solid) < 0.05 for solid in piece.solids)
    for _ in range(10):
        quarter = int(rng.integers(4))
        w, d = (piece.width, piece.depth) if quarter % 2 == 0 else (piece.depth, piece.width)
        if w > x1 - x0 - 0.2 or d > y1 - y0 - 0.2:
            continue
        # Nearer to the middle than to the walls, where people put such things.
        x, y = (
            np.clip((a + b) / 2 + rng.normal(0.0, 0.15) * (b - a), a + s / 2 + 0.1, b - s / 2 - 0.1)
            for a, b, s in ((x0, x1, w), (y0, y1, d))
        )
        yaw = quarter * math.pi / 2
        # The piece's floor begins at its back: shift so that its middle is at (x, y).
        back_x = x + math.sin(yaw) * piece.depth / 2
        back_y = y - math.cos(yaw) * piece.depth / 2
        solids = [s.moved(back_x, back_y, yaw) for s in piece.solids]
        if furnisher.put(solids, (x - w / 2, y - d / 2, x + w / 2, y + d / 2), overlaps=flat):
            return


def _hang_leaf(furnisher: Furnisher, hole: Opening, rng: Rng) -> None:
    """A door's leaf, open into one of its rooms, beside the hole."""
    rooms = list(hole.rooms)
    rng.shuffle(rooms)
    for index in rooms:
        side = next(
            side
            for number in range(4)
            if hole in (side := Side(furnisher.plan, index, number)).holes
        )
        wide, thick = hole.stop - hole.start - 0.02, 0.04
        at_start = rng.random() < 0.5
        hinge = hole.start - 0.02 if at_start else hole.stop + 0.02
        away = math.radians(rng.uniform(92.0, 112.0))  # from closed
        along = -math.cos(away) if not at_start else math.cos(away)
        out = math.sin(away)
        mid = side.at(hinge + along * wide / 2, 0.03 + out * wide / 2, 1.005)
        direction = side.vector(along, out, 0.0)
        yaw = math.atan2(direction[1], direction[0])
        leaf = Box(mid, (wide, thick, 1.98), Surface("door", hole.rooms[0]), "door", yaw)
        knob = side.at(hinge + along * (wide - 0.08), 0.03 + out * (wide - 0.08), 1.02)
        handle = Box(knob, (0.1, 0.14, 0.03), Surface("metal", 1), "door", yaw)
        ends = [side.at(hinge, 0.03, 0.0), side.at(hinge + along * wide, 0.03 + out * wide, 0.0)]
        area = _area(*ends)
        grown = (area[0] - 0.03, area[1] - 0.03, area[2] + 0.03, area[3] + 0.03)
        own = _before(hole)
        others = [taken for taken in furnisher.taken if taken != own]
        if any(_overlap(grown, other) for other in others):
            continue
        if furnisher.put([leaf, handle], grown, overlaps=True):
            furnisher.taken.append(grown)
            return


def _put_on_wall(furnisher: Furnisher, side: Side, rng: Rng) -> None:
    """Radiators below windows, pictures where nothing else is."""
    for hole in side.holes:
        wide = (hole.stop - hole.start) * 0.8
        if hole.kind != "window" or rng.random() > 0.7:
            continue
        middle = (hole.start + hole.stop) / 2
        bar = side.bar(middle - wide / 2, middle + wide / 2, 0.12, 0.62, 0.03, 0.11,
                       Surface("ceramic", 0), "radiator")  # fmt: skip
        area = _area(side.at(hole.start, 0.0, 0.0), side.at(hole.stop, 0.12, 0.0))
        furnisher.put([bar], area)
    if rng.random() > 0.75 or side.stop - side.start < 1.6:
        return
    wide, high = rng.uniform(0.4, 0.95), rng.uniform(0.4, 0.75)
    along = rng.uniform(side.start + wide / 2 + 0.2, side.stop - wide / 2 - 0.2)
    a, b = along - wide / 2, along + wide / 2
    if any(hole.start - 0.15 < b and hole.stop + 0.15 > a for hole in side.holes):
        return
    one, other = side.at(a, 0.0, 0.0), side.at(b, 0.3, 0.0)
    area = _area(one, other)
    behind = [s for s in furnisher.solids if _top(s) > 1.3 and _overlap(area, _bounds(s))]
    if behind:
        return
    z = 1.3 + rng.uniform(0.0, 0.15)
    slot = int(rng.integers(9))
    picture = side.bar(a, b, z, z + high, 0.0, 0.02, Surface("picture", slot), "picture")
    frame = [
        side.bar(a - 0.03, b + 0.03, z0, z0 + 0.03, 0.0, 0.03, Surface("wood", slot), "picture")
        for z0 in (z - 0.03, z + high)
    ] + [
        side.bar(a0, a0 + 0.03, z, z + high, 0.0, 0.03, Surface("wood", slot), "picture")
        for a0 in (a - 0.03, b)
    ]
    furnisher.put([picture, *frame], area, overlaps=True)


def _top(solid: Solid) -> float:
    return solid.top if isinstance(solid, Cylinder) else solid.center[2] + solid.size[2] / 2


def _bounds(solid: Solid) -> Area:
    """Of the solid from above, generously."""
    reach = (
        solid.radius
        if isinstance(solid, Cylinder)
        else math.hypot(solid.size[0], solid.size[1]) / 2
    )
    x, y = solid.center[0], solid.center[1]
    return x - reach, y - reach, x + reach, y + reach


def _area(one: Sequence[float], other: Sequence[float]) -> Area:
    return (
        min(one[0], other[0]), min(one[1], other[1]), max(one[0], other[0]), max(one[1], other[1])
    )  # fmt: skip


def _overlap(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _middle(hole: Opening) -> tuple[float, float]:
    along = (hole.start + hole.stop) / 2
    return (along, hole.line) if hole.axis == 0 else (hole.line, along)


def _before(hole: Opening) -> Area:
    """The floor on both sides of a door that stays clear."""
    reach = 0.75
    if hole.axis == 0:
        return hole.start, hole.line - reach, hole.stop, hole.line + reach
    return hole.line - reach, hole.start, hole.line + reach, hole.stop
