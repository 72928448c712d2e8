"""A simulated robot for a node that drives one: PointGoal episodes in metres per second.

`limpet.runtime.demo.drive` loads it by name, so that nothing of the runtime imports training.

Dimension legend: k obstacles, p corners of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.training.navigation.environment import (
    Observation,
    PointGoalConfig,
    PointGoalEnv,
    action_of,
)
from limpet.training.navigation.robot import Robot
from limpet.training.navigation.scenes import SceneLibrary

CONTROL_HZ = 20.0
EPISODE_S = 40.0
"""Time until an episode ends without success, as in training."""

UNSEEN = PointGoalConfig(
    layouts=(5000, 5100),
    appearance_set="test",
    appearances=10,
    senses=("image", "goal", "proprioception"),
    steps=round(EPISODE_S * CONTROL_HZ),
    robot=Robot(control_hz=CONTROL_HZ),
)
"""Layouts and appearances that nothing was trained in."""


class Simulator:
    """One episode after another; the same number is the same episode.

    Args:
        task: Which; without LiDAR, which a robot of this kind does not have.
        textures: Folder of images for appearances; None draws all patterns.
        library: Scenes to share with other simulators of this process.

    Attributes:
        control_hz: Commands per second of simulated time.
        info: What the environment says of the episode after the last command.
        over: Whether the episode is.
    """

    def __init__(
        self,
        task: PointGoalConfig = UNSEEN,
        textures: Path | str | None = None,
        library: SceneLibrary | None = None,
    ) -> None:
        self._env = PointGoalEnv(task, textures, library)
        self.control_hz = task.robot.control_hz
        self.info: Mapping[str, Any] = {}
        self.over = True

    def begin(self, number: int) -> Observation:
        """Begins an episode: image, goal and proprioception of its start."""
        observed, self.info = self._env.reset(seed=number)
        self.over = False
        return observed

    def drive(self, speed: float, turn_rate: float) -> Observation:
        """Drives for one control period with a forward speed (m/s) and a turn rate (rad/s)."""
        action = action_of(speed, turn_rate, self._env.config.robot)
        observed, _, terminated, truncated, self.info = self._env.step(action)
        self.over = terminated or truncated
        return observed

    def obstacles(self) -> NDArray[np.float64]:
        """Outlines of walls and furniture of the episode's layout, from above, m. (k, p, 2)"""
        return self._env.scenes.layout(self._env.episode.layout).footprints.outlines()


def demo_simulator() -> Simulator:
    """One layout in three appearances, which are painted at once."""
    task = msgspec.structs.replace(UNSEEN, layouts=(5000, 5001), appearances=3)
    simulator = Simulator(task)
    for appearance in range(task.appearances):
        simulator._env.scenes.painted(task.layouts[0], task.appearance_set, appearance)
    return simulator
