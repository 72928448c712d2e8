"""Which of the objects' grasps are in the way of other objects or the table, in one scene.

Dimension legend: n objects, P points, V approaches, A angles, D depths, h grasps that hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.grasp_frames import ANGLES, DEPTHS, VIEWS, inverse_pose
from limpet.training.grasp.scenes.gripper import (
    BASE_M,
    FINGER_M,
    HEIGHT_M,
    MAX_WIDTH_M,
    Bool,
    DistanceGrid,
    Float32,
    collides,
    lowest,
)
from limpet.training.grasp.scenes.labels import GraspLabels, candidates
from limpet.training.grasp.scenes.shapes import Float64

GRIPPER_REACH_M = float(
    np.linalg.norm([BASE_M + FINGER_M + 0.01, MAX_WIDTH_M / 2 + FINGER_M, HEIGHT_M / 2])
)
"""Farthest a gripper's corner is from its grasp's point (the fingertips, at 4 cm, are nearer)."""
GRASPS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Obstacle:
    """What scenes need of an object.

    Attributes:
        points: Of its labels, m. float32 (P, 3)
        numbers: Candidates that hold and are free of the object itself, in C order of
            (P, V, A, D). int32 (h,)
        width: Their openings, m. float32 (h,)
        grid: Its distances.
        radius_m: Farthest vertex from its origin.
    """

    points: Float32
    numbers: NDArray[np.int32]
    width: Float32
    grid: DistanceGrid
    radius_m: float


def obstacle_of(labels: GraspLabels, grid: DistanceGrid, radius_m: float) -> Obstacle:
    """What scenes need of an object's labels."""
    numbers = np.flatnonzero(labels.holds).astype(np.int32)
    return Obstacle(labels.points, numbers, labels.width.ravel()[numbers], grid, radius_m)


def scene_collisions(obstacles: Sequence[Obstacle], poses: Float64) -> list[Bool]:
    """Collision labels of a scene.

    Candidates that do not hold on their own are reported as colliding: nothing asks for them.

    Args:
        obstacles: Of its objects.
        poses: Of its objects in the table's frame, whose top is z = 0. (n, 4, 4)

    Returns:
        For each object whether its candidates meet the table or another object. (P, V, A, D) each
    """
    out = []
    for k, item in enumerate(obstacles):
        shape = (len(item.points), VIEWS, ANGLES, DEPTHS)
        collision = np.ones(int(np.prod(shape)), bool)
        for start in range(0, len(item.numbers), GRASPS_AT_ONCE):
            numbers = item.numbers[start : start + GRASPS_AT_ONCE]
            width = item.width[start : start + GRASPS_AT_ONCE]
            grasps = candidates(item.points, numbers, width).moved(poses[k])
            free = np.flatnonzero(lowest(grasps) > 0)
            for other, obstacle in enumerate(obstacles):
                if other == k or len(free) == 0:
                    continue
                gap = grasps.origin[free] - poses[other, :3, 3].astype(np.float32)
                reach = obstacle.radius_m + GRIPPER_REACH_M
                near = np.flatnonzero(np.einsum("hk,hk->h", gap, gap) < reach**2)
                local = grasps[free[near]].moved(inverse_pose(poses[other]))
                free = np.delete(free, near[collides(local, obstacle.grid)])
            collision[numbers[free]] = False
        out.append(collision.reshape(shape))
    return out
