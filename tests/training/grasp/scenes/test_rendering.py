"""Depth and labels from known places, and what a sensor makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from limpet.training.grasp.scenes.meshes import Mesh
from limpet.training.grasp.scenes.rendering import DepthCamera, SceneView, View, hemisphere
from limpet.training.grasp.scenes.sensor import DepthNoise, PoseError, known_poses, measure

CAMERA = DepthCamera(width=160, height=90, focal_px=116.0)
SILENT = DepthNoise(
    disparity_px=0.0, step_px=1e-4, lateral_px=0.0, edge_loss=0.0, grazing_cos=1e-9, holes=0.0,
    speckle=0.0,
)  # fmt: skip


@pytest.fixture
def scene(block: Mesh) -> SceneView:
    """The box of 4 × 12 × 8 cm, standing on the table at the origin."""
    pose = np.eye(4)
    pose[2, 3] = 0.04
    return SceneView([block], pose[None])


def in_table(view: View, camera: DepthCamera, pose: np.ndarray) -> np.ndarray:
    """Points of all pixels in the table's frame. (H, W, 3)"""
    rows, columns = np.indices(view.depth.shape)
    k = camera.intrinsics
    x = (columns - k[0, 2]) / k[0, 0] * view.depth
    y = (rows - k[1, 2]) / k[1, 1] * view.depth
    points = np.stack([x, y, view.depth], axis=-1)
    return np.asarray(points @ pose[:3, :3].T + pose[:3, 3])


def test_depth_put_back_lies_on_what_its_label_says(
    scene: SceneView, rng: np.random.Generator
) -> None:
    for pose in hemisphere(4, rng):
        view = scene.look(CAMERA, pose)
        points = in_table(view, CAMERA, pose)
        on_table, on_box = points[view.labels == 0], points[view.labels == 1]
        assert len(on_box) > 100
        np.testing.assert_allclose(on_table[:, 2], 0, atol=1e-4)
        outside = np.abs(on_box - [0, 0, 0.04]) - [0.02, 0.06, 0.04]
        assert np.percentile(np.abs(outside.max(axis=1)), 95) < 1e-3


def test_cameras_look_at_the_clutter_from_a_hemisphere(rng: np.random.Generator) -> None:
    poses = hemisphere(8, rng)
    towards = np.array([0, 0, 0.03]) - poses[:, :3, 3]
    distance = np.linalg.norm(towards, axis=1)
    assert distance.min() > 0.35
    assert distance.max() < 0.75
    up = np.degrees(np.arcsin(-towards[:, 2] / distance))
    assert 25 < up.min() < 40
    assert 60 < up.max() < 75
    ahead = np.einsum("nk,nk->n", poses[:, :3, 2], towards / distance[:, None])
    assert ahead.min() > np.cos(np.radians(7))
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1)
    assert (poses[:, 2, 1] < 0).all()  # image rows go downwards


def test_without_noise_the_sensor_tells_the_truth_where_both_imagers_see(
    scene: SceneView, rng: np.random.Generator
) -> None:
    view = scene.look(CAMERA, hemisphere(1, rng)[0])
    measured = measure(view, CAMERA, SILENT, rng) / 1000
    np.testing.assert_array_equal(measured > 0, view.matched)
    error = np.abs(measured - view.depth)[view.matched & (view.depth < 1)]
    assert error.max() < 0.0006


def test_a_shadow_of_the_right_imager_lies_left_of_the_object(
    scene: SceneView, rng: np.random.Generator
) -> None:
    """Seen from straight above, table just left of the box is hidden from the right imager."""
    pose = np.eye(4)
    pose[:3, :3] = np.stack([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]], axis=1)
    pose[:3, 3] = (0, 0, 0.5)
    view = scene.look(CAMERA, pose)
    row = view.labels.shape[0] // 2
    box = np.flatnonzero(view.labels[row] == 1)
    # 5 cm of baseline and a box that covers 8 of 50 cm: 8 / 42 of 5 cm at the table.
    expected = 0.05 * 0.08 / 0.42 / 0.5 * CAMERA.focal_px
    assert (~view.matched[row, : box[0]]).sum() == pytest.approx(expected, abs=1.5)
    assert view.matched[row, box[-1] + 1 :].all()


def flat(depth_m: float, cos: float = 1.0) -> View:
    shape = (120, 160)
    return View(
        np.full(shape, depth_m, np.float32),
        np.zeros(shape, np.uint8),
        np.full(shape, cos, np.float32),
        np.ones(shape, bool),
    )


def test_noise_grows_with_the_square_of_range(rng: np.random.Generator) -> None:
    noise = DepthNoise(lateral_px=0.0, holes=0.0, speckle=0.0, step_px=1e-4)
    camera = DepthCamera()
    spread = [measure(flat(z), camera, noise, rng).std() / 1000 for z in (0.5, 1.0)]
    truth = [z**2 * noise.disparity_px / (camera.focal_px * camera.baseline_m) for z in (0.5, 1.0)]
    np.testing.assert_allclose(spread, truth, rtol=0.1)


def test_disparity_is_quantised(rng: np.random.Generator) -> None:
    noise = DepthNoise(lateral_px=0.0, holes=0.0, speckle=0.0, step_px=0.5)
    levels = np.unique(measure(flat(1.0), DepthCamera(), noise, rng))
    assert len(levels) <= 3
    assert np.diff(levels).min() > 15  # z² / (f b) · 0.5 = 21 mm


@pytest.mark.parametrize(("cos", "lost"), [(0.5, 0.0), (0.15, 0.5), (0.03, 0.9)])
def test_grazing_surfaces_return_little(cos: float, lost: float, rng: np.random.Generator) -> None:
    noise = DepthNoise(holes=0.0)
    measured = measure(flat(0.5, cos), DepthCamera(), noise, rng)
    assert (measured == 0).mean() == pytest.approx(lost, abs=0.03)


def test_edges_and_holes_return_nothing(rng: np.random.Generator) -> None:
    view = flat(0.5)
    view.depth[:, 80:] = 0.6
    lost = measure(view, DepthCamera(), DepthNoise(holes=0.0), rng) == 0
    assert 0.4 < lost[:, 79:81].mean() < 0.6
    assert not lost[:, :78].any()
    holes = measure(flat(0.5), DepthCamera(), DepthNoise(holes=0.02), rng) == 0
    assert holes.mean() == pytest.approx(0.02, abs=0.002)


def test_the_same_generator_gives_the_same_image() -> None:
    first, second = (
        measure(flat(0.5), CAMERA, DepthNoise(), np.random.default_rng(4)) for _ in range(2)
    )
    assert first.dtype == np.uint16
    np.testing.assert_array_equal(first, second)


def test_one_known_pose_errs_from_another_as_much_as_is_asked_for(
    rng: np.random.Generator,
) -> None:
    cameras = hemisphere(4000, rng)
    known = known_poses(cameras, PoseError(turn_deg=0.5, shift_m=0.003), rng)
    one, other = slice(0, 2000), slice(2000, 4000)
    true = np.linalg.inv(cameras[one]) @ cameras[other]
    off = np.linalg.inv(true) @ (np.linalg.inv(known[one]) @ known[other])
    turn = np.degrees(Rotation.from_matrix(off[:, :3, :3]).magnitude())
    assert np.sqrt(np.mean(turn**2)) == pytest.approx(0.5, rel=0.05)
    # The first camera's turn moves the second, which is up to 1.2 m away, as well.
    still = known_poses(cameras, PoseError(turn_deg=0.0, shift_m=0.003), rng)
    moved = np.linalg.inv(still[one]) @ still[other]
    assert np.std(moved[:, :3, 3] - true[:, :3, 3]) == pytest.approx(0.003, rel=0.05)


def test_no_error_leaves_poses_as_they_are(rng: np.random.Generator) -> None:
    cameras = hemisphere(3, rng)
    np.testing.assert_allclose(
        known_poses(cameras, PoseError(turn_deg=0.0, shift_m=0.0), rng), cameras
    )
