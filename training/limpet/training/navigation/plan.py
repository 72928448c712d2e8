"""Floor plans: rooms that tile a rectangle, doors that connect all of them, windows outside.

A plan with a corridor has it across the whole building and rooms on both sides, each with a door
to it; one without is split recursively and connected by a random spanning tree of doors. Some more
doors make loops. Walls stand on the lines between rooms and are `WALL_M` thick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

WALL_M = 0.14
DOOR_HEIGHT_M = 2.05
LEAST_SIDE_M = 2.5

RoomKind = Literal[
    "corridor", "living room", "bedroom", "kitchen", "office", "meeting room", "bathroom", "store"
]
OpeningKind = Literal["door", "passage", "window"]


@dataclass(frozen=True, slots=True)
class Room:
    """A room between wall lines (the middles of its walls), m."""

    kind: RoomKind
    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def size(self) -> tuple[float, float]:
        """Extent along x and y between wall lines."""
        return self.x1 - self.x0, self.y1 - self.y0

    @property
    def inner(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 between the faces of its walls."""
        half = WALL_M / 2
        return self.x0 + half, self.y0 + half, self.x1 - half, self.y1 - half


@dataclass(frozen=True, slots=True)
class Opening:
    """A hole in a wall.

    Attributes:
        kind: A door (with a frame), a wide passage, or a window.
        axis: 0 where the wall runs along x, 1 along y.
        line: The wall's place on the other axis, m.
        start, stop: Where the hole begins and ends along the wall, m.
        bottom, top: Its height above the floor, m.
        rooms: The rooms on both sides, by index; the second is -1 outdoors.
    """

    kind: OpeningKind
    axis: int
    line: float
    start: float
    stop: float
    bottom: float
    top: float
    rooms: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """Rooms, openings and the height of the ceilings (m)."""

    rooms: tuple[Room, ...]
    openings: tuple[Opening, ...]
    height: float

    @property
    def size(self) -> tuple[float, float]:
        """Extent of the building, m; it begins at (0, 0)."""
        return max(room.x1 for room in self.rooms), max(room.y1 for room in self.rooms)


def make_plan(rng: np.random.Generator) -> Plan:
    """Draws a plan."""
    width, depth = rng.uniform(8.5, 13.0), rng.uniform(7.5, 10.5)
    height = rng.uniform(2.4, 3.1)
    if rng.random() < 0.6:
        rooms = _with_corridor(rng, width, depth)
    else:
        rooms = [_room(rng, *cell) for cell in _split(rng, (0.0, 0.0, width, depth))]
    if rng.random() < 0.5:
        rooms = [Room(room.kind, room.y0, room.x0, room.y1, room.x1) for room in rooms]
    doors = _doors(rng, rooms, height)
    return Plan(tuple(rooms), (*doors, *_windows(rng, rooms, height)), height)


def _room(rng: np.random.Generator, x0: float, y0: float, x1: float, y1: float) -> Room:
    kinds: list[RoomKind] = ["living room", "bedroom", "kitchen", "office", "meeting room"]
    if (x1 - x0) * (y1 - y0) < 11.0:
        kinds = ["bathroom", "store", "office", "kitchen", "bedroom"]
    return Room(kinds[rng.integers(len(kinds))], x0, y0, x1, y1)


def _with_corridor(rng: np.random.Generator, width: float, depth: float) -> list[Room]:
    corridor = rng.uniform(1.4, 2.0)
    low = rng.uniform(0.42, 0.58) * (depth - corridor)
    rooms = [Room("corridor", 0.0, low, width, low + corridor)]
    for y0, y1 in ((0.0, low), (low + corridor, depth)):
        number = int(rng.integers(2, max(3, int(width / 3.0)) + 1))
        shares = rng.uniform(1.0, 1.5, number)
        edges = np.concatenate([[0.0], np.cumsum(shares) / shares.sum()]) * width
        rooms += [_room(rng, edges[i], y0, edges[i + 1], y1) for i in range(number)]
    return rooms


Cell = tuple[float, float, float, float]


def _split(rng: np.random.Generator, cell: Cell) -> list[Cell]:
    x0, y0, x1, y1 = cell
    width, depth = x1 - x0, y1 - y0
    longer = max(width, depth)
    if longer < 2 * LEAST_SIDE_M or width * depth < rng.uniform(12.0, 24.0):
        return [cell]
    share = rng.uniform(max(0.35, LEAST_SIDE_M / longer), min(0.65, 1 - LEAST_SIDE_M / longer))
    if width >= depth:
        x = x0 + share * width
        return _split(rng, (x0, y0, x, y1)) + _split(rng, (x, y0, x1, y1))
    y = y0 + share * depth
    return _split(rng, (x0, y0, x1, y)) + _split(rng, (x0, y, x1, y1))


def _doors(rng: np.random.Generator, rooms: list[Room], height: float) -> list[Opening]:
    """A spanning tree of openings, through the corridor where there is one, and a few more."""
    shared = [
        (a, b, *wall)
        for a in range(len(rooms))
        for b in range(a + 1, len(rooms))
        if (wall := _shared_wall(rooms[a], rooms[b])) is not None
    ]
    order = rng.permutation(len(shared))
    to_corridor = [i for i in order if rooms[shared[i][0]].kind == "corridor"]
    group = list(range(len(rooms)))
    doors = []
    for i in [*to_corridor, *(i for i in order if i not in set(to_corridor))]:
        a, b, axis, line, start, stop = shared[i]
        if group[a] == group[b] and rng.random() > 0.3:
            continue
        group = [group[a] if g == group[b] else g for g in group]
        doors.append(_door(rng, (a, b), axis, line, start, stop, height))
    assert len(set(group)) == 1, "rooms that tile a rectangle are connected"
    return doors


def _shared_wall(a: Room, b: Room) -> tuple[int, float, float, float] | None:
    """Axis, line, start and stop of the wall between two rooms, None where no door fits."""
    for axis, (a0, a1, b0, b1), (start, stop) in (
        (0, (a.y0, a.y1, b.y0, b.y1), (max(a.x0, b.x0), min(a.x1, b.x1))),
        (1, (a.x0, a.x1, b.x0, b.x1), (max(a.y0, b.y0), min(a.y1, b.y1))),
    ):
        if stop - start < 1.8:
            continue
        for line, other in ((a1, b0), (a0, b1)):
            if abs(line - other) < 1e-9:
                return axis, line, start, stop
    return None


def _door(
    rng: np.random.Generator,
    rooms: tuple[int, int],
    axis: int,
    line: float,
    start: float,
    stop: float,
    height: float,
) -> Opening:
    passage = stop - start > 2.6 and rng.random() < 0.25
    width = rng.uniform(1.3, 1.9) if passage else rng.uniform(0.85, 1.0)
    top = rng.uniform(2.15, height - 0.2) if passage else DOOR_HEIGHT_M
    margin = 0.25 + WALL_M
    width = min(width, stop - start - 2 * margin)  # the widest passages, in the shortest walls
    first = start + margin
    at = rng.uniform(first, max(first, stop - margin - width))  # rounding may leave less than none
    return Opening("passage" if passage else "door", axis, line, at, at + width, 0.0, top, rooms)


def _windows(rng: np.random.Generator, rooms: list[Room], height: float) -> list[Opening]:
    width, depth = max(room.x1 for room in rooms), max(room.y1 for room in rooms)
    windows = []
    for index, room in enumerate(rooms):
        for axis, line, start, stop in (
            (0, room.y0, room.x0, room.x1),
            (0, room.y1, room.x0, room.x1),
            (1, room.x0, room.y0, room.y1),
            (1, room.x1, room.y0, room.y1),
        ):
            outdoors = line in (0.0, depth if axis == 0 else width)
            if not outdoors or rng.random() > 0.8:
                continue
            free = stop - start - 0.8
            number = 2 if free > 3.2 and rng.random() < 0.6 else 1
            for i in range(number):
                share = free / number
                wide = min(rng.uniform(0.8, 1.8), share - 0.1)
                if wide < 0.5:
                    continue
                at = start + 0.4 + share * i + rng.uniform(0.05, share - wide - 0.05 + 1e-9)
                sill, top = rng.uniform(0.75, 1.0), min(rng.uniform(1.95, 2.25), height - 0.2)
                windows.append(Opening("window", axis, line, at, at + wide, sill, top, (index, -1)))
    return windows
