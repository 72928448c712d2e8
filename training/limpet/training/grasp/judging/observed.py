"""Grasps in a real scene, whose objects nobody has as meshes: judged on a cloud of what was seen.

Of each of the best 50 grasps after suppression: is the gripper free of the observed cloud? And do
its fingers meet the object antipodally within a friction cone? A missing grasp fails. The second
question has two answers, because a camera sees one side of things:

- **strict**: the line between the outermost points between the fingers lies in the friction cones
  about the cloud's normals at both. On one view this judges the view rather than the grasp: of
  grasps that hold at a friction of 0.2 on the true mesh it passes 3 %, with two views 26 %.
- **seen**: a contact whose side faces the camera is judged by the cloud's normals there, and one
  that faces away by its outline: over the fingers' height, the outermost points must lie square to
  the closing direction. Of the same grasps it passes 51 % with one view and 64 % with two, in
  clutter where a neighbour's points come between the fingers too; of these grasps turned by 45°
  about the approach, 6 and 9 %.

(Measured on four synthetic training scenes, clouds in voxels of 2 mm.)

Dimension legend: g grasps, n points of the object, i of them between the fingers, w observed
points.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.grasps import rotations_of, suppress
from limpet.contracts.grippers import fit_of
from limpet.training.grasp.judging.average_precision import GRIPPER, RANKS
from limpet.training.grasp.judging.normals import estimate_normals

Float64 = NDArray[np.float64]

FRICTION = 0.4
"""Friction coefficient of the cones."""

PATCH_M = 0.003
"""Depth of the layer of points that a finger is taken to touch: noise of a depth camera."""

FACING = 0.26
"""Sine of the angle by which a side has to face the camera for its normals to count: 15°."""

_FEWEST = 5
_OUTLINE_BINS = 5


class ObservedFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How the best 50 grasps of a scene do; shares are of 50 even where there are fewer.

    Attributes:
        grasps: How many there were, at most 50.
        free: Share free of collision with the observed cloud.
        antipodal: Share antipodal within a friction of 0.4, strictly.
        antipodal_seen: The same, as far as the camera can tell.
        free_antipodal: Share free and strictly antipodal.
        free_antipodal_seen: Share free and antipodal as far as the camera can tell.
    """

    grasps: int
    free: float
    antipodal: float
    antipodal_seen: float
    free_antipodal: float
    free_antipodal_seen: float


def judge_observed(
    rows: NDArray[Any],
    observed: NDArray[Any],
    target: NDArray[Any],
    normals: NDArray[Any] | None = None,
) -> ObservedFigures:
    """Figures of one scene.

    Args:
        rows: Grasps in the camera's frame, best first or not. (g, 17)
        observed: What must not be touched, camera frame, m. (w, 3)
        target: What is to be grasped, camera frame, m. (n, 3)
        normals: Of `target`, towards the camera that saw them; by default estimated. (n, 3)
    """
    rows = np.asarray(rows, np.float64).reshape(-1, 17)
    rows = rows[suppress(rows)][:RANKS]
    free = free_of(rows, observed)
    strict, seen = (one <= FRICTION for one in contact_friction(rows, target, normals))
    shares = (free, strict, seen, free & strict, free & seen)
    values = [float(np.count_nonzero(share)) / RANKS for share in shares]
    return ObservedFigures(
        grasps=len(rows),
        free=values[0],
        antipodal=values[1],
        antipodal_seen=values[2],
        free_antipodal=values[3],
        free_antipodal_seen=values[4],
    )


def free_of(rows: Float64, observed: NDArray[Any]) -> NDArray[np.bool_]:
    """Which grippers have no observed point inside a finger or the base. (g,)"""
    points = np.asarray(observed, np.float32).reshape(-1, 3)
    fit = fit_of(rotations_of(rows), rows[:, 13:16], rows[:, 3], rows[:, 1], points, GRIPPER)
    return ~fit.collides


def contact_friction(
    rows: Float64, target: NDArray[Any], normals: NDArray[Any] | None = None
) -> tuple[Float64, Float64]:
    """Friction coefficients that grasps need on a cloud, strictly and as far as it was seen.

    A finger touches the outermost points between the fingers, within its height and length: their
    mean place and median normal, over a layer of 3 mm.

    Args:
        rows: Grasps in the camera's frame. (g, 17)
        target: The object's points, in the same frame, m. (n, 3)
        normals: Of these, towards the camera that saw them; by default estimated. (n, 3)

    Returns:
        Infinite where nothing is between the fingers. (g,), (g,)
    """
    target = np.asarray(target, np.float64)
    if normals is None:
        normals = estimate_normals(target)
    known = np.isfinite(normals).all(1)
    target, normals = target[known], np.asarray(normals, np.float64)[known]
    needed = np.full((2, len(rows)), np.inf)
    for index, row in enumerate(rows):
        rotation = row[4:13].reshape(3, 3)
        local = (target - row[13:16]) @ rotation
        inside = (
            (np.abs(local[:, 2]) < GRIPPER.height_m / 2)
            & (local[:, 0] > -GRIPPER.base_m)
            & (local[:, 0] < row[3])
            & (np.abs(local[:, 1]) <= row[1] / 2)
        )
        local, facing = local[inside], normals[inside] @ rotation
        # One layer is nothing that two fingers could hold.
        if len(local) >= _FEWEST and np.ptp(local[:, 1]) >= PATCH_M:
            needed[0, index] = _strict(local, facing)
            sight = row[13:16] @ rotation[:, 1] / np.linalg.norm(row[13:16])
            needed[1, index] = max(_seen(local, facing, side, sight) for side in (-1.0, 1.0))
    return needed[0], needed[1]


def _strict(local: Float64, normals: Float64) -> float:
    """Friction for the line between the outermost points, in the gripper's frame. (i, 3)"""
    places, facing = zip(*(_patch(local, normals, side) for side in (-1.0, 1.0)), strict=True)
    line = places[1] - places[0]
    return max(_friction_between(line, normal) for normal in facing)


def _seen(local: Float64, normals: Float64, side: float, sight: float) -> float:
    """Friction of one finger for the closing direction.

    Args:
        local: Points between the fingers, gripper's frame. (i, 3)
        normals: Theirs. (i, 3)
        side: Which finger, along y: -1 or 1.
        sight: The line of sight's part along the closing direction.
    """
    if side * sight < -FACING:
        _, normal = _patch(local, normals, side)
        return _friction_between(np.array([0.0, 1, 0]), normal)
    # The outline: its slope against the fingers' height.
    bins = np.floor((local[:, 2] / GRIPPER.height_m + 0.5) * _OUTLINE_BINS).astype(int)
    outermost = [
        np.flatnonzero(bins == one)[np.argmax(side * local[bins == one, 1])]
        for one in np.unique(bins)
    ]
    if len(outermost) < 3:
        return 0.0  # lower than half a finger: nothing to be tilted
    return float(abs(np.polyfit(local[outermost, 2], local[outermost, 1], 1)[0]))


def _patch(local: Float64, normals: Float64, side: float) -> tuple[Float64, Float64]:
    """Mean place and median normal of what a finger touches. (3,), (3,)"""
    y = side * local[:, 1]
    touched = y >= y.max() - PATCH_M
    # Those of a thin object's far side point away from this finger.
    turned = normals[touched] * np.where(normals[touched, 1] * side < 0, -1, 1)[:, None]
    return local[touched].mean(0), np.median(turned, axis=0)


def _friction_between(line: Float64, normal: Float64) -> float:
    """Tangent of the angle between a line and a normal, whichever way they point."""
    length = float(np.linalg.norm(line) * np.linalg.norm(normal))
    cosine = abs(float(line @ normal)) / length if length else 0.0
    return float(np.sqrt(max(1 / cosine**2 - 1, 0.0))) if cosine else np.inf
