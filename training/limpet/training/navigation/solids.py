"""What a scene is made of: boxes, cylinders and plain rectangles, each with what it is made of.

World frame: x, y in the plane of the floor, z up, metres. A solid's `label` is its segmentation id
(an index into `LABELS`), its `surface` says which of an appearance's materials it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Vector = tuple[float, float, float]

Label = Literal[
    "floor", "wall", "ceiling", "trim", "door", "window", "rug", "table", "chair", "sofa", "bed",
    "cabinet", "shelf", "counter", "plant", "lamp", "carton", "screen", "sanitary", "picture",
    "radiator",
]  # fmt: skip
LABELS: tuple[Label, ...] = get_args(Label)
"""Segmentation classes; the id in an image is the place in this tuple."""

Role = Literal[
    "floor", "wall", "ceiling", "trim", "door", "wood", "fabric", "metal", "ceramic", "foliage",
    "paper", "picture", "screen", "sky",
]  # fmt: skip
ROLES: tuple[Role, ...] = get_args(Role)
"""Kinds of material; an appearance has several of each."""

ROBOT_HEIGHT_M = 0.4
"""What lies wholly above this is no obstacle: the robot drives under tables."""
STEP_M = 0.05
"""What lies wholly below this is none either: the robot drives over rugs and the feet of lamps."""
CORNER_POINTS = 5
"""Points of a rounded corner in an obstacle's outline."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Which material of an appearance is shown: the `slot`-th of a role, modulo their number."""

    role: Role
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A plane rectangle from `origin` along `u` and `v` (not unit: their lengths are its sides).

    Attributes:
        origin: A corner, m.
        u: First side, m.
        v: Second side, m.
        normal: Unit vector towards the visible side.
        surface: Material.
        label: What it is part of.
        texture_at: Texture coordinates of `origin`, m, so that patterns go on across pieces.
        round: The inscribed disc rather than the whole rectangle.
    """

    origin: Vector
    u: Vector
    v: Vector
    normal: Vector
    surface: Surface
    label: Label
    texture_at: tuple[float, float] = (0.0, 0.0)
    round: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """A box with horizontal bottom, turned by `yaw` about the vertical through its centre."""

    center: Vector
    size: Vector
    surface: Surface
    label: Label
    yaw: float = 0.0

    def rectangles(self) -> Iterator[Rectangle]:
        """Its faces; a bottom on the floor is left out, since nothing sees it."""
        (x, y, z), (a, b, c) = self.center, self.size
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        along, across, up = (cos, sin, 0.0), (-sin, cos, 0.0), (0.0, 0.0, 1.0)
        faces: list[tuple[Vector, float, Vector, float, Vector, float]] = [
            (along, a, across, b, up, c),
            (along, -a, across, b, up, c),
            (across, b, along, a, up, c),
            (across, -b, along, a, up, c),
            (up, c, along, a, across, b),
        ]
        if z - c / 2 > 0.01:
            faces.append((up, -c, along, a, across, b))
        for n, depth, u, width, v, height in faces:
            origin = tuple(
                p + n_i * depth / 2 - u_i * width / 2 - v_i * height / 2
                for p, n_i, u_i, v_i in zip((x, y, z), n, u, v, strict=True)
            )
            sign = math.copysign(1.0, depth)
            yield Rectangle(
                origin=(origin[0], origin[1], origin[2]),
                u=(u[0] * width, u[1] * width, u[2] * width),
                v=(v[0] * height, v[1] * height, v[2] * height),
                normal=(n[0] * sign, n[1] * sign, n[2] * sign),
                surface=self.surface,
                label=self.label,
            )

    def footprint(self) -> tuple[float, ...] | None:
        """Row of a `Footprints` table, None where a robot passes below or above."""
        x, y, z = self.center
        if z - self.size[2] / 2 >= ROBOT_HEIGHT_M or z + self.size[2] / 2 <= STEP_M:
            return None
        return (x, y, self.size[0] / 2, self.size[1] / 2, self.yaw, 0.0)

    def moved(self, x: float, y: float, yaw: float) -> Box:
        """Turned about the vertical through the origin by `yaw` (rad), then shifted (m)."""
        cos, sin = math.cos(yaw), math.sin(yaw)
        cx, cy, cz = self.center
        center = (x + cos * cx - sin * cy, y + sin * cx + cos * cy, cz)
        return replace(self, center=center, yaw=self.yaw + yaw)


@dataclass(frozen=True, slots=True)
class Cylinder:
    """An upright cylinder, seen as a prism of `sides` sides."""

    center: tuple[float, float]
    bottom: float
    top: float
    radius: float
    surface: Surface
    label: Label
    sides: int = 10

    def rectangles(self) -> Iterator[Rectangle]:
        """Its sides and lids."""
        x, y = self.center
        step = 2 * math.pi / self.sides
        width = 2 * self.radius * math.tan(step / 2)
        for i in range(self.sides):
            cos, sin = math.cos(i * step), math.sin(i * step)
            yield Rectangle(
                origin=(
                    x + cos * self.radius + sin * width / 2,
                    y + sin * self.radius - cos * width / 2,
                    self.bottom,
                ),
                u=(-sin * width, cos * width, 0.0),
                v=(0.0, 0.0, self.top - self.bottom),
                normal=(cos, sin, 0.0),
                surface=self.surface,
                label=self.label,
                texture_at=(i * width, 0.0),
            )
        outer = self.radius / math.cos(step / 2)
        lids = [(self.top, 1.0)] + ([(self.bottom, -1.0)] if self.bottom > 0.01 else [])
        for z, up in lids:
            yield Rectangle(
                origin=(x - outer, y - outer, z),
                u=(2 * outer, 0.0, 0.0),
                v=(0.0, 2 * outer, 0.0),
                normal=(0.0, 0.0, up),
                surface=self.surface,
                label=self.label,
                round=True,
            )

    def footprint(self) -> tuple[float, ...] | None:
        """Row of a `Footprints` table, None where a robot passes below or above."""
        if self.bottom >= ROBOT_HEIGHT_M or self.top <= STEP_M:
            return None
        return (*self.center, 0.0, 0.0, 0.0, self.radius)

    def moved(self, x: float, y: float, yaw: float) -> Cylinder:
        """Turned about the vertical through the origin by `yaw` (rad), then shifted (m)."""
        cos, sin = math.cos(yaw), math.sin(yaw)
        cx, cy = self.center
        return replace(self, center=(x + cos * cx - sin * cy, y + sin * cx + cos * cy))


Solid = Box | Cylinder


@dataclass(frozen=True)
class Footprints:
    """Obstacles seen from above: rectangles turned by a yaw and rounded by a radius.

    Attributes:
        table: Rows of x, y, half length, half width, yaw, radius; a cylinder has no length. (k, 6)
    """

    table: Float64

    @staticmethod
    def of(solids: Iterable[Solid]) -> Footprints:
        """Those of solids that a robot passes neither below nor above."""
        rows = [row for solid in solids if (row := solid.footprint()) is not None]
        return Footprints(np.array(rows, float).reshape(-1, 6))

    def clearance(self, points_N2: Float64) -> Float64:
        """Distance of points to the nearest obstacle, m, 0 inside; infinite without any. (N,)"""
        if not len(self.table):
            return np.full(len(points_N2), np.inf)
        x, y, a, b, yaw, radius = self.table.T
        dx = points_N2[:, 0, None] - x
        dy = points_N2[:, 1, None] - y
        cos, sin = np.cos(yaw), np.sin(yaw)
        along = np.maximum(np.abs(cos * dx + sin * dy) - a, 0.0)
        across = np.maximum(np.abs(cos * dy - sin * dx) - b, 0.0)
        distance = np.sqrt(along * along + across * across) - radius  # (N, k)
        return np.asarray(np.maximum(distance.min(axis=1), 0.0))

    def outlines(self) -> Float64:
        """Corners of each obstacle, from above, m, rounded ones as several points. (k, p, 2)"""
        x, y, a, b, yaw, radius = self.table.T[:, :, None]
        turn = np.linspace(0.0, 2 * math.pi, 4 * CORNER_POINTS, endpoint=False)
        sides = np.sign(np.cos(turn + 1e-9)), np.sign(np.sin(turn + 1e-9))
        along = sides[0] * a + radius * np.cos(turn)
        across = sides[1] * b + radius * np.sin(turn)
        cos, sin = np.cos(yaw), np.sin(yaw)
        outline = [x + cos * along - sin * across, y + sin * along + cos * across]
        return np.stack(outline, axis=-1)
