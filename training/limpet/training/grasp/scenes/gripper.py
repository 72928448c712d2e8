"""The parallel gripper, as the public evaluator has it, and whether it is in something's way.

Gripper frame: x along the approach, y along the closing direction, z along the fingers' height; the
origin is the grasp's point, the fingertips are `depth` beyond it. Two fingers and a base:

    fingers  -base_m ≤ x ≤ depth           half ≤ |y| ≤ half + finger_m      |z| ≤ height_m / 2
    base     -base_m - finger_m ≤ x ≤ -base_m    |y| ≤ half + finger_m       |z| ≤ height_m / 2

with half the opening `half`. A finger is looked up as three blocks, the base as four: one look
at the middle of a block decides most, balls that fill it the rest.

Dimension legend: n grasps, b blocks, k balls of a block, (x, y, z) cells of a grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from limpet.training.grasp.scenes.meshes import Mesh, ray_scene

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

FINGER_M = 0.01
"""Thickness of a finger along y, and of the base along x."""
HEIGHT_M = 0.02
"""Of fingers and base, along z."""
BASE_M = 0.02
"""How far the fingers reach back from the grasp's point to the base."""
MAX_WIDTH_M = 0.10
"""Largest opening."""

GRID_PITCH_M = 0.002
GRID_MARGIN_M = 0.03
BALL_M = 0.0025
"""Radius of the balls that fill a block."""
FINGER_BLOCKS, BASE_BLOCKS = 3, 4
GRASPS_AT_ONCE = 60_000


@dataclass(frozen=True)
class Grasps:
    """Gripper poses in one frame.

    Attributes:
        origin: Grasps' points, m. float32 (n, 3)
        approach, closing, height: Columns of their rotations. float32 (n, 3) each
        depth: m. float32 (n,)
        half: Half of the opening, m. float32 (n,)
    """

    origin: Float32
    approach: Float32
    closing: Float32
    height: Float32
    depth: Float32
    half: Float32

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, which: NDArray[np.intp] | Bool | slice) -> Grasps:
        return Grasps(
            self.origin[which],
            self.approach[which],
            self.closing[which],
            self.height[which],
            self.depth[which],
            self.half[which],
        )

    def moved(self, pose: NDArray[np.float64]) -> Grasps:
        """The same grasps in another frame. (4, 4)"""
        turned = pose[:3, :3].astype(np.float32)
        return Grasps(
            self.origin @ turned.T + pose[:3, 3].astype(np.float32),
            self.approach @ turned.T,
            self.closing @ turned.T,
            self.height @ turned.T,
            self.depth,
            self.half,
        )


class DistanceGrid:
    """Signed distance to a closed mesh on a grid, looked up at the nearest cell.

    Args:
        mesh: In its own frame.
        pitch_m: Between cells; a look-up is off by 0.87 of it at most.
        margin_m: How far around the mesh the grid reaches. Beyond, its border's value is given,
            which is at least the margin.
    """

    def __init__(
        self, mesh: Mesh, pitch_m: float = GRID_PITCH_M, margin_m: float = GRID_MARGIN_M
    ) -> None:
        low = mesh.vertices.min(axis=0) - margin_m
        high = mesh.vertices.max(axis=0) + margin_m
        axes = [np.arange(a, b + pitch_m, pitch_m) for a, b in zip(low, high, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
        found = ray_scene(mesh).compute_signed_distance(
            o3d.core.Tensor.from_numpy(points), nthreads=1
        )
        values = found.numpy()
        self._low, self._scale = low.astype(np.float32), np.float32(1 / pitch_m)
        self._last = np.array(values.shape, np.float32) - 1
        self._steps = np.array([values.shape[1] * values.shape[2], values.shape[2], 1], np.float32)
        self._values = np.ascontiguousarray(values.ravel(), np.float32)

    def at(self, points: Float32) -> Float32:
        """Distance, m, below 0 inside. (..., 3) → (...)"""
        cell = np.subtract(points, self._low)
        cell *= self._scale
        np.rint(cell, out=cell)
        np.clip(cell, 0.0, self._last, out=cell)
        # A grid has fewer than 2**24 cells, so float32 holds every index.
        return np.asarray(self._values[(cell @ self._steps).astype(np.int32)])


def collides(grasps: Grasps, grid: DistanceGrid) -> Bool:
    """Whether fingers or base meet the grid's object. Both in its frame. (n,)"""
    out = np.zeros(len(grasps), bool)
    for start in range(0, len(grasps), GRASPS_AT_ONCE):
        part = slice(start, start + GRASPS_AT_ONCE)
        out[part] = _collides(grasps[part], grid)
    return out


def _collides(grasps: Grasps, grid: DistanceGrid) -> Bool:
    number = len(grasps)
    out = np.zeros(number, bool)
    finger = np.asarray(
        (grasps.depth + BASE_M) / FINGER_BLOCKS, np.float32
    )  # a block's length along x
    base = np.asarray(2 * (grasps.half + FINGER_M) / BASE_BLOCKS, np.float32)  # and along y
    aside = np.asarray(grasps.half + FINGER_M / 2, np.float32)
    blocks: list[tuple[Float32, Float32, bool]] = []
    for k in range(BASE_BLOCKS):
        y = np.asarray((k + 0.5) * base - (grasps.half + FINGER_M), np.float32)
        blocks.append((np.full(number, -BASE_M - FINGER_M / 2, np.float32), y, False))
    for k in range(FINGER_BLOCKS)[::-1]:
        along = np.asarray((k + 0.5) * finger - BASE_M, np.float32)
        blocks += [(along, aside, True), (along, -aside, True)]
    undecided = []
    for x, y, is_finger in blocks:
        alive = np.flatnonzero(~out)
        middle: Float32 = (
            grasps.origin[alive]
            + x[alive, None] * grasps.approach[alive]
            + y[alive, None] * grasps.closing[alive]
        )
        length = (finger if is_finger else base)[alive]
        reach = np.sqrt(length**2 + FINGER_M**2 + HEIGHT_M**2) / 2
        distance = grid.at(middle)
        out[alive[distance < FINGER_M / 2 - 0.001]] = True
        some = (distance >= FINGER_M / 2 - 0.001) & (distance < reach)
        undecided.append((alive[some], middle[some], length[some], is_finger))
    for which, middle, length, is_finger in undecided:
        alive = ~out[which]
        index = which[alive]
        if len(index):
            hit = _block_hit(grasps, grid, index, middle[alive], length[alive], is_finger)
            out[index[hit]] = True
    return out


def _block_hit(
    grasps: Grasps,
    grid: DistanceGrid,
    index: NDArray[np.intp],
    middle: Float32,
    length: Float32,
    is_finger: bool,
) -> Bool:
    """Whether any ball of a block touches. The long side is x for a finger, y for the base."""
    across = np.array([-1.0, 1.0], np.float32) * (FINGER_M / 2 - BALL_M)
    tall = np.linspace(-1.0, 1.0, 4, dtype=np.float32) * (HEIGHT_M / 2 - BALL_M)
    inner = np.linspace(-1.0, 1.0, 4 if is_finger else 6, dtype=np.float32)
    along = (length / 2 - BALL_M)[:, None] * inner  # (n, 4 or 6)
    long_axis = (grasps.approach if is_finger else grasps.closing)[index]
    short_axis = (grasps.closing if is_finger else grasps.approach)[index]
    section = (
        across[:, None, None] * short_axis[:, None, None]
        + tall[:, None] * grasps.height[index][:, None, None]
    ).reshape(len(index), -1, 3)  # (n, 8, 3)
    line = middle[:, None] + along[..., None] * long_axis[:, None]  # (n, 4 or 6, 3)
    points = np.asarray(line[:, :, None] + section[:, None], np.float32)
    return np.asarray((grid.at(points) < BALL_M).any(axis=(1, 2)))


def lowest(grasps: Grasps) -> Float32:
    """Lowest z of the gripper, m, in the grasps' frame. (n,)"""
    reach = np.minimum(
        grasps.depth * grasps.approach[:, 2], -(BASE_M + FINGER_M) * grasps.approach[:, 2]
    )
    aside = (grasps.half + FINGER_M) * np.abs(grasps.closing[:, 2])
    z: Float32 = grasps.origin[:, 2] + reach - aside - HEIGHT_M / 2 * np.abs(grasps.height[:, 2])
    return z
