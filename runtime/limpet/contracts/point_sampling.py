"""Thinning of point clouds: voxels, isolated voxels, farthest points. The same on every machine.

Dimension legend: n points, v voxels, m points chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_BITS = 21
_HALF = 1 << (_BITS - 1)
_AROUND = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
_HALF_AROUND = [side for side in _AROUND if side > (0, 0, 0)]  # the others are their opposites


def voxel_keys(points: Float32, voxel_m: float) -> Int64:
    """A number for each point's voxel. (n, 3) → (n,)

    Coordinates may reach 2^20 voxels either way, a kilometre at one millimetre.
    """
    cells = np.floor(points * np.float32(1 / voxel_m)).astype(np.int64) + _HALF
    keys: Int64 = (cells[:, 0] << (2 * _BITS)) | (cells[:, 1] << _BITS) | cells[:, 2]
    return keys


def voxel_means(points: Float32, voxel_m: float) -> tuple[Float32, Int64, Int64]:
    """The mean point of each voxel that holds any, in the order of the keys.

    Returns:
        Means (v, 3), keys ascending (v,), and the points in each (v,).
    """
    if not len(points):
        return points.reshape(0, 3), np.zeros(0, np.int64), np.zeros(0, np.int64)
    keys = voxel_keys(points, voxel_m)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    counts = np.diff(np.append(first, len(keys)))
    sums = np.add.reduceat(points[order].astype(np.float64), first, axis=0)
    return (sums / counts[:, None]).astype(np.float32), keys[first], counts


def voxel_pairs(keys: Int64) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Voxels that touch, by side, edge or corner, each two once. Keys ascend. (v,)

    Yields:
        Indices of some, and of the neighbour of each; no index comes twice in either.
    """
    if not len(keys):
        return
    for i, j, k in _HALF_AROUND:
        wanted = keys + ((i << (2 * _BITS)) + (j << _BITS) + k)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        hit = np.flatnonzero(keys[at] == wanted)
        yield hit, at[hit]


def neighbours(keys: Int64) -> Int64:
    """How many of the 26 voxels around each hold points too. Keys ascend. (v,) → (v,)"""
    found = np.zeros(len(keys), np.int64)
    for one, other in voxel_pairs(keys):
        found[one] += 1
        found[other] += 1
    return found


def shuffled(points: Float32, voxel_m: float) -> NDArray[np.uint64]:
    """Numbers without pattern in space, one for each point's voxel. (n, 3) → (n,)"""
    z: NDArray[np.uint64] = voxel_keys(points, voxel_m).astype(np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(32)
    return z


def smallest(keys: NDArray[np.uint64], count: int) -> NDArray[np.intp]:
    """Indices of the smallest keys, ascending. (n,) → (m,)"""
    if count < len(keys):
        found = np.argpartition(keys, count)[:count]
        return found[np.argsort(keys[found], kind="stable")]
    return np.argsort(keys, kind="stable")


def farthest_points(points: Float32, count: int) -> NDArray[np.intp]:
    """Indices of points, each the farthest from those before it; the first is nearest to the mean.

    Any prefix covers the cloud evenly. At most as many as there are points. (n, 3) → (m,)
    """
    count = min(count, len(points))
    chosen = np.zeros(count, np.intp)
    if not count:
        return chosen
    columns = np.ascontiguousarray(points.T, np.float32)  # (3, n)
    centre = columns.mean(1, dtype=np.float64).astype(np.float32)
    offset, squared = np.empty_like(columns), np.empty(len(points), np.float32)
    nearest = np.full(len(points), np.inf, np.float32)
    chosen[0] = np.argmin(((columns - centre[:, None]) ** 2).sum(0))
    for index in range(1, count):
        np.subtract(columns, columns[:, chosen[index - 1], None], out=offset)
        np.multiply(offset, offset, out=offset)
        np.add.reduce(offset, axis=0, out=squared)
        np.minimum(nearest, squared, out=nearest)
        chosen[index] = nearest.argmax()
    return chosen


def dilate(cells: NDArray[np.bool_]) -> NDArray[Any]:
    """Cells of a grid and the eight around each. (rows, columns)"""
    wide = np.zeros((cells.shape[0] + 2, cells.shape[1] + 2), bool)
    for row in (0, 1, 2):
        for column in (0, 1, 2):
            wide[row : row + cells.shape[0], column : column + cells.shape[1]] |= cells
    return wide[1:-1, 1:-1]
