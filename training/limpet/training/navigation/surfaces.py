"""All rectangles of a layout as flat tables: triangles to hit, texels to paint, luxels to light.

Each rectangle (patch) is a chart of its own, row by row in one long table of texels; a pyramid of
`LEVELS` halvings follows the same order. Light is computed at fewer points, luxels, which lie on
the corners of a coarser grid of the patch.

Dimension legend: P patches, T triangles, X texels, K luxels, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from limpet.training.navigation.solids import LABELS, ROLES, Float64, Rectangle

TEXEL_M, CEILING_TEXEL_M = 0.02, 0.04
LUXEL_M = 0.1
LEVELS = 4
DISC_SIDES = 16

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Charts:
    """A grid of points on every patch, patch after patch, row by row.

    Attributes:
        columns, rows: Points along the patch's u and v. (P,)
        start: Where the patch's points begin in the flat table. (P + 1,)
    """

    columns: Int32
    rows: Int32
    start: Int32

    @staticmethod
    def of(columns: NDArray[np.integer], rows: NDArray[np.integer]) -> Charts:
        """Charts of these numbers of points along u and v, one after another. (P,) each"""
        start = np.concatenate([[0], np.cumsum(columns.astype(np.int64) * rows)])
        return Charts(columns.astype(np.int32), rows.astype(np.int32), start.astype(np.int32))

    def points(self) -> tuple[Int32, Int32, Int32]:
        """Patch, column and row of every point of the flat table. (X,) each"""
        patch = np.repeat(np.arange(len(self.rows), dtype=np.int32), np.diff(self.start))
        within = np.arange(self.start[-1], dtype=np.int32) - self.start[patch]
        row = within // self.columns[patch]
        return patch, within - row * self.columns[patch], row

    def halved(self) -> tuple[Charts, Int32]:
        """The next level, and the four points that each of its points averages. (X', 4)"""
        coarse = Charts.of((self.columns + 1) // 2, (self.rows + 1) // 2)
        patch, column, row = coarse.points()
        children = np.empty((len(patch), 4), np.int32)
        for i, (dy, dx) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            y = np.minimum(2 * row + dy, self.rows[patch] - 1)
            x = np.minimum(2 * column + dx, self.columns[patch] - 1)
            children[:, i] = self.start[patch] + y * self.columns[patch] + x
        return coarse, children


@dataclass(frozen=True)
class Surfaces:
    """What `flatten` makes of rectangles; texels and luxels are laid out when first asked for.

    Attributes:
        origin, u, v, normal: Of the patches, world frame, m. (P, 3) each
        role, slot: Material of each patch: index into `ROLES`, and which of that role. (P,)
        label: Segmentation class, index into `LABELS`. (P,)
        texture_at: Texture coordinates of the origin, m. (P, 2)
        sides: Lengths of u and v, m. (P, 2)
        vertices: Corners of triangles, m. (V, 3)
        triangles: Indices of vertices. (T, 3)
        patch_of: Patch of each triangle. (T,)
        corners: Chart coordinates (0 to 1 along u and v) of a triangle's first corner, and from it
            to the second and third. (T, 6): u, v, du, dv of the second, du, dv of the third
    """

    origin: Float64
    u: Float64
    v: Float64
    normal: Float64
    role: Int32
    slot: Int32
    label: NDArray[np.uint8]
    texture_at: Float64
    sides: Float64
    vertices: Float32
    triangles: NDArray[np.uint32]
    patch_of: Int32
    corners: Float32

    @cached_property
    def texels(self) -> tuple[Charts, ...]:
        """Charts of the finest level and then coarser ones."""
        return self._pyramid[0]

    @cached_property
    def children(self) -> tuple[Int32, ...]:
        """Of each level but the finest, the four texels averaged. Each (X', 4)"""
        return self._pyramid[1]

    @cached_property
    def _pyramid(self) -> tuple[tuple[Charts, ...], tuple[Int32, ...]]:
        coarse = self.label == LABELS.index("ceiling")
        fine_m = np.where(coarse, CEILING_TEXEL_M, TEXEL_M)[:, None]
        counts = np.maximum(np.rint(self.sides / fine_m), 1).astype(np.int32)
        levels, children = [Charts.of(counts[:, 0], counts[:, 1])], []
        for _ in range(LEVELS - 1):
            level, four = levels[-1].halved()
            levels.append(level)
            children.append(four)
        return tuple(levels), tuple(children)

    @cached_property
    def luxels(self) -> Charts:
        """Charts of the points at which light is computed."""
        counts = np.maximum(np.ceil(self.sides / LUXEL_M), 1).astype(np.int32) + 1
        return Charts.of(counts[:, 0], counts[:, 1])


def flatten(rectangles: Sequence[Rectangle]) -> Surfaces:
    """Lays out rectangles as tables."""
    origin = np.array([r.origin for r in rectangles])
    u = np.array([r.u for r in rectangles])
    v = np.array([r.v for r in rectangles])
    label = np.array([LABELS.index(r.label) for r in rectangles], np.uint8)
    sides = np.stack([np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=1)], axis=1)
    vertices, triangles, patch_of, corners = _triangulate(origin, u, v, rectangles)
    return Surfaces(
        origin=origin,
        u=u,
        v=v,
        normal=np.array([r.normal for r in rectangles]),
        role=np.array([ROLES.index(r.surface.role) for r in rectangles], np.int32),
        slot=np.array([r.surface.slot for r in rectangles], np.int32),
        label=label,
        texture_at=np.array([r.texture_at for r in rectangles]),
        sides=sides,
        vertices=vertices,
        triangles=triangles,
        patch_of=patch_of,
        corners=corners,
    )


_SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_ANGLES = 2 * math.pi * np.arange(DISC_SIDES) / DISC_SIDES
_DISC = 0.5 + 0.5 * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def _triangulate(
    origin: Float64, u: Float64, v: Float64, rectangles: Sequence[Rectangle]
) -> tuple[Float32, NDArray[np.uint32], Int32, Float32]:
    """Fans over each patch's outline: two triangles of a rectangle, more of a disc."""
    vertices, triangles, patch_of, corners = [], [], [], []
    begin = 0
    round_ = np.array([r.round for r in rectangles], bool)
    for outline, chosen in ((_SQUARE, np.flatnonzero(~round_)), (_DISC, np.flatnonzero(round_))):
        number = len(outline)
        uv = outline[None, :, :, None]
        points = (
            origin[chosen, None] + uv[:, :, 0] * u[chosen, None] + uv[:, :, 1] * v[chosen, None]
        )
        vertices.append(points.reshape(-1, 3))
        fan = np.array([(0, i, i + 1) for i in range(1, number - 1)])
        first = begin + number * np.arange(len(chosen))
        triangles.append((first[:, None, None] + fan).reshape(-1, 3))
        patch_of.append(np.repeat(chosen, len(fan)))
        a, b, c = outline[fan[:, 0]], outline[fan[:, 1]], outline[fan[:, 2]]
        corners.append(np.tile(np.concatenate([a, b - a, c - a], axis=1), (len(chosen), 1)))
        begin += number * len(chosen)
    return (
        np.concatenate(vertices).astype(np.float32),
        np.concatenate(triangles).astype(np.uint32),
        np.concatenate(patch_of).astype(np.int32),
        np.concatenate(corners).astype(np.float32),
    )
