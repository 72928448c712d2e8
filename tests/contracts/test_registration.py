"""Two views' points laid on each other, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.clouds import CloudPreprocessing, prepare
from limpet.contracts.grasp_frames import inverse_pose, rotation_about, transform_points
from limpet.contracts.registration import MOST_M, register
from tests.table_tops import Ball, Box, cloud_of, look_at, relative_pose

EYE = look_at([0.35, -0.3, 0.5])
AUX = look_at([-0.1, -0.45, 0.45])
RELATIVE = relative_pose(EYE, AUX)
THINGS: list[Ball | Box] = [
    Ball(0.02, -0.03, 0.04),
    Box(-0.1, 0.05, (0.06, 0.08, 0.1)),
    Box(0.12, 0.08, (0.05, 0.03, 0.04)),
]
EYE_MIDDLE = transform_points(np.array([[0.0, 0, 0.03]]), inverse_pose(EYE))


def _standing(things: list[Ball | Box], eye: np.ndarray) -> np.ndarray:
    """What a camera sees of things, in its own frame. (n, 3)"""
    cloud = cloud_of(things, eye)
    return cloud[transform_points(cloud, eye)[:, 2] > 0.006]


def _error(seed: int, turn_deg: float, shift_m: float) -> np.ndarray:
    """A pose that turns about the scene's middle and shifts, by so much. (4, 4)"""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    axis *= np.deg2rad(turn_deg) / np.linalg.norm(axis)
    shift = rng.normal(size=3)
    middle = _standing(THINGS, EYE).mean(0)
    pose = np.eye(4)
    pose[:3, :3] = rotation_about(axis)
    pose[:3, 3] = middle - pose[:3, :3] @ middle + shift_m * shift / np.linalg.norm(shift)
    return pose


def _apart_mm(points: np.ndarray, pose: np.ndarray) -> float:
    """How far a pose moves points, at the mean."""
    return 1e3 * float(np.linalg.norm(transform_points(points, pose) - points, axis=1).mean())


@pytest.mark.parametrize("seed", range(4))
def test_an_error_of_half_a_degree_and_five_millimetres_is_mended(seed: int) -> None:
    error = _error(seed, 0.5, 0.005)
    told = error @ RELATIVE
    auxiliary = transform_points(_standing(THINGS, AUX), told)
    found = register(_standing(THINGS, EYE), auxiliary, told[:3, 3])
    assert found is not None
    left = found @ error  # moves true points by what is left of the error
    true = transform_points(_standing(THINGS, AUX), RELATIVE)
    assert _apart_mm(true, error) > 4.5
    assert _apart_mm(true, left) < 1.0


def test_views_without_error_stay_where_they_are() -> None:
    auxiliary = transform_points(_standing(THINGS, AUX), RELATIVE)
    found = register(_standing(THINGS, EYE), auxiliary, RELATIVE[:3, 3])
    assert found is not None
    assert _apart_mm(auxiliary, found) < 0.7
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-12)


def test_a_plate_does_not_slide_where_nothing_holds_it() -> None:
    plate: list[Ball | Box] = [Box(0, 0, (0.6, 0.6, 0.03))]  # its rim is out of both views

    def top(eye: np.ndarray) -> np.ndarray:
        cloud = cloud_of(plate, eye)
        at = transform_points(cloud, eye)
        return cloud[(np.abs(at[:, :2]) < 0.15).all(1)]

    lift = np.eye(4)
    lift[:3, 3] = EYE[:3, :3].T @ [0, 0, 0.004]
    told = lift @ RELATIVE
    found = register(top(EYE), transform_points(top(AUX), told), told[:3, 3])
    assert found is not None
    moved = EYE[:3, :3] @ (transform_points(EYE_MIDDLE, found) - EYE_MIDDLE)[0]
    assert moved[2] == pytest.approx(-0.004, abs=0.0005)
    assert np.hypot(*moved[:2]) < 0.0005


def test_the_two_sides_of_a_thin_board_are_not_laid_on_each_other() -> None:
    board: list[Ball | Box] = [Box(0, 0, (0.2, 0.004, 0.15))]
    front, back = look_at([0.0, -0.5, 0.35]), look_at([0.0, 0.5, 0.35])
    relative = relative_pose(front, back)
    there = transform_points(_standing(board, back), relative)
    assert register(_standing(board, front), there, relative[:3, 3]) is None


@pytest.mark.parametrize("shift_m", [2 * MOST_M, 0.3])
def test_what_is_not_the_same_is_left_alone(shift_m: float) -> None:
    others: list[Ball | Box] = [Ball(shift_m, 0.02, 0.03), Ball(0.05 + shift_m, -0.08, 0.05)]
    auxiliary = transform_points(_standing(others, AUX), RELATIVE)
    assert register(_standing(THINGS, EYE), auxiliary, RELATIVE[:3, 3]) is None


@pytest.mark.parametrize("count", [0, 10])
def test_views_with_few_points_are_left_alone(count: int) -> None:
    whole = _standing(THINGS, EYE)
    assert register(whole[:count], whole, np.zeros(3)) is None
    assert register(whole, whole[:count], np.zeros(3)) is None


def test_preparing_two_views_lays_them_on_each_other_unless_told_not_to() -> None:
    error = _error(1, 0.5, 0.005)
    clouds = [cloud_of(THINGS, EYE), cloud_of(THINGS, AUX)]
    poses = [np.eye(4), error @ RELATIVE]
    found = prepare(clouds, poses, CloudPreprocessing())
    left = prepare(clouds, poses, CloudPreprocessing(register_views=False))
    true = prepare(clouds, [np.eye(4), RELATIVE], CloudPreprocessing(register_views=False))
    assert left.correction is None
    assert found.correction is not None
    assert found.points is not None
    assert left.points is not None
    assert true.points is not None

    def off_mm(points: np.ndarray) -> float:
        nearest = np.linalg.norm(points[:512, None] - true.points[1][None], axis=-1).min(1)
        return 1e3 * float(np.median(nearest))

    assert off_mm(found.points[1]) < 0.7 * off_mm(left.points[1])
    np.testing.assert_array_equal(found.points[0].shape, left.points[0].shape)


def test_merged_views_are_laid_on_each_other_before() -> None:
    error = _error(2, 0.5, 0.005)
    clouds = [cloud_of(THINGS, EYE), cloud_of(THINGS, AUX)]
    found = prepare(clouds, [np.eye(4), error @ RELATIVE], CloudPreprocessing(merge_views=True))
    assert found.points is not None
    assert len(found.points) == 1
    assert found.correction is not None
