"""Where a robot of a radius can go: a grid of cells, its one connected part, shortest distances.

Dimension legend: h, w rows and columns of the grid (row = y, column = x); N points.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from limpet.contracts.errors import DataError
from limpet.training.navigation.solids import Float64, Footprints

CELL_M = 0.1
"""Side of a cell."""

# One of each pair of opposite steps: straight, diagonal, and a knight's, which keeps distances
# within 2.8 % of Euclid's. With each, the cells that a robot sweeps on its way.
_STEPS: tuple[tuple[tuple[int, int], tuple[tuple[int, int], ...]], ...] = (
    ((0, 1), ()),
    ((1, 0), ()),
    ((1, 1), ((0, 1), (1, 0))),
    ((1, -1), ((0, -1), (1, 0))),
    ((1, 2), ((0, 1), (1, 1))),
    ((1, -2), ((0, -1), (1, -1))),
    ((2, 1), ((1, 0), (1, 1))),
    ((2, -1), ((1, 0), (1, -1))),
)


def cell_centers(size_m: tuple[float, float]) -> tuple[tuple[int, int], Float64]:
    """Shape (h, w) of the grid over a building, and the cells' centres, (h * w, 2)."""
    w, h = (int(np.ceil(extent / CELL_M)) for extent in size_m)
    y, x = np.mgrid[:h, :w]
    return (h, w), (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) * CELL_M


class FreeSpace:
    """The cells that a robot's centre may be in.

    Args:
        clearance_HW: Distance of each cell's centre to the nearest obstacle, m.
        radius_m: The robot's radius.

    Attributes:
        free_HW: Cells with clearance for the robot, of the largest connected part only. A place
            that no way leads to is not free.
    """

    def __init__(self, clearance_HW: Float64, radius_m: float) -> None:
        self.radius_m = radius_m
        self.free_HW = largest_part(clearance_HW >= radius_m)
        self.cells = np.flatnonzero(self.free_HW)
        if not len(self.cells):
            raise DataError(f"no cell has room for a robot of radius {radius_m:g} m")

    @staticmethod
    def of(footprints: Footprints, size_m: tuple[float, float], radius_m: float) -> FreeSpace:
        """The free space of a building with obstacles."""
        shape, centers = cell_centers(size_m)
        return FreeSpace(footprints.clearance(centers).reshape(shape), radius_m)

    def centers(self, cells: NDArray[np.integer]) -> Float64:
        """Centres of cells given by flat index. (N, 2)"""
        y, x = np.divmod(cells, self.free_HW.shape[1])
        return np.asarray((np.stack([x, y], axis=-1) + 0.5) * CELL_M)

    @cached_property
    def _graph(self) -> sparse.csr_matrix:
        free = self.free_HW
        h, w = free.shape
        index = np.arange(h * w).reshape(h, w)
        starts, stops, lengths = [], [], []
        for (dy, dx), swept in _STEPS:
            here = _window(h, w, dy, dx, 0, 0)
            allowed = free[here] & free[_window(h, w, dy, dx, dy, dx)]
            for sy, sx in swept:
                allowed &= free[_window(h, w, dy, dx, sy, sx)]
            starts.append(index[here][allowed])
            stops.append(index[_window(h, w, dy, dx, dy, dx)][allowed])
            lengths.append(np.full(len(starts[-1]), CELL_M * np.hypot(dy, dx)))
        ends = (np.concatenate(starts), np.concatenate(stops))
        return sparse.csr_matrix((np.concatenate(lengths), ends), shape=(h * w, h * w))

    def distances_to(self, goal: tuple[float, float]) -> DistanceField:
        """Shortest distances of all free cells to a point.

        Raises:
            DataError: No free cell is near the point.
        """
        near = self.cells_near(np.array(goal))
        if not len(near):
            raise DataError(f"goal ({goal[0]:.2f}, {goal[1]:.2f}) m is in no free cell")
        ahead = np.linalg.norm(self.centers(near) - np.array(goal), axis=1)
        lengths = csgraph.dijkstra(self._graph, directed=False, indices=near)  # (k, h * w)
        return DistanceField(self, goal, (lengths + ahead[:, None]).min(axis=0))

    def cells_near(self, point: Float64) -> NDArray[np.intp]:
        """Flat indices of the free ones among the 4 × 4 cells around a point.

        Args:
            point: x, y, m. (2,)

        Returns:
            (k,), k at most 16.
        """
        h, w = self.free_HW.shape
        x, y = np.floor(point / CELL_M - 0.5).astype(int)
        rows = np.arange(max(y - 1, 0), min(y + 3, h))
        columns = np.arange(max(x - 1, 0), min(x + 3, w))
        cells = (rows[:, None] * w + columns).ravel()
        return np.asarray(cells[self.free_HW.ravel()[cells]])


class DistanceField:
    """Geodesic distance to one goal: along the shortest way through free cells.

    Attributes:
        space: Where.
        goal: The point, m.
        lengths: Distance of each cell's centre, m, infinite where not free. (h * w,)
    """

    def __init__(self, space: FreeSpace, goal: tuple[float, float], lengths: Float64) -> None:
        self.space, self.goal, self.lengths = space, goal, lengths

    def at(self, point: Float64) -> float:
        """Distance from a point, m: on to the best of the cells around it, then through cells.

        Within two cells of the goal it is the straight line. Infinite away from free cells.

        Args:
            point: x, y, m. (2,)
        """
        straight = float(np.hypot(point[0] - self.goal[0], point[1] - self.goal[1]))
        if straight <= 2 * CELL_M:
            return straight
        near = self.space.cells_near(point)
        if not len(near):
            return float("inf")
        on = np.linalg.norm(self.space.centers(near) - point, axis=1)
        return max(straight, float((on + self.lengths[near]).min()))

    def way_from(self, point: Float64) -> Float64:
        """A shortest way from a point to the goal, both included, as points. (N, 2)"""
        near = self.space.cells_near(point)
        if not len(near):
            return np.array([point, self.goal])
        cost = self.lengths[near] + np.linalg.norm(self.space.centers(near) - point, axis=1)
        cell = int(near[cost.argmin()])
        h, w = self.space.free_HW.shape
        field = self.lengths.reshape(h, w)
        way = [cell]
        moves = [(sign * dy, sign * dx) for (dy, dx), _ in _STEPS for sign in (1, -1)]
        while self.lengths[cell] > 2 * CELL_M:
            y, x = divmod(cell, w)
            ahead = [
                (field[y + dy, x + dx] + CELL_M * np.hypot(dy, dx), (y + dy) * w + x + dx)
                for dy, dx in moves
                if 0 <= y + dy < h and 0 <= x + dx < w and field[y + dy, x + dx] < field[y, x]
            ]
            if not ahead:
                break
            cell = min(ahead)[1]
            way.append(cell)
        return np.concatenate([[point], self.space.centers(np.array(way)), [self.goal]])


def largest_part(free_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest part of a mask that is connected side by side. (H, W)"""
    parts, number = ndimage.label(free_HW)
    if number == 0:
        return free_HW
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _window(h: int, w: int, dy: int, dx: int, y: int, x: int) -> tuple[slice, slice]:
    """Cells shifted by (y, x) of all those from which a step (dy, dx) stays on the grid."""
    left = max(0, -dx)
    return slice(y, h - dy + y), slice(left + x, w - max(0, dx) + x)
