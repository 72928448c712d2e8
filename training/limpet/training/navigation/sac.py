"""Soft Actor-Critic by Stable-Baselines3, from where imitation has brought a policy.

What is learnt is the perceptron that drives. What it sees and remembers, its state, is final: a
replay buffer can keep it.

Dimension legend: n environments, S state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import set_random_seed
from torch import Tensor, nn

from limpet.training.navigation.fleet import Fleet
from limpet.training.navigation.imitation import Trip, remembered
from limpet.training.navigation.policy import Actor
from limpet.training.navigation.policy_config import PolicyConfig

Float32 = NDArray[np.float32]

BUFFERED = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""Arrays of the replay buffer."""


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
    """A policy that learns by reinforcement in a fleet; what it remembers stays as it is.

    Args:
        fleet: Where it drives.
        actor: The policy; its perceptron is where learning begins.
        config: How it learns.
        recorded: Commands that `prefill` will bring.
    """

    def __init__(self, fleet: Fleet, actor: Actor, config: PolicyConfig, recorded: int) -> None:
        self._fleet, self._actor, self._config = fleet, actor, config
        number = fleet.num_envs
        self._sac = _GuidedSAC(
            "MlpPolicy",
            fleet,
            learning_rate=config.learning_rate,
            buffer_size=recorded + config.steps + number * number,
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
            },
            seed=config.seed,
            device="cpu",
        )
        self._sac.set_logger(configure(None, []))
        for own, learnt in self._layers():
            learnt.load_state_dict(own.state_dict())
        spread: Any = self._sac.actor.log_std  # a layer, since the spread depends on the state
        nn.init.zeros_(spread.weight)
        nn.init.constant_(spread.bias, math.log(config.first_spread))

    def prefill(self, trips: Sequence[Trip]) -> None:
        """Fills the replay buffer with trips, as the policy remembers them now.

        Args:
            trips: With at least as many commands as there are environments.
        """
        buffer, actor = self._sac.buffer, self._actor
        inputs = torch.cat([trip.inputs for trip in trips])
        lengths = np.array([len(trip.inputs) for trip in trips])
        with torch.no_grad():
            states = actor.state(inputs, remembered(actor, inputs, lengths)).numpy()
        last = np.cumsum(lengths) - 1
        before = np.delete(np.arange(len(inputs)), last)
        rows = len(before) // buffer.n_envs
        before = before[: rows * buffer.n_envs]
        arrived = np.zeros(len(inputs), np.float32)
        arrived[last - 1] = [trip.terminated for trip in trips]
        columns = {
            "observations": states[before],
            "next_observations": states[before + 1],
            "actions": torch.cat([trip.actions for trip in trips]).numpy()[: len(before)],
            "rewards": torch.cat([trip.rewards for trip in trips]).numpy()[: len(before)],
            "dones": arrived[before],
        }
        for name, column in columns.items():
            array = getattr(buffer, name)
            array[:rows] = column.reshape(rows, *array.shape[1:])
        taught = torch.cat([trip.taught for trip in trips]).numpy()[: len(before)]
        self._sac.taught[:rows] = taught.reshape(rows, *self._sac.taught.shape[1:])
        buffer.pos = rows

    def judge(self, rng: np.random.Generator) -> None:
        """The critics learn what the trips in the buffer were worth; the policy stays as it is."""
        sac, config = self._sac, self._config
        set_random_seed(int(rng.integers(2**31)))
        sac.actor_rate = 0.0  # a critic that knows nothing yet would undo what was imitated
        sac.train(config.critic_steps, config.batch_size)
        sac.actor_rate = 1.0

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

    def copy_to_actor(self) -> None:
        """Gives the actor the weights so far: it drives by the mean of the learnt distribution."""
        for own, learnt in self._layers():
            own.load_state_dict(learnt.state_dict())

    def _layers(self) -> list[tuple[nn.Linear, nn.Linear]]:
        """The actor's layers, each with the one that learns in its place."""
        learnt = self._sac.actor
        assert isinstance(learnt.mu, nn.Linear)
        theirs = [
            module for module in (*learnt.latent_pi, learnt.mu) if isinstance(module, nn.Linear)
        ]
        own = [module for module in self._actor.layers if isinstance(module, nn.Linear)]
        return list(zip(own, theirs, strict=True))

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
