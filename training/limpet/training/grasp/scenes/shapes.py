"""Solids that objects are composed of: each is a signed distance and, for physics, convex pieces.

A union of solids becomes one closed mesh through its distance field (`meshes`), while MuJoCo gets
the convex pieces, so that a cup is hollow to both. Lengths are metres.

Dimension legend: n points, m vertices, s segments of an outline, k pieces.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull

Float64 = NDArray[np.float64]
Point = tuple[float, float, float]
Profile = Sequence[tuple[float, float]]
"""Radius and height of the points of an outline, m."""

SIDES = 32
"""Sides of a round piece's polygon: at 4 cm radius it is 0.2 mm off the circle."""
SECTORS = 16
"""Convex pieces around a ring."""
POINTS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Piece:
    """A convex piece for physics: the hull of its vertices, grown by a radius.

    Attributes:
        vertices: Corners, m; two of them with a radius are a capsule. (m, 3)
        radius_m: 0 for a polyhedron.
    """

    vertices: Float64
    radius_m: float = 0.0


class Solid(Protocol):
    """A body in the object's frame."""

    def distance(self, points: Float64) -> Float64:
        """Signed distance, m, below 0 inside; exact near faces, a bound elsewhere. (n, 3) → (n,)"""

    def pieces(self) -> list[Piece]:
        """Convex pieces whose union it is."""

    def bounds(self) -> tuple[Float64, Float64]:
        """Lowest and highest coordinates, m. (3,), (3,)"""

    def moved(self, rotation: Float64, shift: Float64) -> Solid:
        """The same body, turned about the origin and then shifted. (3, 3), (3,)"""


@dataclass(frozen=True)
class Polyhedron:
    """The convex hull of some vertices. (m, 3)"""

    vertices: Float64

    def distance(self, points: Float64) -> Float64:
        """Largest distance to a face's plane."""
        planes = np.unique(ConvexHull(self.vertices).equations.round(9), axis=0)  # (k, 4)
        out = np.empty(len(points))
        for start in range(0, len(points), POINTS_AT_ONCE):
            part = slice(start, start + POINTS_AT_ONCE)
            out[part] = (points[part] @ planes[:, :3].T + planes[:, 3]).max(axis=1)
        return out

    def pieces(self) -> list[Piece]:
        """Itself."""
        return [Piece(self.vertices)]

    def bounds(self) -> tuple[Float64, Float64]:
        """Of the vertices."""
        return self.vertices.min(axis=0), self.vertices.max(axis=0)

    def moved(self, rotation: Float64, shift: Float64) -> Polyhedron:
        """Turned and shifted."""
        return Polyhedron(self.vertices @ rotation.T + shift)


@dataclass(frozen=True)
class Capsule:
    """A rod with round ends between two points."""

    start: Float64
    end: Float64
    radius_m: float

    def distance(self, points: Float64) -> Float64:
        """Exact."""
        along = self.end - self.start
        share = np.clip((points - self.start) @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
        nearest = self.start + share[:, None] * along
        return np.asarray(np.linalg.norm(points - nearest, axis=1) - self.radius_m)

    def pieces(self) -> list[Piece]:
        """Itself."""
        return [Piece(np.stack([self.start, self.end]), self.radius_m)]

    def bounds(self) -> tuple[Float64, Float64]:
        """Exact."""
        ends = np.stack([self.start, self.end])
        return ends.min(axis=0) - self.radius_m, ends.max(axis=0) + self.radius_m

    def moved(self, rotation: Float64, shift: Float64) -> Capsule:
        """Turned and shifted."""
        return Capsule(rotation @ self.start + shift, rotation @ self.end + shift, self.radius_m)


@dataclass(frozen=True)
class Revolved:
    """An outline turned about its own z axis.

    Attributes:
        outline: Radius and height of a closed polygon's corners, m. (s, 2)
        parts: Convex polygons whose union the outline is; one that touches the axis becomes one
            piece, another a ring of `SECTORS`.
        rotation, shift: Pose in the object's frame. (3, 3), (3,)
    """

    outline: Float64
    parts: tuple[Float64, ...]
    rotation: Float64
    shift: Float64

    def distance(self, points: Float64) -> Float64:
        """Exact: that of the outline in the half-plane of the point."""
        local = (points - self.shift) @ self.rotation
        flat = np.stack([np.hypot(local[:, 0], local[:, 1]), local[:, 2]], axis=1)
        out = np.empty(len(points))
        for start in range(0, len(points), POINTS_AT_ONCE):
            part = slice(start, start + POINTS_AT_ONCE)
            out[part] = _polygon_distance(flat[part], self.outline)
        return out

    def pieces(self) -> list[Piece]:
        """Stacked frusta, and sectors of what is hollow."""
        out = []
        for part in self.parts:
            if part[:, 0].min() < 1e-9:
                around = np.asarray(np.arange(SIDES) * (2 * math.pi / SIDES), np.float64)
                out.append(_turned(part, around))
                continue
            for sector in range(SECTORS):
                first = 2 * math.pi * sector / SECTORS
                angles = np.array([first, first + 2 * math.pi / SECTORS])
                out.append(_turned(part, angles))
        return [Piece(piece @ self.rotation.T + self.shift) for piece in out]

    def bounds(self) -> tuple[Float64, Float64]:
        """Of the circles that the corners run along."""
        reach = np.sqrt(np.maximum(1 - self.rotation[:, 2] ** 2, 0.0))  # per world axis
        centres = self.outline[:, 1:] * self.rotation[:, 2] + self.shift
        radii = self.outline[:, :1] * reach
        return (centres - radii).min(axis=0), (centres + radii).max(axis=0)

    def moved(self, rotation: Float64, shift: Float64) -> Revolved:
        """Turned and shifted."""
        return replace(self, rotation=rotation @ self.rotation, shift=rotation @ self.shift + shift)


def _turned(part: Float64, angles: Float64) -> Float64:
    """A polygon at several angles about the axis: vertices. (m, 3)"""
    cos, sin = np.cos(angles), np.sin(angles)
    ring = np.stack(
        [np.outer(cos, part[:, 0]), np.outer(sin, part[:, 0]), np.tile(part[:, 1], (len(cos), 1))],
        axis=-1,
    ).reshape(-1, 3)
    return np.asarray(np.unique(ring.round(7), axis=0))


def _polygon_distance(points: Float64, corners: Float64) -> Float64:
    """Signed distance to a simple polygon, below 0 inside. (n, 2), (s, 2) → (n,)

    An edge on the axis is no surface: it is what the outline is turned about.
    """
    nearest = np.full(len(points), np.inf)
    inside = np.zeros(len(points), bool)
    for first, second in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge = second - first
        offset = points - first
        if max(first[0], second[0]) > 1e-9:
            share = np.clip(offset @ edge / max(float(edge @ edge), 1e-18), 0.0, 1.0)
            gap = offset - share[:, None] * edge
            nearest = np.minimum(nearest, np.einsum("nk,nk->n", gap, gap))
        if first[1] != second[1]:
            crosses = (first[1] > points[:, 1]) != (second[1] > points[:, 1])
            at = first[0] + offset[:, 1] * (edge[0] / edge[1])
            inside ^= crosses & (points[:, 0] < at)
    return np.asarray(np.sqrt(nearest) * np.where(inside, -1.0, 1.0))


IDENTITY: Float64 = np.eye(3)


def turn(axis: str, degrees: float) -> Float64:
    """Rotation about x, y or z, counter-clockwise. (3, 3)"""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    out = np.eye(3)
    out[i, i], out[i, j], out[j, i], out[j, j] = cos, -sin, sin, cos
    return out


def box(center: Point, size: Point, rotation: Float64 = IDENTITY) -> Polyhedron:
    """A box about its centre."""
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T / 2
    return Polyhedron((corners * size) @ rotation.T + center)


def prism(outline: ArrayLike, low: float, high: float) -> Polyhedron:
    """A convex outline in the xy plane, drawn from one height to another. (m, 2)"""
    flat = np.asarray(outline, np.float64)
    levels = [np.column_stack([flat, np.full(len(flat), z)]) for z in (low, high)]
    return Polyhedron(np.concatenate(levels))


def polygon(sides: int, radius: float, center: tuple[float, float] = (0.0, 0.0)) -> Float64:
    """A regular polygon by its corners' radius. (sides, 2)"""
    angles = (np.arange(sides) + 0.5) * (2 * math.pi / sides)
    return np.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius + center)


def _onto(direction: Float64) -> Float64:
    """A rotation that takes z onto a direction. (3, 3)"""
    z = direction / np.linalg.norm(direction)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def solid(profile: Profile, base: Point = (0.0, 0.0, 0.0), along: Point = (0, 0, 1)) -> Revolved:
    """A full body of revolution: radii by rising height, closed at both ends.

    Args:
        profile: Radius and height, m.
        base: Where its axis' height 0 lies.
        along: Direction of its axis.
    """
    line = np.asarray(profile, np.float64)
    foot, head = (0.0, line[0, 1]), (0.0, line[-1, 1])
    outline = np.concatenate([[foot], line, [head]])
    parts = tuple(
        np.array([(0.0, low[1]), low, high, (0.0, high[1])])
        for low, high in itertools.pairwise(line)
    )
    return Revolved(outline, parts, _onto(np.asarray(along, np.float64)), np.asarray(base, float))


def rod(start: Point, end: Point, radius: float, end_radius: float | None = None) -> Revolved:
    """A cylinder or, with another radius at its end, a cone's frustum."""
    axis = np.subtract(end, start).astype(np.float64)
    length = float(np.linalg.norm(axis))
    last = radius if end_radius is None else end_radius
    return solid([(radius, 0.0), (last, length)], start, (axis[0], axis[1], axis[2]))


def vessel(profile: Profile, wall: float, floor: float, base: Point = (0, 0, 0)) -> Revolved:
    """A hollow body of revolution, open at the top.

    Args:
        profile: Outer radius and rising height, m; it begins at the bottom.
        wall: Thickness of the wall, measured level.
        floor: Thickness of the floor; it must be below the profile's second height.
        base: Where its axis' height 0 lies.
    """
    outer = np.asarray(profile, np.float64)
    bottom = outer[0, 1] + floor
    at_floor = (float(np.interp(bottom, outer[:, 1], outer[:, 0])), bottom)
    rising = np.concatenate([[at_floor], outer[1:]])
    inner = rising - [wall, 0.0]
    outline = np.concatenate([[(0.0, outer[0, 1]), outer[0]], rising, inner[::-1], [(0.0, bottom)]])
    parts = [np.array([(0.0, outer[0, 1]), outer[0], at_floor, (0.0, bottom)])]
    for k in range(len(rising) - 1):
        parts.append(np.array([rising[k], rising[k + 1], inner[k + 1], inner[k]]))
    return Revolved(outline, tuple(parts), IDENTITY, np.asarray(base, np.float64))


def ring(profile: Profile, base: Point = (0, 0, 0), along: Point = (0, 0, 1)) -> Revolved:
    """A convex outline that does not touch the axis, turned about it."""
    outline = np.asarray(profile, np.float64)
    return Revolved(outline, (outline,), _onto(np.asarray(along, float)), np.asarray(base, float))


def tube(points: Sequence[Point], radius: float) -> list[Solid]:
    """A round rod along a line of points."""
    line = np.asarray(points, np.float64)
    return [Capsule(a, b, radius) for a, b in itertools.pairwise(line)]


def arc(
    center: Point, radius: float, first_deg: float, last_deg: float, steps: int, plane: str = "xz"
) -> list[Point]:
    """Points of a circle's arc in one of the coordinate planes."""
    angles = np.radians(np.linspace(first_deg, last_deg, steps))
    out = np.tile(np.asarray(center, np.float64), (steps, 1))
    for axis, values in zip(plane, (np.cos(angles), np.sin(angles)), strict=True):
        out[:, "xyz".index(axis)] += radius * values
    return [(float(x), float(y), float(z)) for x, y, z in out]
