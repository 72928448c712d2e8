from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.cameras import back_project
from limpet.contracts.clouds import CloudPreprocessing, depth_points, prepare
from limpet.contracts.grasp_frames import rotation_of
from limpet.contracts.grasps import suppress
from limpet.training.grasp.judging.antipodal import AntipodalConfig, sample_antipodal
from limpet.training.grasp.judging.average_precision import gripper_points
from limpet.training.grasp.judging.normals import estimate_normals
from limpet.training.grasp.judging.observed import contact_friction, free_of, judge_observed
from tests.training.grasp.layouts import box_mesh

Float64 = NDArray[np.float64]
AHEAD = np.array([0.0, 0.0, 0.5])  # where the box is, in front of the camera


def cloud() -> Float64:
    """All sides of a box, 3 mm apart, as if cameras had been everywhere."""
    return np.asarray(box_mesh((0.06, 0.03, 0.05), spacing_m=0.003).vertices) + AHEAD


def seen(points: Float64, extent: tuple[float, float, float] = (0.06, 0.03, 0.05)) -> Float64:
    """The points of a box's sides that face the camera."""
    outward = np.where(np.abs(np.abs(points - AHEAD) * 2 / extent - 1) < 1e-6, points - AHEAD, 0)
    return points[(np.sign(outward) * points < 0).any(1)]


def grasp(*, y: float = 0.0, turn: float = 0.0, width: float = 0.05, score: float = 0.5) -> Float64:
    """Along the line of sight, 1 cm into the box; at turn 0 it closes along y."""
    row = np.zeros(17)
    row[:4], row[16] = (score, width, 0.02, 0.02), -1
    row[4:13] = rotation_of([0.0, 0.0, 1.0], turn).ravel()
    row[13:16] = [0, y, AHEAD[2] - 0.03]
    return row


def test_normals_of_a_plane_are_its_own_and_point_to_the_camera() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-0.05, 0.05, (2000, 2)), np.full((2000, 1), 0.5)], 1)
    points[:, 2] += 0.3 * points[:, 0]
    normals = estimate_normals(points)
    wanted = np.array([0.3, 0, -1]) / np.hypot(1, 0.3)
    np.testing.assert_allclose(normals, np.tile(wanted, (2000, 1)), atol=1e-6)
    alone = estimate_normals(np.concatenate([points, [[5.0, 0, 0.5]]]))
    assert np.isnan(alone[-1]).all()
    assert np.isfinite(alone[:-1]).all()


def test_square_to_parallel_faces_little_friction_is_needed() -> None:
    rows = np.stack([grasp(), grasp(turn=np.arctan(0.3)), grasp(turn=np.pi / 4, width=0.1)])
    strict, as_seen = contact_friction(rows, cloud())
    assert strict[0] < 0.1
    assert as_seen[0] < 0.1
    # Square to the sight, sides are judged by their outline: its slope is the turn's tangent.
    assert as_seen[1] == pytest.approx(0.3, abs=0.1)
    assert as_seen[2] > 0.4


def test_of_a_side_that_was_not_seen_only_the_outline_counts() -> None:
    whole = cloud()
    front = seen(whole)
    assert 0.1 < len(front) / len(whole) < 0.4
    strict, as_seen = contact_friction(np.stack([grasp(), grasp(turn=np.pi / 4, width=0.1)]), front)
    assert as_seen[0] < 0.1
    assert as_seen[1] > 0.4
    assert strict.shape == (2,)


def test_nothing_between_the_fingers_needs_infinite_friction() -> None:
    strict, as_seen = contact_friction(grasp(y=0.2)[None], cloud())
    assert np.isinf(strict).all()
    assert np.isinf(as_seen).all()


def test_a_point_inside_a_finger_is_a_collision() -> None:
    # The right finger covers y of 2.5 to 3.5 cm.
    rows = grasp()[None]
    assert free_of(rows, cloud()).all()
    assert not free_of(rows, np.concatenate([cloud(), [[0, 0.03, 0.47]]])).any()
    assert free_of(rows, np.concatenate([cloud(), [[0, 0.036, 0.47]]])).all()


def test_missing_grasps_fail() -> None:
    figures = judge_observed(grasp()[None], cloud(), cloud())
    assert figures.grasps == 1
    assert (figures.free, figures.antipodal, figures.free_antipodal) == (0.02, 0.02, 0.02)
    assert judge_observed(np.zeros((0, 17)), cloud(), cloud()).free == 0
    # Nearly the same grasp twice is one.
    twice = np.stack([grasp(), grasp(score=0.4)])
    assert judge_observed(twice, cloud(), cloud()).grasps == 1


def test_the_sampler_grasps_a_box_that_is_seen_from_all_sides() -> None:
    up = np.array([0.0, 0, -1])
    points = cloud()
    normals = estimate_normals(points, viewpoint=AHEAD) * -1  # out of the box
    few = AntipodalConfig(anchors=100, pairs=100)
    rows = sample_antipodal(points, points, up, few, normals)
    assert rows.shape[1] == 17
    assert len(rows) >= 5
    assert (np.diff(rows[:, 0]) <= 0).all()
    assert len(suppress(rows)) == len(rows)
    assert not gripper_points(rows, points)[0].any()
    rotation = rows[:, 4:13].reshape(-1, 3, 3)
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (len(rows), 1, 1)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    assert (rotation[:, :, 0] @ up < 0).all()  # none from below the table
    strict, _ = contact_friction(rows[:5], points, normals)
    assert (strict < 0.4).all()
    again = sample_antipodal(points, points, up, few, normals)
    np.testing.assert_array_equal(rows, again)


def test_without_points_there_is_no_grasp() -> None:
    none = sample_antipodal(np.zeros((0, 3)), cloud(), np.array([0.0, 0, -1]))
    assert none.shape == (0, 17)


def test_what_the_real_scenes_call_the_smoothed_object_lies_on_the_depth_image(
    data_dir: Path,
) -> None:
    # It is in the camera's frame, and it is what the camera saw, not the whole object.
    for file in sorted((data_dir / "grasp_scenes").glob("*.npz")):
        with np.load(file, allow_pickle=False) as scene:
            points, depth = scene["smoothed_object_pc"], scene["depth"]
            pixels = points @ scene["intrinsics_matrix"].T
        columns, rows = np.rint(pixels[:, :2] / pixels[:, 2:]).astype(int).T
        off = np.abs(points[:, 2] - depth[rows, columns])
        assert np.nanmean(off < 0.002) > 0.99, file


def test_the_sampler_keeps_off_what_was_seen_of_a_real_scene(data_dir: Path) -> None:
    with np.load(data_dir / "grasp_scenes" / "cylinder.npz", allow_pickle=False) as scene:
        depth = np.nan_to_num(scene["depth"]).astype(np.float32)
        intrinsics = scene["intrinsics_matrix"].astype(np.float64)
        target = scene["smoothed_object_pc"].astype(np.float64)
    how = CloudPreprocessing()
    ready = prepare([depth_points(depth, intrinsics, how)], [np.eye(4)], how)
    assert ready.points is not None
    assert ready.plane is not None
    points = ready.points.reshape(-1, 3)
    points = points[ready.plane.heights(points) > how.lowest_m]
    rows = sample_antipodal(points, ready.observed, ready.plane.normal)
    figures = judge_observed(rows, ready.observed, target)
    assert figures.free == pytest.approx(figures.grasps / 50)
    assert figures.grasps >= 25
    assert len(back_project(depth, intrinsics, 1)) > 1000
