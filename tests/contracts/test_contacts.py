"""How outlines lean against fingers: bodies whose sides are known, seen from one side."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.contacts import slopes_of
from limpet.contracts.grasp_frames import rotation_of
from limpet.contracts.grippers import Gripper

GRIPPER = Gripper()
STEP = 0.002


def _slopes(points: np.ndarray, rotation: np.ndarray | None = None, width: float = 0.08) -> list:
    frame = np.eye(3) if rotation is None else rotation
    seen = (points @ frame.T + [0, 0, 0.5]).astype(np.float32)
    at, depth = np.array([[0, 0, 0.5]]), np.array([0.02])
    return slopes_of(frame[None], at, depth, np.array([width]), seen, GRIPPER)[0].tolist()


def _top(degrees: float = 0.0, left: float = -0.02, right: float = 0.02) -> np.ndarray:
    """The face that a camera sees along the approach: the sides themselves are hidden."""
    y, z = np.meshgrid(np.arange(left, right + STEP / 2, STEP), np.arange(-0.04, 0.04, STEP))
    turn = np.deg2rad(degrees)
    across, along = y * np.cos(turn) - z * np.sin(turn), y * np.sin(turn) + z * np.cos(turn)
    return np.stack([np.zeros_like(y), across, along], -1).reshape(-1, 3)


def test_hidden_sides_that_are_square_to_the_fingers_have_no_slope() -> None:
    np.testing.assert_allclose(_slopes(_top()), [0, 0], atol=1e-6)


@pytest.mark.parametrize("degrees", [-30.0, -15.0, 15.0, 30.0])
def test_a_turned_body_leans_against_both_fingers_by_as_much(degrees: float) -> None:
    wanted = -np.tan(np.deg2rad(degrees))
    np.testing.assert_allclose(_slopes(_top(degrees)), [wanted, wanted], atol=0.12)


def test_a_wedge_leans_against_one_finger_in_whatever_frame() -> None:
    points = _top(0.0, -0.04, 0.03)
    wedge = points[points[:, 1] > -0.02 + 0.5 * points[:, 2]]
    for rotation in (np.eye(3), rotation_of([0.3, -0.5, 0.8], 0.7)):
        np.testing.assert_allclose(_slopes(wedge, rotation), [0.5, 0.0], atol=0.12)


def test_what_is_not_between_the_fingers_does_not_count() -> None:
    beside = np.array([[0, 0.035, 0.008], [0.03, 0.025, 0.008], [-0.03, -0.025, 0.002]])
    points = np.concatenate([_top(), beside])
    np.testing.assert_allclose(_slopes(points, width=0.06), [0, 0], atol=1e-6)
    assert abs(_slopes(points)[1]) > 0.1  # fingers that are wider apart have one between them


def test_too_little_for_a_line_is_square() -> None:
    low = _top(20.0)
    assert _slopes(low[np.abs(low[:, 2]) < 0.004]) == [0.0, 0.0]
    assert _slopes(np.zeros((0, 3))) == [0.0, 0.0]


def test_many_grasps_are_judged_as_each_by_itself() -> None:
    rng = np.random.default_rng(4)
    observed = rng.uniform(-0.1, 0.1, (2500, 3)).astype(np.float32)
    rotation = rotation_of(rng.normal(size=(60, 3)), rng.uniform(0, np.pi, 60))
    at = rng.uniform(-0.1, 0.1, (60, 3))
    depth, width = rng.uniform(0.01, 0.04, 60), rng.uniform(0.03, 0.1, 60)
    found = slopes_of(rotation, at, depth, width, observed, GRIPPER)
    for index in range(60):
        x, y, z = ((observed - at[index]) @ rotation[index]).T
        between = (x > -0.02) & (x < depth[index]) & (np.abs(y) < width[index] / 2)
        for finger, outermost in enumerate((np.min, np.max)):
            lines = [
                (low + 0.0025, outermost(y[inside]))
                for low in np.arange(-0.01, 0.0099, 0.005)
                if (inside := between & (z >= low) & (z < low + 0.005)).any()
            ]
            wanted = np.polyfit(*np.transpose(lines), 1)[0] if len(lines) > 2 else 0.0
            np.testing.assert_allclose(found[index, finger], wanted, atol=2e-3)
    assert np.count_nonzero(found) > 80
