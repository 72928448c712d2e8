"""What fills the replay buffer before a policy learns: a hand-written driver, half of it disturbed.

The driver (`controllers.Gaps`) sees the LiDAR, whatever the policy perceives: a privileged sensor
guides training and is absent afterwards. All policies of a seed begin with the same episodes.
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


class Demonstrators:
    """One driver for each environment, made anew for each episode.

    Args:
        envs: They observe their LiDAR.
        noise: Standard deviation of the steps of a disturbance's walk, in units of the action.
        rng: Of disturbances.
    """

    def __init__(
        self, envs: Sequence[PointGoalEnv], noise: float, rng: np.random.Generator
    ) -> None:
        self._envs, self._noise, self._rng = envs, noise, rng
        self._drivers: dict[int, Gaps] = {}
        self._disturbed = np.zeros(len(envs), bool)
        self._disturbance = np.zeros((len(envs), 2))

    def begin(self, places: Sequence[int] | NDArray[np.intp]) -> None:
        """New episodes have begun in some environments."""
        for i in places:
            config = self._envs[i].config
            self._drivers[i] = Gaps(config.robot, config.lidar)
            self._disturbed[i] = self._rng.random() < 0.5

    def actions(self) -> Float32:
        """An action for each environment. (n, 2)"""
        step = self._rng.normal(0.0, self._noise, self._disturbance.shape)
        self._disturbance = (1 - FORGOTTEN) * self._disturbance + step
        chosen = np.stack([self._action(i, env) for i, env in enumerate(self._envs)])
        chosen += self._disturbance * self._disturbed[:, None]
        return np.clip(chosen, -1.0, 1.0).astype(np.float32)

    def _action(self, i: int, env: PointGoalEnv) -> NDArray[np.float64]:
        goal = polar(env.pose, env.episode.goal)
        v, omega = self._drivers[i].speeds(env.pose, goal, env.observed["lidar"], False)
        return action_of(v, omega, env.config.robot).astype(np.float64)
