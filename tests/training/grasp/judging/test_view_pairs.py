from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.grasp_frames import inverse_pose, transform_points
from limpet.training.grasp.graspnet import GraspNet
from limpet.training.grasp.judging.view_pairs import (
    ViewPair,
    corners,
    is_seen,
    view_pairs,
    visible_share,
)
from tests.training.grasp.layouts import (
    LATTICE,
    Labelled,
    looking_down,
    standing,
    write_objects,
    write_scene,
)

EXTENT = (0.05, 0.05, 0.05)
TOP, BELOW, SIDE = [0.0, 0, 0.025], [0.0, 0, -0.024], [0.025, 0, 0.0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GraspNet:
    root = tmp_path_factory.mktemp("graspnet")
    scores = np.full((3, *LATTICE), -1.0)
    scores[:2, 0, 0, 0] = 0.4  # the point at the side cannot be grasped
    objects = {1: Labelled(EXTENT, np.array([TOP, BELOW, SIDE]), scores)}
    write_objects(root, objects)
    cameras = [
        looking_down(0.5),
        looking_down(0.5, shift_m=0.05, tilt_rad=0.1),
        looking_down(0.4, shift_m=-0.3, tilt_rad=-0.7),
    ]
    write_scene(root, 100, objects, {1: standing(0.025)}, cameras)
    return GraspNet(root, cache=root / "cache")


def test_a_point_is_seen_unless_it_is_behind_something_or_outside_the_image(
    data: GraspNet,
) -> None:
    frame = data.frame(100, 0)
    in_table = np.array(
        [[0, 0, 0.05], [0, 0, 0.001], [0.1, 0, 0], [3.0, 0, 0], [0, 0, 1.0], [0, 0, 0.2]]
    )
    points = transform_points(in_table, inverse_pose(frame.pose_camera_in_table))
    # Top of the box, under it, table beside it, far outside, behind the camera, in the free air.
    assert is_seen(points, frame).tolist() == [True, False, True, False, False, True]


def test_visible_is_the_share_of_the_points_that_could_be_grasped(data: GraspNet) -> None:
    assert visible_share(data, data.frame(100, 0)) == 0.5


def test_the_auxiliary_view_looks_most_squarely_from_the_side(data: GraspNet) -> None:
    pairs = view_pairs(data, 100)
    assert [(pair.reference, pair.auxiliary) for pair in pairs] == [(0, 2), (1, 2), (2, 1)]
    assert [pair.reference for pair in view_pairs(data, 100, views=2)] == [0, 1]


def test_corners_are_the_fifth_of_the_views_that_see_least() -> None:
    shares = [0.5, 0.2, 0.9, 0.3, 0.4, 0.6, 0.7, 0.8, 0.55, 0.65]
    pairs = [
        ViewPair(scene=100, reference=view, auxiliary=None, visible=share)
        for view, share in enumerate(shares)
    ]
    assert corners(pairs) == {(100, 1), (100, 3)}
    assert corners(pairs[:2]) == {(100, 1)}
    assert corners([]) == set()


def test_real_scenes_need_their_camera(tmp_path: Path) -> None:
    from limpet.contracts.errors import DataError
    from limpet.training.grasp.judging.real_scenes import find_real_scenes, read_real_scene

    np.savez(tmp_path / "scene.npz", depth=np.ones((4, 4), np.float32))
    assert find_real_scenes(tmp_path) == [tmp_path / "scene.npz"]
    with pytest.raises(DataError, match="has no intrinsics_matrix"):
        read_real_scene(tmp_path / "scene.npz")
    assert find_real_scenes(tmp_path / "nowhere") == []
