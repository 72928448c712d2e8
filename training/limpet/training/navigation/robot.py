"""A differential-drive robot: a disc that drives forward and turns, and stops where it touches."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.training.navigation.solids import Footprints

Float64 = NDArray[np.float64]

SWEEP_M = 0.02
"""Longest piece of a way between two tests for contact."""


class Robot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the robot can do.

    Attributes:
        radius_m: Its radius.
        speed: Largest forward speed, m/s; it does not drive backwards.
        turn_rate: Largest turn rate either way, rad/s.
        control_hz: Commands per second.
    """

    radius_m: float = 0.18
    speed: float = 0.5
    turn_rate: float = 1.5
    control_hz: float = 10.0

    def drive(
        self, pose: Float64, v: float, omega: float, obstacles: Footprints
    ) -> tuple[Float64, float, bool]:
        """One control period with constant speeds, along an arc (unicycle model).

        The robot stops at the last of the places, `SWEEP_M` apart, where it touches nothing; it
        does not slide. It goes on turning, so that it can always free itself.

        Args:
            pose: x, y (m), yaw (rad).
            v: Forward speed, m/s.
            omega: Turn rate, rad/s.
            obstacles: What it must not touch.

        Returns:
            The next pose (yaw within ±π), the distance driven (m), whether it touched something.
        """
        period = 1.0 / self.control_hz
        pieces = max(1, math.ceil(v * period / SWEEP_M))
        time = period * np.arange(1, pieces + 1) / pieces
        x, y, yaw = pose
        turned = yaw + omega * time
        if abs(omega) < 1e-9:
            way = np.stack([x + v * time * math.cos(yaw), y + v * time * math.sin(yaw)], axis=1)
        else:
            r = v / omega
            way = np.stack(
                [
                    x + r * (np.sin(turned) - math.sin(yaw)),
                    y - r * (np.cos(turned) - math.cos(yaw)),
                ],
                axis=1,
            )
        touches = obstacles.clearance(way) < self.radius_m if v > 0 else np.zeros(pieces, bool)
        free = int(touches.argmax()) if touches.any() else pieces
        place = way[free - 1] if free else pose[:2]
        heading = wrapped(yaw + omega * period)
        return np.array([*place, heading]), v * period * free / pieces, bool(touches.any())


def wrapped(angle: float) -> float:
    """An angle within [-π, π)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def polar(pose: Float64, goal: tuple[float, float]) -> tuple[float, float]:
    """Distance (m) and bearing (rad, counter-clockwise from straight ahead) of a goal."""
    dx, dy = goal[0] - pose[0], goal[1] - pose[1]
    return math.hypot(dx, dy), wrapped(math.atan2(dy, dx) - pose[2])
