"""Grasp labels of an object in GraspNet's parametrisation: 300 approaches × 12 angles × 4 depths.

For each candidate the fingers close along y through the middle p + depth · approach. How far they
open is decided first: around the material at the middle (its wall, if the object is hollow) or,
where that leaves no room for the fingers, around all that the fully opened gripper reaches. From
there rays run inwards; where each first meets the object is a contact. Friction is the lowest μ of
0.2, 0.4 … 1.2 at which both cones hold the line between the contacts (Nguyen 1988), as the public
evaluator computes it for the middle of the fingertips. Here it must hold as well along three lines
4 mm away, behind the tips and to either side: a pad is no point and a predicted grasp never exact.
So a label is never more lenient than the evaluator. The gripper itself must be clear of the object.

Dimension legend: P points, V approaches, A angles, D depths, n candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from limpet.contracts.grasp_frames import (
    ANGLES,
    ANGLES_RAD,
    DEPTHS,
    DEPTHS_M,
    VIEWS,
    approach_directions,
    rotation_of,
)
from limpet.training.grasp.scenes.gripper import (
    BASE_M,
    FINGER_M,
    MAX_WIDTH_M,
    Bool,
    DistanceGrid,
    Float32,
    Grasps,
    collides,
)
from limpet.training.grasp.scenes.meshes import Mesh, ray_scene

FRICTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
"""The evaluator's."""
CLEARANCE_M = 0.005
"""Between the opened finger and the contact, on the side where it is less."""
PAD_SPREAD_M = 0.004
"""How far from the fingertips' middle closure must hold as well."""
HALF_STEP_M = np.float32(0.00025)
"""Openings are rounded up to twice this, which halves the files."""
POINTS_AT_ONCE = 12
LEAST_POINTS, MOST_POINTS = 64, 192
POINT_SPACING_M = 0.008


@dataclass(frozen=True)
class GraspLabels:
    """Labels of one object, in its frame; GraspNet's arrays without what is implied.

    Attributes:
        points: On the surface, m. float32 (P, 3)
        friction: Lowest friction with force closure in tenths, 0 for none. uint8 (P, V, A, D)
        width: Opening, m, 0 where no friction. float32 (P, V, A, D)
        collision: The gripper meets the object itself. bool (P, V, A, D)
    """

    points: Float32
    friction: NDArray[np.uint8]
    width: Float32
    collision: Bool

    @property
    def holds(self) -> Bool:
        """Candidates with force closure that are free of the object itself. (P, V, A, D)"""
        return np.asarray((self.friction > 0) & ~self.collision)


def surface_points(mesh: Mesh, seed: int) -> Float32:
    """Points spread evenly over a surface: farthest-point order of a dense sample. (P, 3)

    One for each patch of `POINT_SPACING_M` squared, between `LEAST_POINTS` and `MOST_POINTS`.
    """
    corners = mesh.vertices[mesh.triangles]  # (t, 3, 3)
    sides = corners[:, 1:] - corners[:, :1]
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1) / 2
    wanted = int(np.clip(areas.sum() / POINT_SPACING_M**2, LEAST_POINTS, MOST_POINTS))
    rng = np.random.default_rng([13, seed])
    chosen = rng.choice(len(areas), 20 * wanted, p=areas / areas.sum())
    share = rng.random((len(chosen), 2, 1))
    share = np.where(share.sum(axis=1, keepdims=True) > 1, 1 - share, share)
    dense = corners[chosen, 0] + (share * sides[chosen]).sum(axis=1)
    kept = np.zeros(wanted, np.intp)
    nearest = np.full(len(dense), np.inf)
    for k in range(1, wanted):
        gap = dense - dense[kept[k - 1]]
        nearest = np.minimum(nearest, np.einsum("nk,nk->n", gap, gap))
        kept[k] = np.argmax(nearest)
    return np.asarray(dense[kept], np.float32)


def directions() -> tuple[Float32, Float32, Float32]:
    """Approach, closing direction and height of every view and angle. Each (V, A, 3)"""
    rotation = rotation_of(approach_directions()[:, None], ANGLES_RAD[None]).astype(np.float32)
    return rotation[..., 0], rotation[..., 1], rotation[..., 2]


def candidates(points: Float32, which: NDArray[np.integer[Any]], width: Float32) -> Grasps:
    """Gripper poses of candidates by their number in (P, V, A, D), C order.

    Args:
        points: Of the object. (P, 3)
        which: Numbers. (n,)
        width: Their openings, m. (n,)
    """
    approach, closing, height = directions()
    rest, depth = np.divmod(which, DEPTHS)
    rest, angle = np.divmod(rest, ANGLES)
    point, view = np.divmod(rest, VIEWS)
    return Grasps(
        points[point],
        approach[view, angle],
        closing[view, angle],
        height[view, angle],
        DEPTHS_M.astype(np.float32)[depth],
        np.asarray(width / 2, np.float32),
    )


def label_object(
    mesh: Mesh,
    grid: DistanceGrid,
    points: Float32,
    *,
    clearance_m: float = CLEARANCE_M,
    spread_m: float = PAD_SPREAD_M,
) -> GraspLabels:
    """Labels all candidates at some points of an object.

    Args:
        mesh: Closed, object frame.
        grid: Its distances.
        points: On its surface. (P, 3)
        clearance_m: How much wider than the contacts the gripper opens, on either side.
        spread_m: How far from the tips' middle the other lines are; 0 for the middle line alone.
    """
    shape = (len(points), VIEWS, ANGLES, DEPTHS)
    friction = np.zeros(shape, np.uint8)
    width = np.zeros(shape, np.float32)
    collision = np.ones(shape, bool)
    rays = _Rays(mesh)
    for start in range(0, len(points), POINTS_AT_ONCE):
        part = slice(start, start + POINTS_AT_ONCE)
        found = _label(rays, grid, points[part], clearance_m, spread_m)
        friction[part], width[part], collision[part] = found
    return GraspLabels(points, friction, width, collision)


class _Rays:
    """First hits on a closed mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self._scene = ray_scene(mesh)

    def cast(self, origin: Float32, direction: Float32) -> tuple[Float32, Float32]:
        """Distance, infinite for none, and cosine of ray and outward normal. (n,), (n,)"""
        rays: Float32 = np.concatenate([origin, direction], axis=1)
        hits: dict[str, Any] = self._scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)
        normal = hits["primitive_normals"].numpy()
        return hits["t_hit"].numpy(), np.einsum("nk,nk->n", normal, direction)


def _label(
    rays: _Rays, grid: DistanceGrid, points: Float32, clearance: float, spread: float
) -> tuple[NDArray[np.uint8], Float32, Bool]:
    shape = (len(points), VIEWS, ANGLES, DEPTHS)
    friction = np.zeros(math.prod(shape), np.uint8)
    width = np.zeros(math.prod(shape), np.float32)
    collision = np.ones(math.prod(shape), bool)
    approach = directions()[0][:, 0]  # (V, 3)
    # Where the middle of the base is inside the object, no opening helps.
    base = points[:, None] - (BASE_M + FINGER_M / 2) * approach  # (P, V, 3)
    clear = grid.at(base) > FINGER_M / 2 - 0.001
    numbers = np.arange(math.prod(shape)).reshape(shape)[clear].ravel()
    grasps = candidates(points, numbers, np.full(len(numbers), MAX_WIDTH_M, np.float32))

    def decide(which: NDArray[np.intp], half: Float32) -> None:
        """Contacts, friction and collision of some candidates, opened so far."""
        half = np.ceil(half / HALF_STEP_M - 1e-3).astype(np.float32) * HALF_STEP_M
        fits = np.flatnonzero(half <= MAX_WIDTH_M / 2 + 1e-6)
        which, opened = which[fits], replace(grasps[which[fits]], half=half[fits])
        mu = _friction_around(rays, opened, spread)
        holds = np.flatnonzero(mu)
        hit = collides(opened[holds], grid)
        at = numbers[which[holds]]
        # A wider opening that is in the way as well does not replace the one found before.
        better = (friction[at] == 0) | ~hit
        at, holds, hit = at[better], holds[better], hit[better]
        friction[at], width[at], collision[at] = mu[holds], 2 * opened.half[holds], hit

    half, inside = _around_middle(rays, grasps)
    tight = np.flatnonzero(inside)
    decide(tight, half[tight] + np.float32(clearance))
    rest = np.flatnonzero(~inside | ((friction[numbers] > 0) & collision[numbers]))
    decide(rest, _around_all(rays, grasps[rest]) + np.float32(clearance))
    return friction.reshape(shape), width.reshape(shape), collision.reshape(shape)


def _middle(grasps: Grasps) -> Float32:
    return grasps.origin + grasps.depth[:, None] * grasps.approach


def _around_middle(rays: _Rays, grasps: Grasps) -> tuple[Float32, Bool]:
    """How far the material at the middle reaches along y, and whether there is any. (n,), (n,)"""
    middle = _middle(grasps)
    ahead, cos = rays.cast(middle, grasps.closing)
    inside = cos > 0  # the first surface is left, not entered
    inside &= np.isfinite(ahead)
    half = np.full(len(grasps), np.inf, np.float32)
    some = np.flatnonzero(inside)
    behind, _ = rays.cast(middle[some], -grasps.closing[some])
    half[some] = np.maximum(ahead[some], behind)
    return half, inside


def _around_all(rays: _Rays, grasps: Grasps) -> Float32:
    """How far all that is between the opened fingers reaches, infinite where a finger is in it."""
    middle, most = _middle(grasps), np.float32(MAX_WIDTH_M / 2)
    half = np.zeros(len(grasps), np.float32)
    for side in (-1.0, 1.0):
        outwards = np.float32(side) * grasps.closing
        reached, cos = rays.cast(middle + most * outwards, -outwards)
        extent = most - reached
        half = np.maximum(half, np.where((cos < 0) & (extent >= 0), extent, np.inf))
    return half.astype(np.float32)


def _friction_around(rays: _Rays, grasps: Grasps, spread: float) -> NDArray[np.uint8]:
    """Lowest friction in tenths that holds along all lines of a pad, 0 for none. (n,)"""
    out = _friction(rays, grasps)
    for back, aside in ((1.0, 0.0), (0.0, 1.0), (0.0, -1.0)) if spread > 0 else ():
        some = np.flatnonzero(out)
        part = grasps[some]
        shift = np.float32(aside * spread) * part.height - np.float32(back * spread) * part.approach
        nearby = _friction(rays, replace(part, origin=part.origin + shift))
        out[some] = np.where(nearby > 0, np.maximum(out[some], nearby), 0)
    return out


def _friction(rays: _Rays, grasps: Grasps) -> NDArray[np.uint8]:
    """Lowest friction in tenths at which the first contacts inwards hold, 0 for none. (n,)"""
    middle = _middle(grasps)
    worst = np.zeros(len(grasps), np.float32)  # tangent of the angle of normal and line
    for side in (-1.0, 1.0):
        outwards = np.float32(side) * grasps.closing
        reached, cos = rays.cast(middle + grasps.half[:, None] * outwards, -outwards)
        tangent = np.sqrt(np.maximum(1 - cos**2, 0)) / np.maximum(-cos, 1e-6)
        met = (cos < 0) & (reached <= grasps.half + 1e-5)
        worst = np.maximum(worst, np.where(met, tangent, np.inf))
    step = np.searchsorted(np.array(FRICTIONS) + 1e-5, worst)
    tenths = np.append(np.round(10 * np.array(FRICTIONS)).astype(np.uint8), np.uint8(0))
    return np.asarray(tenths[step])
