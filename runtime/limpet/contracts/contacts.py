"""How square the two sides that a gripper closes on stand to its fingers, as far as is seen.

A finger first touches the outermost of the points between the fingers. Over a finger's height these
make an outline; where it leans against the finger, the surface does too, and by as much the grasp
is not antipodal. An outline shows that even on the side that faces away from the camera, where no
surface is seen and its normals tell nothing.

Dimension legend: g grasps, 2 fingers (that at negative y first), b bins along z, n observed points,
m of them between the fingers of some grasps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.grippers import Gripper, seen_from

Float32 = NDArray[np.float32]

BINS = 4
"""Of an outline, over a finger's height: each about as high as a voxel of what was seen."""
FEWEST = 3
"""Bins with points from which a line is taken."""


def slopes_of(
    rotation: NDArray[Any],
    translation_m: NDArray[Any],
    depth_m: NDArray[Any],
    width_m: NDArray[Any],
    observed: Float32,
    gripper: Gripper,
) -> Float32:
    """Slopes of the outlines that fingers close on: the friction that a finger needs there, if the
    object's outline is all that is known of it.

    Args:
        rotation: Columns approach, closing direction, height. (g, 3, 3)
        translation_m: Grasps' points, in the frame of `observed`. (g, 3)
        depth_m: How far the fingertips reach beyond them. (g,)
        width_m: Openings. (g,)
        observed: Points. (n, 3)
        gripper: Its sizes.

    Returns:
        dy/dz of the line through the outermost points, by least squares; 0, square, where too
        little lies between the fingers for a line. (g, 2)
    """
    # Outermost places along -y and y, in each bin; flat, because that is where `at` is fast.
    outermost = np.full(len(depth_m) * 2 * BINS, -np.inf, np.float32)
    depth = np.asarray(depth_m, np.float32)
    half = np.asarray(width_m, np.float32) / 2
    edge, high = gripper.opening_m / 2, gripper.height_m
    for which, (x, y, z) in seen_from(rotation, translation_m, observed, gripper, depth, edge, 0.0):
        between = (np.abs(z) < high / 2) & (np.abs(y) <= half[which, None])
        between &= (x > -gripper.base_m) & (x < depth[which, None])
        row, at = np.nonzero(between)
        bins = np.floor((z[row, at] / high + 0.5) * BINS).astype(np.intp).clip(0, BINS - 1)
        for finger, side in enumerate((-1, 1)):
            where = (which[row] * 2 + finger) * BINS + bins
            np.maximum.at(outermost, where, side * y[row, at])
    sides = np.array([[-1], [1]], np.float32)
    return _slopes(sides * outermost.reshape(-1, 2, BINS), high / BINS)


def _slopes(y: Float32, step_m: float) -> Float32:
    """Slopes of lines through one y a bin, infinite where there is none. (g, 2, b) → (g, 2)

    Args:
        y: Outermost places, m.
        step_m: A bin's height.
    """
    there = np.isfinite(y)
    count = np.maximum(there.sum(-1, keepdims=True), 1)
    z = np.arange(BINS, dtype=np.float32) * step_m
    off = np.where(there, z - (there * z).sum(-1, keepdims=True) / count, 0)
    rise = (off * np.where(there, y, 0)).sum(-1)
    run = np.square(off).sum(-1)
    enough = there.sum(-1) >= FEWEST
    slopes: Float32 = np.where(enough, rise / np.where(enough, run, 1), 0).astype(np.float32)
    return slopes
