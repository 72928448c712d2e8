"""A hand-written driver with LiDAR that shows a policy, while it is trained, how to drive.

The driver (`controllers.Gaps`) sees the LiDAR whatever the policy perceives: a privileged sensor
guides training and is absent afterwards. It is asked at every command, of its own episodes, which
fill the replay buffer before a policy learns, and of the policy's (DAgger, Ross et al. 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limpet.training.navigation.controllers import Gaps
from limpet.training.navigation.environment import PointGoalEnv, action_of
from limpet.training.navigation.robot import polar

Float32 = NDArray[np.float32]

FORGOTTEN = 0.1
"""Share of a disturbance that is gone at the next command."""


class Teacher:
    """One driver for each environment, made anew for each episode.

    Args:
        envs: They observe their LiDAR.
    """

    def __init__(self, envs: Sequence[PointGoalEnv]) -> None:
        self._envs = envs
        self._drivers: dict[int, Gaps] = {}

    def begin(self, place: int) -> None:
        """A new episode has begun in an environment."""
        config = self._envs[place].config
        self._drivers[place] = Gaps(config.robot, config.lidar)

    def actions(self) -> Float32:
        """What it would do in each environment now. (n, 2)"""
        return np.stack([self._action(i, env) for i, env in enumerate(self._envs)])

    def _action(self, i: int, env: PointGoalEnv) -> Float32:
        goal = polar(env.pose, env.episode.goal)
        v, omega = self._drivers[i].speeds(env.pose, goal, env.observed["lidar"], False)
        return action_of(v, omega, env.config.robot)


class Disturbance:
    """What is added to actions so that mistakes are shown, and ways out of them.

    Args:
        number: Environments; at each new episode one is disturbed or not, with even chances.
        noise: Standard deviation of the steps of its walk, in units of the action.
        rng: Source of it.
    """

    def __init__(self, number: int, noise: float, rng: np.random.Generator) -> None:
        self._noise, self._rng = noise, rng
        self._on = rng.random(number) < 0.5
        self._walk = np.zeros((number, 2))

    def __call__(self, actions: Float32, dones: NDArray[np.bool_]) -> Float32:
        """Actions disturbed, and still within ±1. (n, 2)

        Args:
            actions: Those to disturb.
            dones: Where an episode ended at the command before.
        """
        self._on = np.where(dones, self._rng.random(len(dones)) < 0.5, self._on)
        step = self._rng.normal(0.0, self._noise, self._walk.shape)
        self._walk = (1 - FORGOTTEN) * self._walk + step
        return np.clip(actions + self._walk * self._on[:, None], -1.0, 1.0).astype(np.float32)
