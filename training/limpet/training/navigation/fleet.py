"""Environments of one process that are perceived in one batch, with what each trip remembers.

Dimension legend: n environments, D inputs of the policy, M memory, S its state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from limpet.training.navigation.environment import Observation, PointGoalEnv
from limpet.training.navigation.policy import Actor
from limpet.training.navigation.senses import Perception, inputs_of
from limpet.training.navigation.teacher import Teacher

Float32 = NDArray[np.float32]


class Fleet(VecEnv):
    """Environments whose observations, for whoever learns, are the policy's states.

    Args:
        envs: The environments; they observe their LiDAR.
        actor: Whose inputs and memory; both may learn meanwhile.
        perceive: What makes its features.
        begin: Resets the environment of a place.

    Attributes:
        seen: The policy's inputs now. (n, D)
        memory: What each trip remembered before it. (n, M)
        ended: Inputs at the end of trips that ended at the last command, by place. (D,)
        teacher: Who knows what to do, and what there is to know.
        hint: What the teacher would do now. (n, 2)
        taught: What it would have done in place of the last actions. (n, 2)
    """

    def __init__(
        self,
        envs: Sequence[PointGoalEnv],
        actor: Actor,
        perceive: Perception,
        begin: Callable[[int], Observation],
    ) -> None:
        self.envs, self._actor, self._perceive, self._reset = envs, actor, perceive, begin
        self.teacher = Teacher(envs)
        space = spaces.Box(-np.inf, np.inf, (actor.state_size,), np.float32)
        super().__init__(len(envs), space, envs[0].action_space)
        self._actions = self.hint = self.taught = np.zeros((len(envs), 2), np.float32)
        self.seen = torch.zeros(len(envs), actor.inputs_size)
        self.memory = torch.zeros(len(envs), actor.memory)
        self._next_memory = self.memory
        self.ended: dict[int, Tensor] = {}
        self._ends: list[dict[str, Any]] = []

    def reset(self) -> Float32:
        """Begins an episode everywhere."""
        self._ends = []
        observed = [self._begin(i) for i in range(self.num_envs)]
        self._next_memory = torch.zeros_like(self.memory)
        states = self._states(observed, [])
        self.hint = self.teacher.actions()
        return states

    def step_async(self, actions: Float32) -> None:
        """Takes the actions of the next step."""
        self._actions, self.taught = actions, self.hint

    def step_wait(self) -> tuple[Float32, Float32, NDArray[np.bool_], list[dict[str, Any]]]:
        """Steps everywhere; where an episode ends the next one begins."""
        rewards = np.zeros(self.num_envs, np.float32)
        infos: list[dict[str, Any]] = []
        observed: list[Observation] = []
        last: list[tuple[int, Observation]] = []
        for i, env in enumerate(self.envs):
            now, rewards[i], terminated, truncated, info = env.step(self._actions[i])
            if terminated or truncated:
                last.append((i, now))
                self._ends.append(info)
                now = self._begin(i)
            observed.append(now)
            infos.append({**info, "TimeLimit.truncated": truncated})
        states = self._states(observed, last)
        for (i, _), state in zip(last, states[self.num_envs :], strict=True):
            infos[i]["terminal_observation"] = state
        self.hint = self.teacher.actions()
        dones = np.isin(np.arange(self.num_envs), [i for i, _ in last])
        return states[: self.num_envs], rewards, dones, infos

    def _begin(self, place: int) -> Observation:
        observed = self._reset(place)
        self.teacher.begin(place)
        return observed

    @torch.no_grad()
    def _states(
        self, observed: Sequence[Observation], last: Sequence[tuple[int, Observation]]
    ) -> Float32:
        """States of all places and, after them, of trips that have just ended there. (n + …, S)"""
        before = self._next_memory
        ended = [i for i, _ in last]
        self.memory = before.clone()
        self.memory[ended] = 0.0
        inputs = inputs_of(self._actor, self._perceive, [*observed, *(one for _, one in last)])
        states = self._actor.state(inputs, torch.cat([self.memory, before[ended]]))
        number = self.num_envs
        self.seen = inputs[:number]
        self.ended = dict(zip(ended, inputs[number:], strict=True))
        self._next_memory = self._actor.memory_of(states[:number])
        result: Float32 = states.numpy()
        return result

    def outcome(self) -> dict[str, float]:
        """Means over the episodes that have ended since `reset`."""
        names = ("success", "spl", "contacts")
        means = [np.mean([info[name] for info in self._ends] or [0.0]) for name in names]
        return {
            "episodes": float(len(self._ends)),
            **dict(zip(names, map(float, means), strict=True)),
        }

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of some environments."""
        return [getattr(self.envs[i], attr_name) for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """None is."""
        return [False for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> NoReturn:
        """Nobody needs it."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Nobody needs it."""
        raise NotImplementedError
