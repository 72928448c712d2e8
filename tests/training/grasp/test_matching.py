from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.grasp_frames import (
    ANGLES_RAD,
    approach_directions,
    inverse_pose,
    rotation_between_rad,
    rotation_of,
    transform_points,
)
from limpet.training.grasp.graspnet import GraspNet
from limpet.training.grasp.matching import Matcher, score_of
from limpet.training.grasp.targets import SceneLabels
from tests.training.grasp.layouts import (
    LATTICE,
    Labelled,
    looking_down,
    standing,
    write_objects,
    write_scene,
)

EXTENT = (0.05, 0.03, 0.04)
POINTS = np.array([[0.02, 0.0, 0.02], [-0.02, 0.0, 0.02], [0.0, 0.015, 0.0]])


def turned(z_m: float, yaw: float, x_m: float = 0.0) -> NDArray[np.float64]:
    pose = standing(z_m, x_m)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    return pose


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GraspNet:
    root = tmp_path_factory.mktemp("graspnet")
    rng = np.random.default_rng(1)
    scores = np.full((3, *LATTICE), -1.0)
    scores[0] = rng.choice([-1.0, 0.2, 0.6, 1.2], size=LATTICE)
    scores[2, :, 0] = 0.4
    collides = np.zeros((3, *LATTICE), np.bool_)
    collides[0, :, :, 3] = True
    objects = {
        1: Labelled(EXTENT, POINTS, scores, 0.045),
        4: Labelled((0.03, 0.03, 0.03), np.zeros((1, 3)), np.full((1, *LATTICE), 0.2), 0.12),
    }
    write_objects(root, objects)
    poses = {1: turned(0.02, 0.7), 4: standing(0.015, x_m=0.12)}
    cameras = [looking_down(0.5), looking_down(0.45, tilt_rad=0.3)]
    write_scene(root, 0, objects, poses, cameras, collisions={1: collides})
    return GraspNet(root, cache=root / "cache")


def test_a_point_belongs_to_the_nearest_surface_within_the_tolerance(data: GraspNet) -> None:
    frame = data.frame(0, 1)
    in_table = np.array(
        [
            [0.0, 0.0, 0.042],  # 2 mm above the first box
            [0.12, 0.0, 0.03],  # on the second box
            [0.3, 0.3, 0.0],  # on the table
            [0.137, 0.0, 0.001],  # 2 mm beside the second box, but 1 mm above the table
            [0.137, 0.0, 0.01],  # 2 mm beside it, well above the table
            [0.0, 0.0, 0.06],  # in the air
        ]
    )
    points = transform_points(in_table, inverse_pose(frame.pose_camera_in_table))
    found = Matcher(data).match(frame, points)
    assert found.object_index.tolist() == [0, 1, -1, -1, 1, -1]
    assert found.objectness.tolist() == [True, True, False, False, True, False]
    assert found.grasp_point.tolist()[1:] == [0, -1, -1, 0, -1]


def test_graspness_is_the_share_of_the_nearest_point_scaled_over_the_view(data: GraspNet) -> None:
    frame = data.frame(0, 0)
    points = transform_points(POINTS, frame.pose_object_in_camera[0])
    table = transform_points(np.array([[0.3, 0.3, 0]]), inverse_pose(frame.pose_camera_in_table))
    found = Matcher(data).match(frame, np.concatenate([points, table]))
    assert found.grasp_point.tolist() == [0, 1, 2, -1]
    # Point 0: half its candidates hold at up to 0.8, three depths of four are free: 0.375.
    # Point 1: none. Point 2: one turn in twelve, 0.083.
    np.testing.assert_allclose(found.graspness, [1, 0, (1 / 12) / 0.375, 0], atol=0.01)


def test_scores_fall_with_the_friction_that_is_needed() -> None:
    scores = score_of(np.array([0, 1, 2, 12], np.uint8))
    np.testing.assert_allclose(scores, [0, 1, 11 / 12, 1 / 12], rtol=1e-6)


@pytest.mark.parametrize("view", [0, 1])
def test_a_label_grasp_comes_back_in_the_cameras_frame(data: GraspNet, view: int) -> None:
    frame, labels = data.frame(0, view), SceneLabels(data, 0)
    pose = frame.pose_object_in_camera[0]
    found = Matcher(data).match(frame, transform_points(POINTS, pose))
    chosen, rotations = np.array([0, 2]), frame.pose_object_in_camera[:, :3, :3]
    sources, views = labels.sources(rotations), np.tile(np.arange(300), (2, 1))
    owner, point = found.object_index[chosen], found.grasp_point[chosen]
    graded = labels.grade(owner, point, views, sources, rotations)
    friction, free = data.labels(1).friction, ~data.collisions(0)[0]
    mine = approach_directions()
    worst = 0.0
    for direction in range(0, 300, 7):
        for turn in range(12):
            was = (sources[0, direction], turn)
            # The label's own grasp, by the object's pose.
            wanted = pose[:3, :3] @ rotation_of(mine[was[0]], ANGLES_RAD[turn])
            exact = graded.frames[0, direction] @ rotation_of([1, 0, 0], ANGLES_RAD[turn])
            assert _apart(exact, wanted) < 1e-3
            worst = max(worst, np.arccos(np.clip(wanted[:, 0] @ mine[direction], -1, 1)))
            for row, point_index in enumerate((0, 2)):
                expected = score_of(friction[point_index][was]) * free[point_index][was]
                np.testing.assert_allclose(graded.score[row, direction, turn], expected)
    assert worst < np.deg2rad(8.5)  # the distance to the nearest of 300 directions
    np.testing.assert_allclose(graded.width_m, 0.045, atol=1e-4)


def _apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Angle between two grippers, whose fingers can be swapped."""
    swapped = second @ np.diag([1.0, -1, -1])
    return float(min(rotation_between_rad(first, second), rotation_between_rad(first, swapped)))


def test_without_an_object_or_beyond_the_grippers_width_nothing_holds(data: GraspNet) -> None:
    frame, labels = data.frame(0, 0), SceneLabels(data, 0)
    in_table = np.array([[0.3, 0.3, 0.0], [0.12, 0.0, 0.03]])
    points = transform_points(in_table, inverse_pose(frame.pose_camera_in_table))
    found = Matcher(data).match(frame, points)
    assert found.object_index.tolist() == [-1, 1]
    rotations = frame.pose_object_in_camera[:, :3, :3]
    views, sources = np.tile(np.arange(300), (2, 1)), labels.sources(rotations)
    graded = labels.grade(found.object_index, found.grasp_point, views, sources, rotations)
    assert not graded.score.any()
    np.testing.assert_allclose(
        graded.frames[0], rotation_of(approach_directions(), np.zeros(300)), atol=1e-6
    )
