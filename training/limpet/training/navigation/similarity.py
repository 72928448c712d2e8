"""How alike two frames are in geometry, as a privileged sensor tells.

Similarities are 1 for the same geometry and 0 for the most unlike.

Dimension legend: n and m frames, B beams.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from limpet.training.navigation.camera import Lidar
from limpet.training.navigation.config import NavigationConfig

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def beam_weights(lidar: Lidar, config: NavigationConfig) -> Float64:
    """How much each beam counts: 1 ahead, 0 behind, a sigmoid at the edge of the camera's field of
    view. (B,)
    """
    bearing = np.degrees(np.abs((lidar.angles + math.pi) % (2 * math.pi) - math.pi))
    inside = (config.field_of_view_deg / 2 - bearing) / config.edge_deg
    return np.asarray(1.0 / (1.0 + np.exp(-inside)))


def lidar_similarity(a_nB: Float32, b_mB: Float32, weights_B: Float64, near_m: float) -> Float64:
    """1 - √(Σ w (a - b)²) / √(Σ w), ranges in units of `near_m` and at most 1. (n, m)

    A beam that either scan lacks (NaN) does not count for that pair; two scans without a common
    beam are wholly unlike.
    """
    (a, a_has), (b, b_has) = (_scaled(x, near_m) for x in (a_nB, b_mB))
    # Σ w (a - b)² over the beams that both have, as three matrix products.
    squares = (weights_B * a * a) @ b_has.T + (weights_B * a_has) @ (b * b).T
    squares -= 2.0 * (weights_B * a) @ b.T
    total = (weights_B * a_has) @ b_has.T
    distance = np.sqrt(np.maximum(squares, 0.0) / np.maximum(total, 1e-9))
    return np.where(total > 1e-9, 1.0 - distance, 0.0)


def _scaled(ranges: Float32, near_m: float) -> tuple[Float64, Float64]:
    has = np.isfinite(ranges)
    scaled = np.where(has, np.minimum(ranges, near_m) / near_m, 0.0)
    return scaled.astype(np.float64), has.astype(np.float64)


def goal_similarity(a_n2: Float32, b_m2: Float32, far_m: float) -> Float64:
    """(1 - |Δd|) (1 - |Δbearing| / π), distances in units of `far_m`. (n, m)

    Args:
        a_n2: Distance (m) and bearing (rad) of each frame's goal.
        b_m2: The same of other frames.
        far_m: Difference of distances that makes goals wholly unlike.
    """
    a, b = np.asarray(a_n2, np.float64), np.asarray(b_m2, np.float64)
    apart = np.minimum(np.abs(a[:, None, 0] - b[None, :, 0]) / far_m, 1.0)
    turned = np.abs((a[:, None, 1] - b[None, :, 1] + math.pi) % (2 * math.pi) - math.pi)
    return np.asarray((1.0 - apart) * (1.0 - turned / math.pi))
