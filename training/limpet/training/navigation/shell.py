"""The building itself, from its plan: floors, walls with holes, ceilings, frames, windows.

Each room has its own wall faces, `WALL_M` / 2 inside the wall lines, so that both sides of a wall
can look different; the jambs of openings join them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from limpet.training.navigation.plan import WALL_M, Opening, Plan, Room
from limpet.training.navigation.solids import (
    Box,
    Float64,
    Footprints,
    Label,
    Rectangle,
    Surface,
    Vector,
)

HALF = WALL_M / 2
SKIRTING = (0.012, 0.09)
"""How far a skirting board stands out and how high it is, m."""


class Side:
    """One of a room's four walls, seen from inside: along it, and inward, out of its face.

    Attributes:
        start, stop: Ends of its face along the wall, m.
        holes: Openings in it, in order.
    """

    def __init__(self, plan: Plan, index: int, number: int) -> None:
        room = plan.rooms[index]
        x0, y0, x1, y1 = room.inner
        self.axis = number % 2
        low = number < 2
        self.inward = 1.0 if low else -1.0
        self.line = (room.y0, room.x0, room.y1, room.x1)[number]
        self.face = self.line + self.inward * HALF
        self.start, self.stop = ((x0, x1), (y0, y1))[self.axis]
        self.holes: list[Opening] = sorted(
            (
                hole
                for hole in plan.openings
                if index in hole.rooms and hole.axis == self.axis and hole.line == self.line
            ),
            key=lambda hole: hole.start,
        )

    def at(self, along: float, out: float, z: float) -> Vector:
        """World point, m: along the wall, out of its face into the room, height."""
        across = self.face + self.inward * out
        return (along, across, z) if self.axis == 0 else (across, along, z)

    def vector(self, along: float, inward: float, z: float) -> Vector:
        """World direction."""
        across = self.inward * inward
        return (along, across, z) if self.axis == 0 else (across, along, z)

    def strip(
        self, a: float, b: float, z0: float, z1: float, surface: Surface, label: Label
    ) -> Rectangle:
        """A piece of the face: from `a` to `b` along the wall, `z0` to `z1` above the floor, m."""
        return Rectangle(
            origin=self.at(a, 0.0, z0),
            u=self.vector(b - a, 0.0, 0.0),
            v=(0.0, 0.0, z1 - z0),
            normal=self.vector(0.0, 1.0, 0.0),
            surface=surface,
            label=label,
            texture_at=(a, z0),
        )

    def bar(
        self, a: float, b: float, z0: float, z1: float, out0: float, out1: float,
        surface: Surface, label: Label,
    ) -> Box:  # fmt: skip
        """A box before the face: as `strip`, and from `out0` to `out1` out into the room, m."""
        size = (b - a, out1 - out0) if self.axis == 0 else (out1 - out0, b - a)
        return Box(
            center=self.at((a + b) / 2, (out0 + out1) / 2, (z0 + z1) / 2),
            size=(*size, z1 - z0),
            surface=surface,
            label=label,
        )

    def solid_spans(self, low: float, high: float) -> Iterator[tuple[float, float]]:
        """Stretches without a hole anywhere between two heights."""
        at = self.start
        for hole in self.holes:
            if hole.bottom < high and hole.top > low:
                yield at, hole.start
                at = hole.stop
        yield at, self.stop


def build_shell(plan: Plan) -> tuple[list[Rectangle], list[Rectangle]]:
    """Everything that is the building's.

    Returns:
        What is opaque, and the window panes, through which daylight comes.
    """
    opaque: list[Rectangle] = []
    panes: list[Rectangle] = []
    for index, room in enumerate(plan.rooms):
        opaque += _floor_and_ceiling(room, index, plan.height)
        for number in range(4):
            opaque += _wall(Side(plan, index, number), index, plan.height)
    for hole in plan.openings:
        opaque += _jambs(hole)
        if hole.kind == "window":
            panes.append(_pane(hole))
    return opaque, panes


def _floor_and_ceiling(room: Room, index: int, height: float) -> Iterator[Rectangle]:
    x0, y0, x1, y1 = room.inner
    u, v = (x1 - x0, 0.0, 0.0), (0.0, y1 - y0, 0.0)
    floor = 0 if room.kind in ("corridor", "living room", "meeting room") else 1
    floor = 2 if room.kind in ("kitchen", "bathroom", "store") else floor
    at = (x0, y0)
    yield Rectangle((*at, 0.0), u, v, (0.0, 0.0, 1.0), Surface("floor", floor), "floor", at)
    yield Rectangle((*at, height), u, v, (0.0, 0.0, -1.0), Surface("ceiling", index), "ceiling", at)


def _wall(side: Side, index: int, height: float) -> Iterator[Rectangle]:
    paint, trim = Surface("wall", index), Surface("trim")
    at = side.start
    for hole in [*side.holes, None]:
        stop = side.stop if hole is None else hole.start
        yield side.strip(at, stop, 0.0, height, paint, "wall")
        if hole is not None:
            if hole.bottom > 0.0:
                yield side.strip(hole.start, hole.stop, 0.0, hole.bottom, paint, "wall")
            yield side.strip(hole.start, hole.stop, hole.top, height, paint, "wall")
            yield from _frame(side, hole)
            at = hole.stop
    out, high = SKIRTING
    for a, b in side.solid_spans(0.0, high):
        yield from side.bar(a, b, 0.0, high, 0.0, out, trim, "trim").rectangles()


def _frame(side: Side, hole: Opening) -> Iterator[Rectangle]:
    trim = Surface("trim")
    a, b, z0, z1 = hole.start, hole.stop, hole.bottom, hole.top
    bars = []
    if hole.kind == "door":
        w, out = 0.07, 0.02
        bars = [(a - w, a, 0.0, z1 + w, 0.0, out), (b, b + w, 0.0, z1 + w, 0.0, out),
                (a, b, z1, z1 + w, 0.0, out)]  # fmt: skip
    elif hole.kind == "window":
        w, inner, outer = 0.05, -HALF + 0.035, -HALF
        middle = (a + b) / 2
        bars = [(a, a + w, z0, z1, outer, inner), (b - w, b, z0, z1, outer, inner),
                (a, b, z0, z0 + w, outer, inner), (a, b, z1 - w, z1, outer, inner),
                (a - 0.06, b + 0.06, z0 - 0.035, z0, 0.0, 0.12)]  # fmt: skip
        if b - a > 1.0:
            bars.append((middle - w / 2, middle + w / 2, z0, z1, outer, inner))
    for bar in bars:
        yield from side.bar(*bar, trim, "window" if hole.kind == "window" else "trim").rectangles()


def _jambs(hole: Opening) -> Iterator[Rectangle]:
    """The inside of a hole through a wall; of a window, from the inner face to the pane."""
    surface = Surface("trim") if hole.kind != "passage" else Surface("wall", hole.rooms[0])
    label: Label = "wall" if hole.kind == "passage" else "trim"
    deep = -HALF, HALF
    a, b, z0, z1 = hole.start, hole.stop, hole.bottom, hole.top

    def point(along: float, across: float, z: float) -> Vector:
        line = hole.line + across
        return (along, line, z) if hole.axis == 0 else (line, along, z)

    def direction(along: float, across: float) -> Vector:
        return (along, across, 0.0) if hole.axis == 0 else (across, along, 0.0)

    through = direction(0.0, deep[1] - deep[0])
    up = (0.0, 0.0, z1 - z0)
    yield Rectangle(point(a, deep[0], z0), through, up, direction(1.0, 0.0), surface, label)
    yield Rectangle(point(b, deep[0], z0), through, up, direction(-1.0, 0.0), surface, label)
    along = direction(b - a, 0.0)
    yield Rectangle(point(a, deep[0], z1), along, through, (0.0, 0.0, -1.0), surface, label)
    # The floor of a door goes on from room to room; a window has its sill there.
    below = Surface("floor", 1) if hole.bottom == 0.0 else surface
    yield Rectangle(
        point(a, deep[0], z0), along, through, (0.0, 0.0, 1.0), below,
        "floor" if hole.bottom == 0.0 else label,
    )  # fmt: skip


def _pane(hole: Opening) -> Rectangle:
    origin = (hole.start, hole.line) if hole.axis == 0 else (hole.line, hole.start)
    wide = hole.stop - hole.start
    # Outdoors is where the building is not: its walls begin at 0.
    inward = 1.0 if hole.line == 0.0 else -1.0
    return Rectangle(
        origin=(*origin, hole.bottom),
        u=(wide, 0.0, 0.0) if hole.axis == 0 else (0.0, wide, 0.0),
        v=(0.0, 0.0, hole.top - hole.bottom),
        normal=(0.0, inward, 0.0) if hole.axis == 0 else (inward, 0.0, 0.0),
        surface=Surface("sky", int(hole.line * 7) + hole.rooms[0]),
        label="window",
    )


def wall_footprints(plan: Plan) -> Footprints:
    """Walls as obstacles: half of each from either room, with holes where doors are."""
    rows: list[tuple[float, ...]] = []
    for index in range(len(plan.rooms)):
        for number in range(4):
            side = Side(plan, index, number)
            for a, b in side.solid_spans(0.0, 0.4):
                # Past the corners of the face, so that walls meet.
                a -= WALL_M if a == side.start else 0.0
                b += WALL_M if b == side.stop else 0.0
                middle, half = (a + b) / 2, (b - a) / 2
                across = side.line + side.inward * HALF / 2
                rows.append(
                    (middle, across, half, HALF / 2, 0.0, 0.0)
                    if side.axis == 0
                    else (across, middle, HALF / 2, half, 0.0, 0.0)
                )
    table: Float64 = np.array(rows)
    return Footprints(table)
