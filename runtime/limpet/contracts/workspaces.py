"""What of a scene stands on the table: a robot's stand, a plate beside it and walls do not.

Heights are metres above the table, towards the camera. Maps have square cells on the table.

Dimension legend: n points, d directions, c cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import ImplausibleError
from limpet.contracts.planes import Plane, find_plane, thin
from limpet.contracts.point_sampling import dilate
from limpet.contracts.products import product

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

WITHIN_M = 0.006
"""How far from a plane a point lies on it: residuals of real tables are 1 to 3.5 mm."""
LEAST_SHARE = 0.15
"""Part of the points in the middle of the view that a table holds, at least."""
LEAST_AREA_M2 = 0.02
"""Area that is seen of a table, at least: a square of 14 cm."""
CERTAIN_SHARE = 0.3
"""The same, where two views' tables are compared."""
APART_DEG, APART_M = 15.0, 0.06
"""How far apart they may be: calibrated cameras stay within 1° and 1 cm, a plate on the table
within a few."""
MIDDLE = 0.8
"""Part of the points, those nearest to the optical axis, that vote for the table."""
MARGIN_M = 0.01
"""How far beyond the table's seen surface something may stand."""
LEAST_INSIDE = 0.3
"""Part of what stands out that has to be above the table's seen surface, or little is seen of the
table (a full bin) and that says nothing."""
NOISE = 2.75
"""Standard deviations of the table's noise that something has to stand out of it, where that is
more than it has to anyway."""
CELL_M = 0.01
_DIRECTIONS = 32
_STRAY = 0.004  # part of the table's points that may lie beyond its outline on each side
_VOTERS = 20000
_BEND_M = 0.008
_FIT = 4096


class Workspace:
    """The table of a scene and what stands on it.

    Args:
        clouds: Points of all views in the reference camera's frame. (n, 3) each
        lowest_m, highest_m: Heights between which something stands out.

    Attributes:
        table: None where none was seen: then everything stands out.
    """

    def __init__(self, clouds: Sequence[Float32], lowest_m: float, highest_m: float) -> None:
        voters = np.concatenate([thin(cloud, _VOTERS, seed=3) for cloud in clouds])
        self.lowest_m, self.highest_m = lowest_m, highest_m
        self.table = _find_table(voters)
        # Without a table the map lies across the optical axis.
        base = self.table or Plane(np.array([0.0, 0.0, -1.0]), 0.0, 0.0)
        self._axes = base.axes().astype(np.float32)  # (2, 3)
        self._bend: Float32 | None = None
        self._outline: tuple[Float32, Float32] | None = None
        if self.table is not None:
            self._survey(voters, self.table)

    def _survey(self, voters: Float32, table: Plane) -> None:
        on = voters[np.abs(table.heights(voters)) <= 2 * WITHIN_M]
        on = thin(on, _FIT)
        self._bend = _fit_bend(self.across(on), table.heights(on))
        heights = self.heights(voters)
        # Below the table there is nothing but noise: where that is large, less stands out of it.
        below = heights[(heights < 0) & (heights > -4 * WITHIN_M)]
        if len(below):
            self.lowest_m = max(self.lowest_m, NOISE * float(np.sqrt(np.mean(below**2))))
        outline = _outline(self.across(thin(voters[np.abs(heights) <= WITHIN_M], _FIT)))
        out = voters[(heights > self.lowest_m) & (heights <= self.highest_m)]
        if len(out) and _inside(self.across(out), outline).mean() >= LEAST_INSIDE:
            self._outline = outline

    def across(self, points: Float32) -> Float32:
        """Coordinates on the table, metres. (n, 3) → (n, 2)"""
        across: Float32 = product(points, self._axes.T)
        return across

    def heights(self, points: Float32) -> Float32:
        """Heights above the table's surface, which the camera may show bent. (n, 3) → (n,)

        Raises:
            AssertionError: No table was seen.
        """
        assert self.table is not None
        heights = self.table.heights(points)
        if self._bend is not None:
            low = np.flatnonzero(np.abs(heights) < 4 * _BEND_M)
            bend = product(_terms(self.across(points[low])), self._bend[:, None])[:, 0]
            heights[low] -= np.clip(bend, -_BEND_M, _BEND_M)
        return heights

    def foreground(self, points: Float32) -> Bools:
        """Which points belong to something that stands on the table. (n, 3) → (n,)"""
        if self.table is None:
            return np.ones(len(points), bool)
        heights = self.heights(points)
        out = (heights > self.lowest_m) & (heights <= self.highest_m)
        if self._outline is not None:
            out[out] = _inside(self.across(points[out]), self._outline)
        return out


class RingMap:
    """How far points are from some others across the table, in cells.

    Args:
        across: Coordinates of those others on the table. (n, 2)
        most: Rings told apart; farther points are at `most + 1`.
    """

    def __init__(self, across: Float32, most: int) -> None:
        self._most = most
        cells = np.floor(across / CELL_M).astype(np.int64)
        self._low = cells.min(0) - most - 1
        size = cells.max(0) - self._low + most + 2
        reached = np.zeros(size, bool)
        reached[tuple((cells - self._low).T)] = True
        self._rings = np.where(reached, 0, most + 1)
        for ring in range(1, most + 1):
            wider = dilate(reached)
            self._rings[wider & ~reached] = ring
            reached = wider

    def of(self, across: Float32) -> NDArray[np.int64]:
        """Rings of points: 0 in a cell with one of the others. (n, 2) → (n,)"""
        rows, columns = (
            np.floor(axis / np.float32(CELL_M)).astype(np.int64) - low
            for axis, low in zip(across.T, self._low, strict=True)
        )
        height, width = self._rings.shape  # its rim is far from everything
        rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
        rings: NDArray[np.int64] = self._rings[rows, columns]
        return rings


def _find_table(points: Float32) -> Plane | None:
    plane = find_plane(_middle(points), within_m=WITHIN_M, least_share=LEAST_SHARE)
    if plane is None:
        return None
    on = points[np.abs(plane.heights(points)) <= WITHIN_M]
    on = product(on, plane.axes().T.astype(np.float32))
    cells = np.floor(on / CELL_M).astype(np.int64)
    held = np.unique((cells[:, 0] << 32) + cells[:, 1])  # a sort of rows takes ten times as long
    return plane if len(held) * CELL_M**2 >= LEAST_AREA_M2 else None


def check_views_agree(clouds: Sequence[Float32], pose_aux_in_ref: Float64) -> None:
    """Refuses a relative pose by which the table of one view is not that of the other.

    Where one of them sees no table that holds much of it, nothing is known.

    Args:
        clouds: Points of the reference and of the auxiliary view, each in its camera's frame.
        pose_aux_in_ref: p_ref = pose · p_aux. (4, 4)

    Raises:
        ImplausibleError: `relative_pose`.
    """
    voters = [thin(cloud, _VOTERS, seed=3) for cloud in clouds]
    tables = [_find_table(some) if len(some) else None for some in voters]
    reference, auxiliary = tables
    if reference is None or auxiliary is None:
        return
    if min(reference.share, auxiliary.share) < CERTAIN_SHARE:
        return
    on = voters[1][np.abs(auxiliary.heights(voters[1])) <= WITHIN_M]
    middle = pose_aux_in_ref[:3, :3] @ on.mean(0, dtype=np.float64) + pose_aux_in_ref[:3, 3]
    apart_m = abs(float(reference.heights(middle[None])[0]))
    cosine = float(reference.normal @ (pose_aux_in_ref[:3, :3] @ auxiliary.normal))
    tilt_deg = math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
    if tilt_deg > APART_DEG or apart_m > APART_M:
        raise ImplausibleError(
            "relative_pose",
            f"pose_aux_in_ref: by it the tables of the two views are {tilt_deg:.0f}° and "
            f"{100 * apart_m:.0f} cm apart",
            "p_ref = pose_aux_in_ref · p_aux: is it the inverse, or of other views?",
        )


def _middle(points: Float32) -> Float32:
    slope = np.hypot(points[:, 0], points[:, 1]) / np.maximum(points[:, 2], 1e-6)
    return points[slope <= np.quantile(slope, MIDDLE)]


def _terms(across: Float32) -> Float32:
    x, y = across.T
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def _fit_bend(across: Float32, heights: Float32) -> Float32:
    """Coefficients of the smooth surface that a flat table is shown as. (6,)"""
    terms = _terms(across).astype(np.float64)
    # With columns of one size the normal equations are good enough, and need no other threads.
    scale = np.sqrt((terms * terms).mean(0)) + 1e-12
    terms /= scale
    square = terms.T @ terms + 1e-9 * len(terms) * np.eye(terms.shape[1])
    fit: Float64 = np.linalg.solve(square, terms.T @ heights.astype(np.float64)) / scale
    return fit.astype(np.float32)


def _outline(across: Float32) -> tuple[Float32, Float32]:
    """A convex outline: directions and how far points reach in each. (2, d), (d,)"""
    angle = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    directions = np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    reach = np.quantile(product(across, directions), 1 - _STRAY, axis=0).astype(np.float32)
    return directions, reach


def _inside(across: Float32, outline: tuple[Float32, Float32]) -> Bools:
    directions, reach = outline
    x, y = np.ascontiguousarray(across.T)
    inside = np.ones(len(x), bool)
    for (east, north), far in zip(directions.T, reach, strict=True):  # one at a time stays in cache
        inside &= x * east + y * north <= far + np.float32(MARGIN_M)
    return inside
