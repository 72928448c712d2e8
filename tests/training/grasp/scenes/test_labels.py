"""Grasp labels against what can be worked out otherwise.

The box is worked out by hand; a composed object by marching through its analytic distance, without
rays, meshes or grids.
"""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.grasp_frames import ANGLES_RAD, DEPTHS_M, approach_directions, rotation_of
from limpet.training.grasp.scenes.gripper import DistanceGrid, Grasps, collides, lowest
from limpet.training.grasp.scenes.labels import (
    CLEARANCE_M,
    FRICTIONS,
    candidates,
    label_object,
    surface_points,
)
from limpet.training.grasp.scenes.meshes import Mesh, mesh_of
from limpet.training.grasp.scenes.shapes import Capsule, Solid, box

DOWN = np.array([0.0, 0.0, -1.0])


def grasp(
    origin: tuple[float, float, float], rotation: np.ndarray, depth: float, width: float
) -> Grasps:
    columns = [rotation[None, :, k].astype(np.float32) for k in range(3)]
    at = np.array([origin], np.float32)
    return Grasps(at, *columns, np.float32([depth]), np.float32([width / 2]))


def test_distances_on_the_grid_are_those_of_the_box(block_grid: DistanceGrid) -> None:
    grid = block_grid
    points = np.array([[0, 0, 0], [0.03, 0, 0], [0, 0.07, 0.0], [0, 0, 0.05]], np.float32)
    np.testing.assert_allclose(grid.at(points), [-0.02, 0.01, 0.01, 0.01], atol=0.0018)
    assert grid.at(np.array([[1.0, 1.0, 1.0]], np.float32)) > 0.025


@pytest.mark.parametrize(
    ("width", "depth", "height", "hits"),
    [
        (0.05, 0.02, 0.04, False),  # fingers along the sides, base above
        (0.0445, 0.02, 0.04, False),  # 2 mm off either side
        (0.035, 0.02, 0.04, True),  # fingers in the box
        (0.05, 0.03, 0.015, True),  # base in the box
        (0.035, 0.01, 0.053, False),  # above the box
        (0.035, 0.01, 0.047, True),
    ],
)
def test_the_gripper_meets_the_box_where_it_should(
    block_grid: DistanceGrid, width: float, depth: float, height: float, hits: bool
) -> None:
    rotation = np.stack([DOWN, [1.0, 0, 0], np.cross(DOWN, [1.0, 0, 0])], axis=1)
    found = collides(grasp((0, 0, height), rotation, depth, width), block_grid)
    assert found.tolist() == [hits]


def test_lowest_is_the_lowest_corner_of_fingers_and_base(rng: np.random.Generator) -> None:
    for _ in range(20):
        axis = rng.normal(size=3)
        rotation = rotation_of(axis, rng.uniform(0, np.pi))
        width, depth = rng.uniform(0.02, 0.1), rng.uniform(0.01, 0.04)
        corners = [
            rotation @ [x, y, z]
            for x in (-0.03, depth)
            for y in (-width / 2 - 0.01, width / 2 + 0.01)
            for z in (-0.01, 0.01)
        ]
        found = lowest(grasp((0.1, 0.2, 0.3), rotation, depth, width))
        np.testing.assert_allclose(found, 0.3 + np.min(corners, axis=0)[2], atol=1e-6)


def test_points_lie_on_the_surface_far_apart_and_do_not_change(block: Mesh) -> None:
    points = surface_points(block, 3)
    assert 64 <= len(points) <= 192
    outside = np.abs(points) - [0.02, 0.06, 0.04]
    np.testing.assert_allclose(outside.max(axis=1), 0, atol=0.0016)
    gaps = np.linalg.norm(points[:, None] - points, axis=-1) + np.eye(len(points))
    assert gaps.min() > 0.005
    np.testing.assert_array_equal(points, surface_points(block, 3))


def test_a_box_is_held_across_its_narrow_sides_and_no_others(
    block: Mesh, block_grid: DistanceGrid
) -> None:
    point = np.array([[0.0, 0.01, 0.04]], np.float32)  # on top
    labels = label_object(block, block_grid, point)
    rotation = rotation_of(approach_directions()[:, None], ANGLES_RAD)  # (V, A, 3, 3)
    across = np.abs(rotation[..., 0, 1])  # of x and the closing direction
    downwards = -rotation[..., 2, 0]
    tangent = np.sqrt(1 - across**2) / np.maximum(across, 1e-9)
    steep = downwards > 0.9  # from above, neither end nor base is in the way
    for k, mu in enumerate(FRICTIONS[:3]):
        below = FRICTIONS[k - 1] if k else 0.0
        aligned = steep & (tangent > below + 0.02) & (tangent < mu - 0.02)
        assert aligned.any()
        found = labels.friction[0][aligned][:, 1]  # 2 cm down, where no line leaves by the top
        assert np.unique(found).tolist() == [round(10 * mu)]
    straight = steep & (tangent < 0.18)
    assert straight.any()
    assert labels.holds[0][straight][:, 1].all()
    assert not labels.holds[0][across < 0.5].any()  # 12 cm is too wide
    # Fingers open alike, so a middle that is off the box's middle needs a wider opening.
    middle_x = DEPTHS_M[1] * rotation[..., 0, 0]
    needed = 2 * (0.02 + np.abs(middle_x)) / np.maximum(across, 0.1) + 2 * CLEARANCE_M
    np.testing.assert_allclose(labels.width[0][straight][:, 1], needed[straight], atol=0.001)


def march(bodies: list[Solid], start: np.ndarray, step: np.ndarray) -> tuple[float, np.ndarray]:
    """Way to the first surface along a unit direction, and the outward normal there."""

    def distance(points: np.ndarray) -> np.ndarray:
        return np.min([body.distance(points) for body in bodies], axis=0)

    ways = np.arange(0.0, 0.11, 0.00025)
    inside = distance(start + ways[:, None] * step) < 0
    if not inside.any():
        return np.inf, step
    way = ways[np.argmax(inside)]
    spot = start + way * step
    moved = np.eye(3) * 1e-4
    gradient = distance(spot + moved) - distance(spot - moved)
    return float(way), gradient / np.linalg.norm(gradient)


def test_labels_agree_with_marching_through_the_analytic_shape(rng: np.random.Generator) -> None:
    """A bar with a ball at its end; the labels of the middle line alone."""
    bodies: list[Solid] = [
        Capsule(np.array([-0.05, 0, 0]), np.array([0.05, 0, 0]), 0.012),
        Capsule(np.array([0.05, 0, 0]), np.array([0.0501, 0, 0]), 0.026),
        box((-0.05, 0, 0.01), (0.02, 0.05, 0.03)),
    ]
    mesh, _ = mesh_of(bodies, 0.001)
    points = surface_points(mesh, 0)[:20]
    labels = label_object(mesh, DistanceGrid(mesh), points, spread_m=0.0)
    holding = np.flatnonzero(labels.friction)
    which = rng.choice(holding, 120, replace=False)
    grasps = candidates(points, which, labels.width.ravel()[which])
    agree = 0
    for k in range(len(which)):
        middle = grasps.origin[k] + grasps.depth[k] * grasps.approach[k]
        tangents = []
        for side in (-1.0, 1.0):
            outwards = side * grasps.closing[k].astype(np.float64)
            way, normal = march(bodies, middle + grasps.half[k] * outwards, -outwards)
            assert way <= grasps.half[k] + 0.001
            cos = abs(float(normal @ outwards))
            tangents.append(np.sqrt(1 - cos**2) / cos)
        needed = max(tangents)
        truth = next((mu for mu in FRICTIONS if needed <= mu), 0.0)
        # At a step of friction, or at an edge of the shape, either may be right.
        agree += abs(truth - labels.friction.ravel()[which[k]] / 10) < 0.21
    assert agree / len(which) > 0.96


def test_free_grasps_are_clear_of_the_object_and_colliding_ones_are_not(
    rng: np.random.Generator,
) -> None:
    """Points of the object, 1 mm apart, against the gripper's boxes; to the millimetre."""
    bodies = [box((0, 0, 0), (0.03, 0.08, 0.03)), box((0, 0.03, 0.03), (0.03, 0.02, 0.06))]
    mesh, _ = mesh_of(bodies)
    points = surface_points(mesh, 0)[:16]
    labels = label_object(mesh, DistanceGrid(mesh), points)
    low, high = mesh.vertices.min(axis=0) - 0.002, mesh.vertices.max(axis=0) + 0.002
    axes = [np.arange(a, b, 0.001) for a, b in zip(low, high, strict=True)]
    dense = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 3)
    distance = np.min([body.distance(dense) for body in bodies], axis=0)

    def touched(holding: np.ndarray, within_m: float) -> list[bool]:
        number = rng.choice(np.flatnonzero(holding), 80, replace=False)
        grasps = candidates(points, number, labels.width.ravel()[number])
        body = dense[distance < within_m]
        out = []
        for k in range(len(number)):
            rotation = np.stack([grasps.approach[k], grasps.closing[k], grasps.height[k]], axis=1)
            x, y, z = ((body - grasps.origin[k]) @ rotation).T
            half, depth = grasps.half[k], grasps.depth[k]
            tall, outer = np.abs(z) < 0.01, np.abs(y) < half + 0.01
            finger = (x > -0.02) & (x < depth) & (np.abs(y) > half)
            out.append(bool((tall & outer & (finger | ((x > -0.03) & (x < -0.02)))).any()))
        return out

    assert not any(touched(labels.holds, -0.001))
    assert all(touched((labels.friction > 0) & labels.collision, 0.001))


def test_closure_around_the_tips_is_never_more_lenient_than_on_the_line(
    block: Mesh, block_grid: DistanceGrid
) -> None:
    points = surface_points(block, 1)[:8]
    line = label_object(block, block_grid, points, spread_m=0.0)
    pad = label_object(block, block_grid, points)
    both = (pad.friction > 0) & (line.width == pad.width)
    assert both.any()
    assert (pad.friction[both] >= line.friction[both]).all()
    assert pad.holds.sum() < line.holds.sum()
    np.testing.assert_allclose(DEPTHS_M, [0.01, 0.02, 0.03, 0.04])
