"""From depth to a model's points, on tables worked out by hand and on the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.cameras import back_project, metres, read_camera
from limpet.contracts.clouds import (
    FEWEST_POINTS,
    CloudPreprocessing,
    check_cloud,
    depth_points,
    prepare,
)
from limpet.contracts.depth_files import read_depth
from limpet.contracts.errors import ImplausibleError
from limpet.contracts.grasp_frames import inverse_pose, transform_points
from tests.table_tops import INTRINSICS, Ball, Box, look_at, render

HOW = CloudPreprocessing()
THINGS = [
    Ball(0.02, -0.03, 0.04),
    Box(-0.1, 0.05, (0.06, 0.08, 0.1)),
    Box(0.12, 0.08, (0.05, 0.03, 0.04)),
]
EYE = look_at([0.35, -0.3, 0.5])
AUX = look_at([-0.4, -0.2, 0.45])


def _cloud(things: list[Ball | Box], pose: np.ndarray) -> np.ndarray:
    return back_project(render(things, pose), INTRINSICS)


def _heights(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    return transform_points(points.astype(np.float64), pose)[..., 2]


def test_candidates_stand_on_the_table_and_cover_every_object() -> None:
    found = prepare([_cloud(THINGS, EYE)], [np.eye(4)], HOW)
    assert found.points is not None
    assert found.points.shape == (1, HOW.points, 3)
    assert found.points.dtype == np.float32
    assert found.nothing == ""
    assert found.plane is not None
    candidates = found.points[0, : min(HOW.candidates, found.foreground[0])]
    assert (_heights(candidates, EYE) > 0.004).all()
    at = transform_points(candidates.astype(np.float64), EYE)
    for thing in THINGS:
        near = np.hypot(at[:, 0] - thing.x, at[:, 1] - thing.y) < 0.06
        assert near.sum() > 50, thing


def test_the_table_around_the_objects_gets_its_share() -> None:
    found = prepare([_cloud(THINGS, EYE)], [np.eye(4)], HOW)
    assert found.points is not None
    on_table = np.abs(_heights(found.points[0], EYE)) < 0.004
    assert on_table.mean() >= HOW.table_share - 0.01
    at = transform_points(found.points[0][on_table].astype(np.float64), EYE)
    assert np.abs(at[:, :2]).max() < 0.35


def test_the_same_cloud_in_another_order_gives_the_same_points() -> None:
    cloud = _cloud(THINGS, EYE)
    first, again = (prepare([c], [np.eye(4)], HOW).points for c in (cloud, cloud.copy()))
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first, again)


def test_two_views_lie_in_the_reference_cameras_frame() -> None:
    aux_in_ref = inverse_pose(EYE) @ AUX
    found = prepare([_cloud(THINGS, EYE), _cloud(THINGS, AUX)], [np.eye(4), aux_in_ref], HOW)
    assert found.points is not None
    assert found.points.shape == (2, HOW.points, 3)
    ball = THINGS[0]
    assert isinstance(ball, Ball)
    for view in found.points:
        at = transform_points(view[: HOW.candidates].astype(np.float64), EYE)
        at = at[np.hypot(at[:, 0] - ball.x, at[:, 1] - ball.y) < 0.03]
        at = at[at[:, 2] > 0.02]
        radius = np.linalg.norm(at - [ball.x, ball.y, ball.radius], axis=1)
        np.testing.assert_allclose(radius, ball.radius, atol=0.002)
    # The second view sees the ball's other side.
    one = prepare([_cloud(THINGS, EYE)], [np.eye(4)], HOW)
    assert len(found.observed) > 1.1 * len(one.observed)


def test_a_gripper_may_touch_nothing_that_was_seen_near_the_objects() -> None:
    found = prepare([_cloud(THINGS, EYE)], [np.eye(4)], HOW)
    heights = _heights(found.observed, EYE)
    assert (np.abs(heights) < 0.004).sum() > 500
    assert heights.max() == pytest.approx(0.1, abs=0.003)
    cloud = _cloud(THINGS, EYE)
    close = cloud[_heights(cloud, EYE) > 0.01]
    nearest = np.linalg.norm(close[::20, None] - found.observed, axis=-1).min(1)
    assert nearest.max() < 0.01


def test_an_empty_table_is_named() -> None:
    found = prepare([_cloud([], EYE)], [np.eye(4)], HOW)
    assert found.nothing == "empty_table"
    assert found.points is None
    assert found.plane is not None


def test_nothing_within_reach_is_named() -> None:
    far = look_at([2.0, 0, 2.0])
    assert prepare([_cloud(THINGS, far)], [np.eye(4)], HOW).nothing == "out_of_reach"


def test_what_stands_beside_the_table_is_no_foreground() -> None:
    beside = Box(-0.62, 0.0, (0.1, 0.5, 0.2))
    depth = render([*THINGS, beside], EYE, table_radius_m=0.45)
    found = prepare([back_project(depth, INTRINSICS)], [np.eye(4)], HOW)
    assert found.points is not None
    at = transform_points(found.points[0, : HOW.candidates].astype(np.float64), EYE)
    assert at[:, 0].min() > -0.5


def test_without_a_table_everything_is_foreground() -> None:
    depth = render([Ball(0, 0, 0.1)], EYE, table_radius_m=0.0)
    found = prepare([back_project(depth, INTRINSICS)], [np.eye(4)], HOW)
    assert found.plane is None
    assert found.points is not None
    assert found.foreground[0] > 300


def test_points_come_again_where_there_are_too_few() -> None:
    depth = render([Ball(0, 0, 0.04)], EYE, table_radius_m=0.0)
    found = prepare([back_project(depth, INTRINSICS)], [np.eye(4)], HOW)
    assert found.points is not None
    count = found.foreground[0]
    assert count < HOW.candidates
    assert len(np.unique(found.points[0], axis=0)) == count
    np.testing.assert_array_equal(found.points[0, :count], found.points[0, count : 2 * count])


def test_a_view_that_sees_no_object_is_left_out() -> None:
    aside = look_at([-0.4, -0.2, 0.45], [-0.9, 0.4, 0])
    cloud = back_project(render(THINGS, aside), INTRINSICS)
    found = prepare([_cloud(THINGS, EYE), cloud], [np.eye(4), inverse_pose(EYE) @ aside], HOW)
    assert found.points is not None
    assert len(found.points) == 1
    assert found.foreground[1] == 0


@pytest.mark.parametrize(
    ("cloud", "cause", "message"),
    [
        (np.ones((10, 3)), "cloud_small", f"10 points .* at least {FEWEST_POINTS}"),
        (np.full((5000, 3), np.nan), "cloud_small", "0 points in front of the camera of 5000"),
        (-np.ones((5000, 3)), "cloud_small", "z forward"),
        (np.ones((5000, 4)), "cloud_small", r"wanted floats \[n, 3\]"),
        (np.ones((5000, 3), np.int32), "cloud_small", "int32"),
        (np.full((5000, 3), 480.0), "depth_unit", "millimetres given as metres"),
        (np.full((5000, 3), 0.0005), "depth_unit", "metres scaled once more"),
    ],
)
def test_clouds_that_cannot_be_are_refused(cloud: np.ndarray, cause: str, message: str) -> None:
    with pytest.raises(ImplausibleError, match=message) as refused:
        check_cloud(cloud)
    assert refused.value.cause == cause


def _real(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """A real scene's cloud, and that of its object as it was published."""
    scene = read_depth(file)
    assert scene.intrinsics is not None
    cloud = depth_points(metres(scene.values), scene.intrinsics, HOW)
    with np.load(file) as archive:
        return cloud, archive["smoothed_object_pc"]


@pytest.mark.parametrize("name", ["blue_mug", "cylinder", "green_bowl", "mustard", "sugar"])
def test_the_foreground_of_real_scenes_is_the_object(data_dir: Path, name: str) -> None:
    cloud, thing = _real(data_dir / "grasp_scenes" / f"{name}.npz")
    found = prepare([cloud], [np.eye(4)], HOW)
    assert found.points is not None
    candidates = found.points[0, : min(HOW.candidates, found.foreground[0])]
    distance = np.array([np.linalg.norm(thing - p, axis=1).min() for p in candidates])
    assert (distance < 0.015).mean() > 0.97


def test_the_foreground_of_a_real_clutter_is_its_objects(data_dir: Path) -> None:
    folder = data_dir / "graspnet_scene"
    camera = read_camera(folder / "meta.mat")
    depth = metres(read_depth(folder / "depth.png").values, camera.depth_scale)
    found = prepare([depth_points(depth, camera.intrinsics, HOW)], [np.eye(4)], HOW)
    assert found.points is not None
    pixels = found.points[0, : HOW.candidates] @ camera.intrinsics.T.astype(np.float32)
    u, v = (pixels[:, :2] / pixels[:, 2:]).T
    # By eye: the clutter's bounds; right of it are a plate and the robot's stand.
    inside = (u > 260) & (u < 960) & (v > 0) & (v < 660)
    assert inside.mean() > 0.97


@pytest.mark.parametrize("noise_m", [0.001, 0.004, 0.006])
def test_noise_is_no_object_and_hides_none(noise_m: float) -> None:
    rng = np.random.default_rng(0)

    def noisy(things: list[Ball | Box]) -> np.ndarray:
        depth = render(things, EYE)
        shown = depth + rng.normal(0, noise_m, depth.shape).astype(np.float32)
        return back_project(np.where(depth > 0, shown, 0), INTRINSICS)

    assert prepare([noisy([])], [np.eye(4)], HOW).nothing == "empty_table"
    found = prepare([noisy([Ball(0, 0, 0.03)])], [np.eye(4)], HOW)
    assert found.points is not None
    at = transform_points(found.points[0, : found.foreground[0]].astype(np.float64), EYE)
    assert (np.hypot(at[:, 0], at[:, 1]) < 0.05).mean() > 0.95
