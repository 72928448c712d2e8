"""Hand-written drivers: the upper bound, a reactive one with LiDAR, and blind ones.

They say how hard the task is (a blind driver must mostly fail, a planner must not), and the planner
drives where recordings are made.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from limpet.training.navigation.camera import Lidar
from limpet.training.navigation.layouts import Layout
from limpet.training.navigation.robot import Robot, polar, wrapped

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Speeds = tuple[float, float]


class Controller(Protocol):
    """Chooses speeds; made anew for each episode."""

    def speeds(
        self, pose: Float64, goal: tuple[float, float], ranges_B: Float32, touched: bool
    ) -> Speeds:
        """Forward speed (m/s) and turn rate (rad/s).

        Args:
            pose: Where the robot is: x, y (m), yaw (rad).
            goal: Distance (m) and bearing (rad) of the goal.
            ranges_B: The LiDAR's ranges, m.
            touched: Whether the last command ended in contact.
        """


MARGINS_M = (0.08, 0.04, 0.0)
"""How far beyond its radius a planned way keeps from obstacles, where there is room."""


def plan_way(layout: Layout, robot: Robot, start: Float64, goal: tuple[float, float]) -> Float64:
    """A short way with as much margin as both ends allow, as points, m. (N, 2)"""
    for margin in MARGINS_M:
        space = layout.free_space(robot.radius_m + margin)
        if len(space.cells_near(start)) and len(space.cells_near(np.array(goal))):
            field = space.distances_to(goal)
            if math.isfinite(field.at(start)):
                return field.way_from(start)
    return np.array([start, goal])


class Planner:
    """Follows a planned way: it knows the map and its pose, so it is the upper bound."""

    def __init__(self, robot: Robot, way_N2: Float64) -> None:
        self._robot, self._way = robot, way_N2
        self._next = 0

    def speeds(
        self, pose: Float64, goal: tuple[float, float], ranges_B: Float32, touched: bool
    ) -> Speeds:
        """Towards the first point of the way that is not yet near."""
        while self._next < len(self._way) - 1 and math.dist(self._way[self._next], pose[:2]) < 0.15:
            self._next += 1
        x, y = self._way[self._next]
        _, bearing = polar(pose, (float(x), float(y)))
        return _towards(self._robot, bearing)


class Greedy:
    """Blind: turns to the goal and drives; where it touches something it stays."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot

    def speeds(
        self, pose: Float64, goal: tuple[float, float], ranges_B: Float32, touched: bool
    ) -> Speeds:
        """Straight to the goal."""
        return _towards(self._robot, goal[1])


class Bumping:
    """Blind with a bumper: greedy, but after a contact it turns aside for a while.

    Args:
        robot: Which robot.
        rng: Chooses side, angle and length of the detour.
    """

    def __init__(self, robot: Robot, rng: np.random.Generator) -> None:
        self._robot, self._rng = robot, rng
        self._heading, self._left = 0.0, 0

    def speeds(
        self, pose: Float64, goal: tuple[float, float], ranges_B: Float32, touched: bool
    ) -> Speeds:
        """To the goal, or along the detour that a contact began."""
        if touched:
            aside = self._rng.choice([-1.0, 1.0]) * self._rng.uniform(0.6, 2.4)
            self._heading = wrapped(pose[2] + aside)
            self._left = int(self._rng.integers(8, 40))
        if self._left > 0:
            self._left -= 1
            return _towards(self._robot, wrapped(self._heading - pose[2]))
        return _towards(self._robot, goal[1])


class Gaps:
    """Reactive with LiDAR: heads for the way that is open, nearest to the goal's direction.

    Of 72 directions, those are open in which the robot's width is free as far as `LOOK_M` or the
    goal (in the manner of the vector field histogram). A direction costs its distance from the
    goal's, from where the robot looks and from its last choice, which keeps it from dithering.
    """

    LOOK_M = 1.4

    def __init__(self, robot: Robot, lidar: Lidar) -> None:
        self._robot = robot
        self._points = np.stack([np.cos(lidar.angles), np.sin(lidar.angles)], axis=1)
        self._range_m = lidar.range_m
        self._directions = np.linspace(-math.pi, math.pi, 72, endpoint=False)
        self._last: float | None = None

    def speeds(
        self, pose: Float64, goal: tuple[float, float], ranges_B: Float32, touched: bool
    ) -> Speeds:
        """Towards the cheapest direction."""
        seen = ranges_B < self._range_m - 1e-3
        points = self._points[seen] * ranges_B[seen, None]  # robot frame
        cos, sin = np.cos(self._directions)[:, None], np.sin(self._directions)[:, None]
        along = cos * points[:, 0] + sin * points[:, 1]
        across = np.abs(cos * points[:, 1] - sin * points[:, 0])
        # Beside a wall the margin shrinks, or no direction would be open along it.
        margin = min(0.05, max(0.0, float(ranges_B.min()) - self._robot.radius_m - 0.01))
        in_way = (across < self._robot.radius_m + margin) & (along > 0.0)
        free = np.where(in_way, along, np.inf).min(axis=1, initial=np.inf)
        reach = min(self.LOOK_M, goal[0])
        open_share = np.minimum(free / reach, 1.0)
        away = np.abs([wrapped(d - goal[1]) for d in self._directions])
        cost = away + 0.3 * np.abs(self._directions) + 6.0 * (1.0 - open_share)
        if self._last is not None:
            last = wrapped(self._last - pose[2])
            cost = cost + 0.4 * np.abs([wrapped(d - last) for d in self._directions])
        best = float(self._directions[cost.argmin()])
        self._last = pose[2] + best
        return _towards(self._robot, best)

    def heading(self, pose: Float64) -> float:
        """The direction chosen last, robot frame, rad; straight ahead before any choice."""
        return 0.0 if self._last is None else wrapped(self._last - pose[2])


def _towards(robot: Robot, bearing: float) -> Speeds:
    """Turns to a bearing, and drives as far as it lies ahead."""
    omega = float(np.clip(3.0 * bearing, -robot.turn_rate, robot.turn_rate))
    ahead = max(0.0, math.cos(bearing)) ** 4 if abs(bearing) < 1.0 else 0.0
    return robot.speed * ahead, omega
