"""Grasps that the table or a neighbour is in the way of."""

from __future__ import annotations

import numpy as np

from limpet.training.grasp.scenes.gripper import DistanceGrid, lowest
from limpet.training.grasp.scenes.labels import candidates, label_object
from limpet.training.grasp.scenes.meshes import Mesh
from limpet.training.grasp.scenes.scene_collisions import obstacle_of, scene_collisions


def test_table_and_neighbour_take_grasps_and_no_others(
    block: Mesh, block_grid: DistanceGrid
) -> None:
    grid = block_grid
    points = np.array([[0, 0, 0.04], [0.02, 0.0, 0.0], [0.0, 0.06, 0.0]], np.float32)
    labels = label_object(block, grid, points)
    item = obstacle_of(labels, grid, 0.08)
    standing = np.eye(4)
    standing[2, 3] = 0.04
    (alone,) = scene_collisions([item], standing[None])
    grasps = candidates(points, item.numbers, item.width).moved(standing)
    np.testing.assert_array_equal(~alone.ravel()[item.numbers], lowest(grasps) > 0)
    assert alone.ravel()[labels.friction.ravel() == 0].all()
    free = ~alone & labels.holds
    assert free.any()
    assert (alone & labels.holds).any()

    beside = standing.copy()
    beside[0, 3] = 0.055  # 1.5 cm between the boxes: no room for a finger and its clearance
    crowded, other = scene_collisions([item, item], np.stack([standing, beside]))
    assert (crowded | ~alone).all()  # a neighbour only ever takes
    assert (~crowded).sum() < 0.5 * free.sum()
    np.testing.assert_allclose((~crowded).sum(), (~other).sum(), rtol=0.6)
    # What is left next to the neighbour does not reach between the boxes.
    kept = candidates(points, np.flatnonzero(~crowded), labels.width[~crowded]).moved(standing)
    for side in (-1.0, 1.0):
        tips = kept.origin + kept.depth[:, None] * kept.approach
        tips = tips + side * (kept.half[:, None] + 0.005) * kept.closing
        within = np.abs(tips - [0.055, 0, 0.04]) < [0.018, 0.058, 0.038]
        assert not within.all(axis=1).any()

    away = standing.copy()
    away[0, 3] = 0.4
    far, _ = scene_collisions([item, item], np.stack([standing, away]))
    np.testing.assert_array_equal(far, alone)
