"""Normals of an observed cloud, by local planes.

Dimension legend: n points, k neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Float64 = NDArray[np.float64]

NEIGHBOURS = 24
RADIUS_M = 0.01
_FEWEST = 5


def estimate_normals(points: NDArray[Any], viewpoint: NDArray[Any] | None = None) -> Float64:
    """Unit normals of the planes through each point's neighbours, towards the viewpoint.

    Args:
        points: m. (n, 3)
        viewpoint: Where it was seen from; by default the frame's origin, the camera. (3,)

    Returns:
        NaN where fewer than five points are within a centimetre. (n, 3)
    """
    points = np.asarray(points, np.float64)
    if len(points) < _FEWEST:
        return np.full((len(points), 3), np.nan)
    count = min(NEIGHBOURS, len(points))
    distance, index = cKDTree(points).query(points, k=count)
    near = distance <= RADIUS_M  # (n, k)
    weight = near / np.maximum(near.sum(1, keepdims=True), 1)
    around = points[index]  # (n, k, 3)
    centred = around - np.einsum("nk,nkj->nj", weight, around)[:, None]
    spread = np.einsum("nk,nki,nkj->nij", weight, centred, centred)
    normals: Float64 = np.linalg.eigh(spread)[1][:, :, 0]
    origin = np.zeros(3) if viewpoint is None else np.asarray(viewpoint, np.float64)
    away = np.einsum("nj,nj->n", normals, points - origin) > 0
    normals[away] *= -1
    normals[near.sum(1) < _FEWEST] = np.nan
    return normals
