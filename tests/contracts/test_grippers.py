"""Whether a gripper fits: cases worked out by hand, and the same by looking at every pair."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.grasp_frames import rotation_of
from limpet.contracts.grippers import Gripper, Placed, fit_of, place_fingers

GRIPPER = Gripper()
DOWN = rotation_of([[1.0, 0, 0]], [0.0])  # the gripper's frame is the frame itself
AT = np.zeros((1, 3))


def _block(low: list[float], high: list[float], step: float = 0.004) -> np.ndarray:
    axes = [np.arange(a, b + step / 2, step) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 3).astype(np.float32)


HELD = _block([0.0, -0.02, -0.008], [0.04, 0.02, 0.008])  # 4 cm wide, between the fingers


@pytest.mark.parametrize(
    ("point", "collides"),
    [
        ([0.0, 0.035, 0], True),  # in a finger: 3 to 4 cm from the middle
        ([0.0, -0.035, 0], True),
        ([0.0, 0.041, 0], False),  # beyond it
        ([0.019, 0.035, 0], True),  # the tip is at 2 cm
        ([0.021, 0.035, 0], False),
        ([0.0, 0.035, 0.0099], True),
        ([0.0, 0.035, 0.0101], False),  # above it
        ([-0.019, 0.0, 0], False),  # between the fingers, before the base
        ([-0.025, 0.0, 0], True),  # in the base
        ([-0.025, 0.039, 0], True),
        ([-0.031, 0.0, 0], False),  # behind it
    ],
)
def test_the_gripper_is_where_graspnets_evaluator_has_it(
    point: list[float], collides: bool
) -> None:
    observed = np.concatenate([HELD, np.array([point], np.float32)])
    fit = fit_of(DOWN, AT, np.array([0.02]), np.array([0.06]), observed, GRIPPER)
    assert fit.collides.tolist() == [collides]


def test_what_is_between_the_fingers_is_counted() -> None:
    fit = fit_of(DOWN, AT, np.array([0.02]), np.array([0.06]), HELD, GRIPPER)
    within = (HELD[:, 0] < 0.02) & (np.abs(HELD[:, 2]) < 0.01)
    assert fit.held.tolist() == [within.sum()]
    assert fit.held[0] > 100


def test_many_grasps_fit_as_each_by_itself() -> None:
    rng = np.random.default_rng(1)
    observed = rng.uniform(-0.12, 0.12, (3000, 3)).astype(np.float32)
    rotation = rotation_of(rng.normal(size=(200, 3)), rng.uniform(0, np.pi, 200))
    at = rng.uniform(-0.15, 0.15, (200, 3))
    depth, width = rng.uniform(0.01, 0.04, 200), rng.uniform(0.02, 0.1, 200)
    fit = fit_of(rotation, at, depth, width, observed, GRIPPER)
    for index in range(200):
        x, y, z = ((observed - at[index]) @ rotation[index]).T
        high = np.abs(z) < 0.01
        body = high & (x > -0.02) & (x < depth[index])
        fingers = body & (np.abs(y) > width[index] / 2) & (np.abs(y) < width[index] / 2 + 0.01)
        base = high & (x <= -0.02) & (x > -0.03) & (np.abs(y) < width[index] / 2 + 0.01)
        assert fit.collides[index] == (fingers | base).any()
        assert fit.held[index] == (body & (np.abs(y) <= width[index] / 2)).sum()


def test_no_points_and_no_grasps_are_no_trouble() -> None:
    none = np.zeros((0, 3), np.float32)
    fit = fit_of(DOWN, AT, np.array([0.02]), np.array([0.06]), none, GRIPPER)
    assert (fit.collides.tolist(), fit.held.tolist()) == ([False], [0])
    fit = fit_of(DOWN[:0], AT[:0], np.zeros(0), np.zeros(0), HELD, GRIPPER)
    assert len(fit.collides) == 0


def _place(width: float, observed: np.ndarray, farthest_m: float = 0.02) -> Placed:
    return place_fingers(
        DOWN, AT, np.array([0.02]), np.array([width]), observed, GRIPPER, farthest_m, 0.002
    )


def test_fingers_stay_where_they_are_free() -> None:
    placed = _place(0.06, HELD)
    assert placed.fits.tolist() == [True]
    assert placed.width_m[0] == pytest.approx(0.06, abs=0.003)
    assert placed.shift_m[0] == pytest.approx(0, abs=0.002)
    assert placed.held[0] > 100


def test_fingers_open_until_the_object_is_between_them() -> None:
    placed = _place(0.03, HELD)  # 5 mm into the object on each side
    assert placed.fits.tolist() == [True]
    assert 0.04 < placed.width_m[0] < 0.055
    fit = fit_of(DOWN, AT, np.array([0.02]), placed.width_m, HELD, GRIPPER)
    assert not fit.collides[0]


def test_one_finger_moves_aside_for_a_neighbour_and_the_grasp_with_it() -> None:
    neighbour = _block([-0.02, 0.04, -0.008], [0.04, 0.06, 0.008])
    observed = np.concatenate([HELD, neighbour])  # a gap of 2 cm: a finger of 1 cm has room
    placed = _place(0.07, observed)
    assert placed.fits.tolist() == [True]
    assert placed.shift_m[0] < -0.001
    moved = AT + placed.shift_m[:, None] * np.array([[0, 1, 0]])
    fit = fit_of(DOWN, moved, np.array([0.02]), placed.width_m, observed, GRIPPER)
    assert not fit.collides[0]
    assert fit.held[0] > 100


def test_without_room_for_a_finger_there_is_no_grasp() -> None:
    tight = np.concatenate([HELD, _block([-0.02, 0.028, -0.008], [0.04, 0.09, 0.008])])
    assert _place(0.06, tight).fits.tolist() == [False]
    wide = _block([0.0, -0.06, -0.008], [0.04, 0.06, 0.008])
    assert _place(0.09, wide).fits.tolist() == [False]
    assert _place(0.01, HELD, farthest_m=0.01).fits.tolist() == [False]  # 15 mm to go each


def test_a_base_that_would_hit_something_has_no_room() -> None:
    behind = _block([-0.028, -0.01, -0.008], [-0.022, 0.01, 0.008])
    assert _place(0.06, np.concatenate([HELD, behind])).fits.tolist() == [False]
