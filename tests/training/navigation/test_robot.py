"""The robot: arcs, contact, polar coordinates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.training.navigation.robot import Robot, polar, wrapped
from limpet.training.navigation.solids import Footprints

NOTHING = Footprints(np.empty((0, 6)))
ROBOT = Robot(radius_m=0.2, control_hz=10.0)


def test_it_drives_along_an_arc() -> None:
    pose, driven = np.zeros(3), 0.0
    for _ in range(10):
        pose, step, touched = ROBOT.drive(pose, 0.5, math.pi / 2, NOTHING)
        driven += step
        assert not touched
    radius = 0.5 / (math.pi / 2)
    np.testing.assert_allclose(pose, [radius, radius, math.pi / 2], atol=1e-9)
    assert driven == pytest.approx(0.5)


def test_it_stops_at_a_wall_and_can_turn_away() -> None:
    wall = Footprints(np.array([[1.0, 0.0, 0.05, 3.0, 0.0, 0.0]]))
    pose, contacts = np.zeros(3), 0
    for _ in range(40):
        pose, _, touched = ROBOT.drive(pose, 0.5, 0.0, wall)
        contacts += touched
    assert 0.95 - 0.2 - 0.021 <= pose[0] <= 0.95 - 0.2
    assert contacts > 20
    before = pose.copy()
    pose, driven, _ = ROBOT.drive(pose, 0.5, 1.0, wall)
    assert driven < 0.021
    assert pose[2] == pytest.approx(before[2] + 0.1)
    pose[2] = math.pi
    pose, driven, touched = ROBOT.drive(pose, 0.5, 0.0, wall)
    assert driven == pytest.approx(0.05)
    assert not touched


@given(yaw=st.floats(-10, 10), v=st.floats(0, 0.5), omega=st.floats(-2, 2))
def test_it_never_ends_inside_an_obstacle(yaw: float, v: float, omega: float) -> None:
    posts = Footprints(np.array([[0.3, 0.0, 0, 0, 0, 0.05], [-0.2, 0.22, 0.1, 0.01, 1.0, 0.0]]))
    pose = np.array([0.0, 0.0, yaw])
    start = float(posts.clearance(pose[None, :2])[0])
    robot = Robot(radius_m=min(0.15, start), control_hz=5.0)
    pose, _, _ = robot.drive(pose, v, omega, posts)
    assert posts.clearance(pose[None, :2])[0] >= robot.radius_m - 1e-9


def test_polar_coordinates_are_the_robots() -> None:
    distance, bearing = polar(np.array([1.0, 1.0, math.pi / 2]), (1.0, 3.0))
    assert (distance, bearing) == pytest.approx((2.0, 0.0))
    assert polar(np.array([0.0, 0.0, 0.0]), (0.0, 1.0))[1] == pytest.approx(math.pi / 2)


@given(st.floats(-50, 50))
def test_wrapping_keeps_an_angle(angle: float) -> None:
    assert -math.pi <= wrapped(angle) < math.pi + 1e-12
    assert math.cos(wrapped(angle)) == pytest.approx(math.cos(angle), abs=1e-9)
