"""The stages of a policy's training, from one checkpoint to the next.

Dimension legend: N rows of all trips' inputs, n environments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from limpet.contracts.errors import DataError
from limpet.contracts.whole_files import write_whole
from limpet.training.metrics_log import Write, metrics_log
from limpet.training.navigation.fleet import Fleet
from limpet.training.navigation.imitation import Choose, Imitator, Trip, record
from limpet.training.navigation.policy import Actor
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.sac import Learner
from limpet.training.navigation.teacher import Disturbance, Rescue
from limpet.training.progress import Report
from limpet.training.run import CHECKPOINT

Float32 = NDArray[np.float32]
COLUMNS = ("inputs", "actions", "taught", "known", "rewards")
"""What is kept of a trip, row by row."""


class Episodes(Protocol):
    """What begins episodes: `limpet.training.navigation.policy_train.Schedule`."""

    def begin_stage(self, stage: int) -> None:
        """From here on, episodes follow from the seed and the stage."""


def commands_of(config: PolicyConfig) -> int:
    """Commands of a whole training."""
    return config.demonstrated_steps + config.rounds * config.round_steps + config.steps


def stage_rng(config: PolicyConfig, stage: int) -> np.random.Generator:
    """Where the randomness of a stage comes from, but for its episodes."""
    return np.random.default_rng([config.seed, stage])


def demonstration(fleet: Fleet, config: PolicyConfig, rng: np.random.Generator) -> list[Trip]:
    """The teacher drives, every second episode disturbed."""
    disturb = Disturbance(fleet.num_envs, config.demonstration_noise, rng)
    return record(fleet, config.demonstrated_steps, lambda _, begun: disturb(fleet.hint, begun))


class Course:
    """Leads a policy through its training.

    Args:
        folder: Of the checkpoint and the figures.
        config: How.
        actor: Who learns.
        fleet: Where it drives.
        imitator: What makes it follow the teacher.
    """

    def __init__(
        self,
        folder: Path,
        config: PolicyConfig,
        actor: Actor,
        fleet: Fleet,
        imitator: Imitator,
    ) -> None:
        self._path, self._folder, self._config = folder / CHECKPOINT, folder, config
        self._actor, self._fleet, self._imitator = actor, fleet, imitator
        self._trips: list[Trip] = []
        self._learner: Learner | None = None
        self._stage = 0

    def run(self, episodes: Episodes, report: Report) -> dict[str, float]:
        """All stages that are left; the last one's figures."""
        self._restore()
        config, figures = self._config, dict[str, float]()
        with metrics_log(self._folder, self._done()) as log:
            while self._done() < commands_of(config) or self._stage <= config.rounds:
                episodes.begin_stage(self._stage)
                rng = stage_rng(config, self._stage)
                imitates = self._stage <= config.rounds
                figures = (self._imitate if imitates else self._reinforce)(rng)
                self._end_stage(log, figures)
                report(self._done(), f"success {figures['success']:.2f}")
        return figures

    def _end_stage(self, log: Write, figures: dict[str, float]) -> None:
        self._stage += 1
        log(self._done(), figures)
        write_whole(self._path, save(self._tensors()))

    def _done(self) -> int:
        """Commands driven in the stages so far."""
        config, stage = self._config, self._stage
        if stage == 0:
            return 0
        taught = config.demonstrated_steps + min(stage - 1, config.rounds) * config.round_steps
        pieces = max(0, stage - 1 - config.rounds)
        return taught + min(config.steps, pieces * config.checkpoint_steps)

    def _imitate(self, rng: np.random.Generator) -> dict[str, float]:
        """The teacher demonstrates, or answers while the policy drives; the policy follows it."""
        config, fleet = self._config, self._fleet
        if self._stage == 0:
            self._trips += demonstration(fleet, config, rng)
        else:
            self._trips += record(fleet, config.round_steps, self._driving())
        learnt = self._imitator.learn_stage(self._trips, self._stage, rng)
        return {**fleet.outcome(), **learnt}

    def _driving(self) -> Choose:
        rescue = Rescue(self._fleet.envs)

        @torch.no_grad()
        def choose(states: Float32, begun: NDArray[np.bool_]) -> Float32:
            actions: Float32 = self._actor.act(torch.from_numpy(states)).numpy()
            return rescue(actions, self._fleet.hint, begun)

        return choose

    def _reinforce(self, rng: np.random.Generator) -> dict[str, float]:
        """The policy drives and learns what pays."""
        config = self._config
        before = (self._stage - 1 - config.rounds) * config.checkpoint_steps
        learner = self._learner
        if learner is None:
            learner = self._learner = self._new_learner()
            learner.prefill(self._trips)
            learner.judge(rng)
        commands = min(config.checkpoint_steps, config.steps - before)
        figures = learner.learn(commands, rng, progress=before / config.steps)
        learner.copy_to_actor()
        return figures

    def _new_learner(self) -> Learner:
        recorded = sum(len(trip.taught) for trip in self._trips)
        return Learner(self._fleet, self._actor, self._config, recorded)

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that the stages left depend on."""
        tensors = {
            "identity": torch.frombuffer(
                bytearray(msgspec.json.encode(self._config)), dtype=torch.uint8
            ),
            "stage": torch.tensor(self._stage),
            **tensors_of(self._trips),
        }
        tensors |= under("imitator", self._imitator.state())
        if self._learner is not None:
            tensors |= under("learner", self._learner.state())
        return tensors

    def _restore(self) -> None:
        """Goes on from the checkpoint, if there is one."""
        if not self._path.exists():
            return
        try:
            tensors = load(self._path.read_bytes())
            begun = msgspec.json.decode(tensors["identity"].numpy().tobytes(), type=PolicyConfig)
            self._stage = int(tensors["stage"])
            # Until the last round is learnt from, how many there are has made no difference.
            same = msgspec.structs.replace(begun, rounds=self._config.rounds) == self._config
            rounds_left = self._stage <= min(begun.rounds, self._config.rounds)
            if not same or (begun != self._config and not rounds_left):
                raise DataError(
                    f"{self._path} was begun with another configuration",
                    f"repeat the first command, or remove {self._folder} and begin anew",
                )
            self._trips = trips_of(tensors)
            self._imitator.restore(below("imitator", tensors))
            if learnt := below("learner", tensors):
                self._learner = self._new_learner()
                self._learner.restore(learnt)
                self._learner.copy_to_actor()
        except (
            OSError, SafetensorError, KeyError, ValueError, RuntimeError, msgspec.DecodeError,
        ) as error:  # fmt: skip
            raise DataError(
                f"{self._path} is no checkpoint of this policy: {error}",
                f"remove {self._folder} and begin anew",
            ) from error


def tensors_of(trips: Sequence[Trip]) -> dict[str, Tensor]:
    """What trips hold, one after the other, as `trips_of` takes it."""
    return {
        "lengths": torch.tensor([len(trip.taught) for trip in trips]),
        "terminated": torch.tensor([trip.terminated for trip in trips]),
        **{f"trips/{name}": torch.cat([getattr(trip, name) for trip in trips]) for name in COLUMNS},
    }


def trips_of(tensors: Mapping[str, Tensor]) -> list[Trip]:
    """All trips that `tensors_of` was given, in the order in which they were recorded."""
    lengths: list[int] = tensors["lengths"].tolist()
    parts = {
        name: torch.split(tensors[f"trips/{name}"], [n + (name == "inputs") for n in lengths])
        for name in COLUMNS
    }
    return [
        Trip(**{name: parts[name][i] for name in COLUMNS}, terminated=bool(arrived))
        for i, arrived in enumerate(tensors["terminated"].tolist())
    ]


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with a prefix before their names."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that `under` gave this prefix, without it."""
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
