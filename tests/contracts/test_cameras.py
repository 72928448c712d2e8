"""Depth cameras: their files, what cannot be so, and points that lie where they should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.cameras import (
    FARTHEST_VIEW_M,
    back_project,
    check_intrinsics,
    check_pose,
    metres,
    read_camera,
    stride_for,
)
from limpet.contracts.errors import DataError, ImplausibleError
from limpet.contracts.grasp_frames import poses_of, rotation_of
from tests.table_tops import INTRINSICS, Ball, look_at, render

K = [[630.0, 0, 638.0], [0, 631.0, 366.0], [0, 0, 1]]
POSE = poses_of(rotation_of([0.2, 0.1, 1.0], 0.4), np.array([0.3, -0.1, 0.05]))


def test_a_camera_file_says_everything_that_is_known(tmp_path: Path) -> None:
    file = tmp_path / "camera.json"
    file.write_text(
        json.dumps(
            {
                "intrinsics": K,
                "depth_scale": 0.001,
                "pose_aux_in_ref": POSE.tolist(),
                "pose_camera_in_base": np.eye(4).tolist(),
            }
        )
    )
    camera = read_camera(file)
    np.testing.assert_array_equal(camera.intrinsics, K)
    np.testing.assert_array_equal(camera.intrinsics_aux, K)
    assert camera.depth_scale == 0.001
    assert camera.pose_aux_in_ref is not None
    np.testing.assert_array_equal(camera.pose_aux_in_ref, POSE)
    assert camera.pose_camera_in_base is not None
    file.write_text(json.dumps({"intrinsics": K}))
    assert read_camera(file).depth_scale is None


def test_graspnets_meta_gives_intrinsics_and_the_inverse_of_its_factor(data_dir: Path) -> None:
    camera = read_camera(data_dir / "graspnet_scene" / "meta.mat")
    assert camera.intrinsics[0, 2] == pytest.approx(638.43517329)
    assert camera.depth_scale == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no camera file"),
        ("[1, 2]", "no camera file"),
        ('{"depth_scale": 0.001}', "missing required field `intrinsics`"),
        ('{"intrinsics": [[1, 0, 1], [0, 1, 1], [0, 0, 1]], "scale": 1}', "unknown field `scale`"),
        ('{"intrinsics": [[1, 0, 1], [0, 1, 1]]}', "wanted 3 × 3"),
        ('{"intrinsics": [[1, 0, 1], [0, 1, 1], [0, 0, 1]], "depth_scale": 0}', "depth_scale"),
        (
            '{"intrinsics": [[1, 0, 1], [0, 1, 1], [0, 0, 1]], "pose_aux_in_ref": [[1]]}',
            "pose_aux_in_ref has rows of 1, wanted 4 × 4",
        ),
    ],
)
def test_a_wrong_camera_file_is_refused_by_what_is_wrong(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "camera.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_camera(file)


def test_a_mat_file_of_something_else_is_refused(data_dir: Path) -> None:
    with pytest.raises(DataError, match="wanted GraspNet's intrinsic_matrix"):
        read_camera(next((data_dir / "cwru" / "original").glob("*.mat")))


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1276, 733)])
def test_intrinsics_of_the_image_pass(width: int, height: int) -> None:
    np.testing.assert_array_equal(check_intrinsics(np.array(K), width, height), K)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(4), r"found float64 \[4, 4\]"),
        (np.full((3, 3), np.nan), "not every entry is a number"),
        (np.array(K).T, "looks transposed"),
        (np.eye(3), "field of view"),
        (np.array([[0.0, 0, 638], [0, 630, 366], [0, 0, 1]]), "focal lengths 0 and 630"),
        (np.array([[-630.0, 0, 638], [0, 630, 366], [0, 0, 1]]), "focal lengths -630"),
        (np.array([[630.0, 0, 638], [0, 315, 366], [0, 0, 1]]), "focal lengths 630 and 315"),
        (np.array([[4.0, 0, 638], [0, 4, 366], [0, 0, 1]]), "a focal length of 4 pixels"),
        (np.array([[63000.0, 0, 638], [0, 63000, 366], [0, 0, 1]]), "a field of view of 1.16°"),
        (np.array([[630.0, 0, 1900], [0, 630, 366], [0, 0, 1]]), "outside of an image"),
        # Those of 640 × 480, 1920 × 1080 and 848 × 480 for 1280 × 720.
        (np.array([[616.0, 0, 310], [0, 616, 237], [0, 0, 1]]), "about 620 × 474 pixels"),
        (np.array([[1380.0, 0, 958], [0, 1380, 545], [0, 0, 1]]), "about 1916 × 1090 pixels"),
        (np.array([[420.0, 0, 424], [0, 420, 240], [0, 0, 1]]), "about 848 × 480 pixels"),
    ],
)
def test_intrinsics_that_cannot_be_are_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(ImplausibleError, match=message) as refused:
        check_intrinsics(matrix, 1280, 720)
    assert refused.value.cause == "intrinsics"


def test_a_pose_that_is_rigid_passes_and_its_rotation_becomes_exact() -> None:
    rounded = POSE.round(4)
    pose = check_pose(rounded, "pose_aux_in_ref", "relative_pose", FARTHEST_VIEW_M)
    np.testing.assert_allclose(pose, POSE, atol=2e-4)
    np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)


def _with(value: object, *where: int) -> np.ndarray:
    pose = POSE.copy()
    pose[where] = value
    return pose


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (np.eye(3), r"found float64 \[3, 3\]"),
        (np.zeros((4, 4)), "last row 0, 0, 0, 0"),
        (_with(np.nan, 0, 0), "not every entry is a number"),
        (_with(0.5, 3, 3), "last row 0, 0, 0, 0.5"),
        (POSE.T, "looks transposed"),
        (POSE * np.array([[1.1], [1.1], [1.1], [1]]), "no rotation"),
        (POSE @ np.diag([1.0, 1, -1, 1]), "a reflection"),
        (_with(1, 0, 1), "no rotation"),
        (_with(300.0, 0, 3), "look like millimetres"),
        (_with(7.0, 0, 3), "a translation of 7"),
    ],
)
def test_a_pose_that_is_no_pose_is_refused(pose: np.ndarray, message: str) -> None:
    with pytest.raises(ImplausibleError, match=message) as refused:
        check_pose(pose, "pose_aux_in_ref", "relative_pose", FARTHEST_VIEW_M)
    assert refused.value.cause == "relative_pose"


def test_depth_becomes_metres_by_its_type_or_by_the_scale_that_is_said() -> None:
    millimetres = np.full((48, 64), 450, np.uint16)
    np.testing.assert_allclose(metres(millimetres), 0.45)
    np.testing.assert_allclose(metres(millimetres, 0.0001), 0.045)
    np.testing.assert_allclose(metres(np.full((48, 64), 0.45)), 0.45)
    holes = np.full((48, 64), 0.45, np.float32)
    holes[:5], holes[5:10] = np.nan, np.inf
    assert (metres(holes)[:10] == 0).all()


@pytest.mark.parametrize(
    ("depth", "scale", "cause", "message"),
    [
        (np.zeros((48, 64), np.uint16), None, "depth_empty", "all are 0"),
        (np.full((48, 64), np.nan, np.float32), None, "depth_empty", "all are NaN"),
        (np.full((48, 64), -1.0, np.float32), None, "depth_empty", "negative"),
        (np.zeros((48, 64, 3), np.uint16), None, "depth_empty", r"\[48, 64, 3\]"),
        (np.full((48, 64), 450.0, np.float32), None, "depth_unit", "millimetres given as metres"),
        (np.full((48, 64), 450, np.uint16), 1.0, "depth_unit", "millimetres given as metres"),
        (np.full((48, 64), 0.45, np.float32), 0.001, "depth_unit", "metres scaled once more"),
        (np.full((48, 64), 1, np.uint16), None, "depth_unit", "metres scaled once more"),
    ],
)
def test_depth_that_cannot_be_is_refused(
    depth: np.ndarray, scale: float | None, cause: str, message: str
) -> None:
    with pytest.raises(ImplausibleError, match=message) as refused:
        metres(depth, scale)
    assert refused.value.cause == cause


def test_points_lie_on_what_was_rendered() -> None:
    pose = look_at([0.3, -0.2, 0.5])
    ball = Ball(0.0, 0.0, 0.05)
    points = back_project(render([ball], pose), INTRINSICS).astype(np.float64)
    on_table = points @ pose[:3, :3].T + pose[:3, 3]
    high = on_table[on_table[:, 2] > 0.02]
    assert len(high) > 500
    np.testing.assert_allclose(np.linalg.norm(high - [0, 0, 0.05], axis=1), 0.05, atol=1e-5)
    np.testing.assert_allclose(on_table[np.hypot(*on_table.T[:2]) > 0.2][:, 2], 0, atol=1e-5)


def test_a_pixel_between_near_and_far_is_left_out() -> None:
    depth = np.full((6, 9), 0.5, np.float32)
    depth[:, 4], depth[:, 5:] = 0.65, 0.8  # the fifth column mixes both
    assert len(back_project(depth, INTRINSICS)) == 6 * 8


def test_every_other_pixel_is_the_same_pixel() -> None:
    depth = render([], look_at([0.3, -0.2, 0.5]))
    whole = {tuple(p) for p in back_project(depth, INTRINSICS).tolist()}
    half = {tuple(p) for p in back_project(depth, INTRINSICS, 2).tolist()}
    assert half < whole
    assert len(half) == pytest.approx(len(whole) / 4, rel=0.02)


def test_the_stride_gives_points_about_that_far_apart() -> None:
    depth = np.full((48, 64), 0.5, np.float32)
    assert stride_for(depth, INTRINSICS, 0.5 / 310 * 2) == 2
    assert stride_for(depth, INTRINSICS, 1e-4) == 1
