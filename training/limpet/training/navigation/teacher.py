"""A hand-written driver with LiDAR that shows a policy, while it is trained, how to drive.

The driver (`controllers.Gaps`) sees the LiDAR whatever the policy perceives: a privileged sensor
guides training and is absent afterwards. It is asked at every command, of its own episodes, which
fill the replay buffer before a policy learns, and of the policy's (DAgger, Ross et al. 2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limpet.training.navigation.controllers import Gaps
from limpet.training.navigation.environment import PointGoalEnv, action_of
from limpet.training.navigation.robot import polar

Float32 = NDArray[np.float32]

SECTORS = 36
"""Sectors of a turn whose nearest obstacle a memory learns to tell."""
KNOWN = SECTORS + 2
"""Numbers of the teacher's knowledge."""
FORGOTTEN = 0.1
"""Share of a disturbance that is gone at the next command."""
STUCK_M, STUCK_COMMANDS = 0.15, 40
"""A policy that has not come so far in so many commands is stuck."""
RESCUE_COMMANDS = 30
"""Commands that the teacher then drives."""


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

    def knowledge(self) -> Float32:
        """What a memory should hold and a camera does not show now: how near the obstacle in each
        sector all around is, and where the teacher meant to go (cosine and sine). (n, KNOWN)
        """
        rows = []
        for i, env in enumerate(self._envs):
            ranges = env.observed["lidar"]
            sectors = ranges[: len(ranges) // SECTORS * SECTORS].reshape(SECTORS, -1)
            heading = self._drivers[i].heading(env.pose)
            rows.append([*np.exp(-sectors.min(axis=1)), math.cos(heading), math.sin(heading)])
        return np.array(rows, np.float32)

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


class Rescue:
    """Lets the teacher drive for a while where a policy has come to a halt, then the policy again.

    A robot that stands shows nothing new, and how to get away from there is worth showing.

    Args:
        envs: Where they drive.
    """

    def __init__(self, envs: Sequence[PointGoalEnv]) -> None:
        self._envs = envs
        self._marks = [np.full(2, np.inf) for _ in envs]
        self._since = np.zeros(len(envs), int)
        self._left = np.zeros(len(envs), int)

    def __call__(self, actions: Float32, hint: Float32, begun: NDArray[np.bool_]) -> Float32:
        """The policy's actions, or the teacher's. (n, 2)

        Args:
            actions: The policy's.
            hint: The teacher's.
            begun: Which trips have just begun.
        """
        for i, env in enumerate(self._envs):
            place = env.pose[:2]
            if begun[i] or math.dist(place, self._marks[i]) > STUCK_M:
                self._marks[i], self._since[i] = place.copy(), 0
            self._left[i] = 0 if begun[i] else max(0, self._left[i] - 1)
            self._since[i] += 1
            if self._since[i] > STUCK_COMMANDS:
                self._since[i], self._left[i] = 0, RESCUE_COMMANDS
        return np.where(self._left[:, None] > 0, hint, actions)
