"""Soft Actor-Critic by Stable-Baselines3: its environments, and what a learner keeps.

Dimension legend: n environments, D inputs of the policy's network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from limpet.training.navigation.environment import Observation, PointGoalEnv
from limpet.training.navigation.policy import CONDITIONED, EMBEDDING, Actor, Eyes
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.teacher import Disturbance, Teacher

Float32 = NDArray[np.float32]

BUFFERED = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""Arrays of the replay buffer."""


class Fleet(VecEnv):
    """Environments of one process that are perceived in one batch.

    Args:
        envs: The environments.
        inputs: The policy's inputs of observations. → (n, D)
        begin: Resets the environment of a place.
        size: D.

    Attributes:
        hint: What the teacher would do now. (n, 2)
        taught: What it would have done in place of the last actions. (n, 2)
    """

    def __init__(
        self,
        envs: Sequence[PointGoalEnv],
        inputs: Callable[[Sequence[Observation]], Tensor],
        begin: Callable[[int], Observation],
        size: int,
    ) -> None:
        self.envs, self._inputs, self._reset = envs, inputs, begin
        self._teacher = Teacher(envs)
        space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        super().__init__(len(envs), space, envs[0].action_space)
        self._actions = self.hint = self.taught = np.zeros((len(envs), 2), np.float32)
        self._ends: list[dict[str, Any]] = []

    def reset(self) -> Float32:
        """Begins an episode everywhere."""
        self._ends = []
        rows = self._inputs([self._begin(i) for i in range(self.num_envs)]).numpy()
        self.hint = self._teacher.actions()
        return rows

    def step_async(self, actions: Float32) -> None:
        """Takes the actions of the next step."""
        self._actions, self.taught = actions, self.hint

    def step_wait(self) -> tuple[Float32, Float32, NDArray[np.bool_], list[dict[str, Any]]]:
        """Steps everywhere; where an episode ends the next one begins."""
        rewards = np.zeros(self.num_envs, np.float32)
        infos: list[dict[str, Any]] = []
        seen: list[Observation] = []
        last: dict[int, Observation] = {}
        for i, env in enumerate(self.envs):
            observed, rewards[i], terminated, truncated, info = env.step(self._actions[i])
            if terminated or truncated:
                last[i] = observed
                self._ends.append(info)
                observed = self._begin(i)
            seen.append(observed)
            infos.append({**info, "TimeLimit.truncated": truncated})
        rows = self._inputs([*seen, *last.values()]).numpy()
        for i, row in zip(last, rows[self.num_envs :], strict=True):
            infos[i]["terminal_observation"] = row
        self.hint = self._teacher.actions()
        dones = np.isin(np.arange(self.num_envs), list(last))
        return rows[: self.num_envs], rewards, dones, infos

    def _begin(self, place: int) -> Observation:
        observed = self._reset(place)
        self._teacher.begin(place)
        return observed

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


class _Seeing(BaseFeaturesExtractor):
    """`Eyes` as Stable-Baselines3 wants them; policy and critics have their own."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space, EMBEDDING + CONDITIONED)
        self.eyes = Eyes()

    def forward(self, observations: Tensor) -> Tensor:
        seen: Tensor = self.eyes(observations)
        return seen


class _GuidedSAC(SAC):
    """Soft Actor-Critic whose actor also steps towards what a teacher would do.

    The distance to the teacher is absolute, not squared: of two ways around an obstacle the median
    is one of them, while the mean runs into it.

    Attributes:
        taught: The teacher's actions beside those of the replay buffer. (size, n, 2)
        guidance: Weight of the teacher: factor of the rate of the steps towards it.
        actor_rate: Factor of the actor's learning rate.
    """

    taught: Float32
    guidance = 0.0
    actor_rate = 1.0

    def _setup_model(self) -> None:
        super()._setup_model()
        buffer = self.replay_buffer
        assert isinstance(buffer, ReplayBuffer)
        self.buffer = buffer
        self.taught = np.zeros_like(buffer.actions)
        self.guide = torch.optim.Adam(self.actor.parameters(), fused=True)

    def _store_transition(self, replay_buffer: ReplayBuffer, *args: Any, **kwargs: Any) -> None:
        assert isinstance(self.env, Fleet)
        self.taught[replay_buffer.pos] = self.env.taught
        super()._store_transition(replay_buffer, *args, **kwargs)

    def _sample_action(self, *args: Any, **kwargs: Any) -> tuple[Float32, Float32]:
        """Every second environment is driven by the mean, as robots are.

        Where the mean alone would stand still (before a wall, say) noise soon helps a sampled
        action out, so that nothing would be learnt of such places.
        """
        actions, buffered = super()._sample_action(*args, **kwargs)
        assert isinstance(self._last_obs, np.ndarray)
        mean, _ = self.predict(self._last_obs[::2], deterministic=True)
        actions[::2] = buffered[::2] = mean
        return actions, buffered

    def _update_learning_rate(self, optimizers: Any) -> None:
        super()._update_learning_rate(optimizers)
        for group in self.actor.optimizer.param_groups:
            group["lr"] *= self.actor_rate

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Descends, then follows the teacher."""
        super().train(gradient_steps, batch_size)
        if self.guidance > 0:
            self.imitate(gradient_steps, batch_size, self.guidance)

    def imitate(self, steps: int, batch_size: int, weight: float = 1.0) -> None:
        """Steps of the actor towards the teacher.

        Args:
            steps: How many.
            batch_size: States of each.
            weight: Factor of the learning rate.
        """
        rate = self.lr_schedule(1.0) * weight
        for group in self.guide.param_groups:
            group["lr"] = rate
        for _ in range(steps):
            rows = torch.randint(self.buffer.pos, (batch_size,)).numpy()
            places = torch.randint(self.n_envs, (batch_size,)).numpy()
            seen = torch.from_numpy(self.buffer.observations[rows, places])
            wanted = torch.from_numpy(self.taught[rows, places])
            loss = (self.actor(seen, deterministic=True) - wanted).abs().mean()
            self.guide.zero_grad()
            loss.backward()
            self.guide.step()


class Learner:
    """A policy that learns in a fleet.

    Args:
        fleet: Where it drives.
        config: How it learns.
    """

    def __init__(self, fleet: Fleet, config: PolicyConfig) -> None:
        self._fleet, self._config = fleet, config
        number = fleet.num_envs
        self._sac = _GuidedSAC(
            "MlpPolicy",
            fleet,
            learning_rate=config.learning_rate,
            buffer_size=config.demonstrated_steps + config.steps + number * number,
            learning_starts=0,
            batch_size=config.batch_size,
            gamma=config.discount,
            train_freq=1,
            gradient_steps=max(1, round(config.updates_per_step * number)),
            ent_coef=f"auto_{config.first_temperature}",
            target_entropy=config.target_entropy[0],
            policy_kwargs={
                "net_arch": [config.width] * 2,
                "optimizer_kwargs": {"fused": True},
                **({"features_extractor_class": _Seeing} if config.sense == "pixels" else {}),
            },
            seed=config.seed,
            device="cpu",
        )
        self._sac.set_logger(configure(None, []))

    def demonstrate(self, rng: np.random.Generator) -> dict[str, float]:
        """The teacher drives and fills the replay buffer, the actor imitates it, the critics learn.

        Returns:
            Figures of its episodes.
        """
        sac, fleet, config = self._sac, self._fleet, self._config
        set_random_seed(int(rng.integers(2**31)))
        disturb = Disturbance(fleet.num_envs, config.demonstration_noise, rng)
        sac._last_obs = fleet.reset()
        dones = np.zeros(fleet.num_envs, bool)
        for _ in range(config.demonstrated_steps // fleet.num_envs):
            actions = disturb(fleet.hint, dones)
            fleet.step_async(actions)
            following, rewards, dones, infos = fleet.step_wait()
            sac._store_transition(sac.buffer, actions, following, rewards, dones, infos)
        outcome = fleet.outcome()
        sac.imitate(config.imitation_steps, config.batch_size)
        sac.actor_rate = 0.0  # a critic that knows nothing yet would undo what was imitated
        sac.train(config.critic_steps, config.batch_size)
        sac.actor_rate = 1.0
        return outcome

    def learn(self, commands: int, rng: np.random.Generator, progress: float) -> dict[str, float]:
        """Drives and descends, from new episodes on.

        Args:
            commands: Commands over all environments.
            rng: Seeds exploration and batches.
            progress: Share of training that is done.

        Returns:
            Figures of its episodes and of the last descents.
        """
        sac, config = self._sac, self._config
        set_random_seed(int(rng.integers(2**31)))
        first, last = config.target_entropy
        sac.target_entropy = first + (last - first) * progress
        sac.guidance = max(config.least_guidance, 1.0 - progress / config.guided_share)
        sac.learn(commands, log_interval=commands)  # it would print: we log ourselves
        figures = sac.logger.name_to_value
        wanted = ("critic_loss", "actor_loss", "ent_coef")
        return {
            **self._fleet.outcome(),
            **{name: float(figures[f"train/{name}"]) for name in wanted},
            "guidance": sac.guidance,
        }

    def copy_to(self, actor: Actor) -> None:
        """Gives an actor the weights so far; it drives by the mean of the learnt distribution."""
        learnt = self._sac.actor
        assert isinstance(learnt.mu, nn.Linear)
        layers = [
            module for module in (*learnt.latent_pi, learnt.mu) if isinstance(module, nn.Linear)
        ]
        own = [module for module in actor.layers if isinstance(module, nn.Linear)]
        for source, target in zip(layers, own, strict=True):
            target.load_state_dict(source.state_dict())
        if actor.eyes is not None:
            assert isinstance(learnt.features_extractor, _Seeing)
            actor.eyes.load_state_dict(learnt.features_extractor.eyes.state_dict())

    def state(self) -> dict[str, Tensor]:
        """Everything that learning changes: networks, optimisers, replay buffer."""
        tensors = dict(self._networks())
        for name, optimizer in self._optimizers().items():
            for index, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}/{index}/{slot}": value for slot, value in slots.items()}
        arrays = {name: getattr(self._sac.buffer, name) for name in BUFFERED}
        arrays["taught"] = self._sac.taught
        filled = self._sac.buffer.pos
        tensors |= {f"buffer/{name}": torch.from_numpy(a[:filled]) for name, a in arrays.items()}
        return {name: value.detach().contiguous() for name, value in tensors.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes back what `state` gave.

        Raises:
            KeyError, RuntimeError, ValueError: It is another learner's.
        """
        with torch.no_grad():
            for name, value in self._networks().items():
                value.copy_(tensors[name])
        for name, optimizer in self._optimizers().items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"{name}/"):
                    _, index, slot = key.split("/")
                    state.setdefault(int(index), {})[slot] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        buffer = self._sac.buffer
        buffer.pos = len(tensors["buffer/taught"])
        for name in BUFFERED:
            getattr(buffer, name)[: buffer.pos] = tensors[f"buffer/{name}"].numpy()
        self._sac.taught[: buffer.pos] = tensors["buffer/taught"].numpy()

    def _networks(self) -> dict[str, Tensor]:
        named = {f"policy/{name}": value for name, value in self._sac.policy.state_dict().items()}
        assert self._sac.log_ent_coef is not None  # the temperature is learnt
        return {**named, "temperature": self._sac.log_ent_coef}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        sac = self._sac
        assert sac.ent_coef_optimizer is not None
        return {
            "actor_optimizer": sac.actor.optimizer,
            "guide": sac.guide,
            "critic_optimizer": sac.critic.optimizer,
            "temperature_optimizer": sac.ent_coef_optimizer,
        }
