"""Several policies learn from the same drives, so that what differs is what they perceive.

The LiDAR driver demonstrates once. Then, in rounds, each policy drives environments of its own, its
teacher says what it would do, and every policy learns from the drives of all: each sees every
image, which is rendered once, through its own perception. It is `policy_train`'s imitation
(DAgger, Ross et al. 2011) with the learners' mixture in place of the learner.

    FOLDER/drives-00.safetensors           what was driven in a stage, perceived by all
    FOLDER/NAME/checkpoint.safetensors     what a policy has learnt up to a stage; gone at the end
    FOLDER/NAME/weights.safetensors        the policy, written last

A training that was killed goes on where it stopped, and ends with the same weights.

Dimension legend: n environments, D inputs by all features, M memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.whole_files import write_whole
from limpet.training.navigation.course import (
    below,
    demonstration,
    stage_rng,
    tensors_of,
    trips_of,
    under,
)
from limpet.training.navigation.fleet import Fleet
from limpet.training.navigation.imitation import Choose, Trip, record
from limpet.training.navigation.policy import Actor, read_actor, write_actor
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.policy_train import Schedule, beginner, environments_of
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import Perception, SideBySide
from limpet.training.navigation.teacher import Rescue
from limpet.training.progress import progress
from limpet.training.run import CHECKPOINT, WEIGHTS
from limpet.training.threads import one_thread

Float32 = NDArray[np.float32]
HEAD = "common.json"


@dataclass(frozen=True)
class Pupil:
    """One of the policies.

    Attributes:
        perceive: What it drives by.
        seed: Of its weights, and of the order in which it learns.
    """

    perceive: Perception
    seed: int = 0


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a folder was begun with: configuration, and each policy's seed by its name."""

    config: PolicyConfig
    seeds: dict[str, int]


def train_together(
    folder: Path, pupils: Mapping[str, Pupil], config: PolicyConfig, library: SceneLibrary
) -> dict[str, Actor]:
    """Trains policies by the same drives, or goes on with them.

    Args:
        folder: Where all is kept.
        pupils: The policies by name; they drive environments in this order, in turn.
        config: How; `environments` are at least as many as policies, `seed` is that of scenes,
            episodes and the demonstration, `sense` does not matter, and there is no reinforcement.
        library: Scenes.

    Raises:
        UsageError: More policies than environments, reinforcement is asked for, or the folder was
            begun with others.
        DataError: What the folder holds is damaged.
    """
    if len(pupils) > config.environments:
        raise UsageError(
            f"{len(pupils)} policies in {config.environments} environments", "wanted one each"
        )
    if config.steps:
        raise UsageError(f"{config.steps} commands of reinforcement", "wanted imitation alone")
    _begin(folder, Head(config=config, seeds={name: pupil.seed for name, pupil in pupils.items()}))
    together = SideBySide([pupil.perceive for pupil in pupils.values()])
    envs = environments_of(config, together, library)
    schedule = Schedule(envs, config)
    idle = Actor(together.features, 1, config.task.robot)
    fleet = Fleet(envs, idle, together, schedule.begin)
    learners = [
        Learner(folder / name, columns, pupil, config)
        for (name, pupil), columns in zip(pupils.items(), together.columns(), strict=True)
    ]
    trips: list[Trip] = []
    with one_thread(), progress("policies", config.rounds + 1) as report:
        for stage in range(config.rounds + 1):
            drives = folder / f"drives-{stage:02}.safetensors"
            if not drives.exists():
                schedule.begin_stage(stage)
                driven = _drive(fleet, learners, config, stage)
                write_whole(drives, save(tensors_of(driven)))
                report(stage, f"success {fleet.outcome()['success']:.2f}")
            trips += _read(drives)
            for learner in learners:
                learner.learn(trips, stage)
        report(config.rounds + 1, "")
    for learner in learners:
        learner.finish()
    return {name: read_actor(folder / name / WEIGHTS) for name in pupils}


def _begin(folder: Path, head: Head) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about, content = folder / HEAD, msgspec.json.format(msgspec.json.encode(head)) + b"\n"
    if about.exists() and about.read_bytes() != content:
        raise UsageError(f"{about} tells of other policies", "name another folder, or remove it")
    write_whole(about, content)


def _drive(
    fleet: Fleet, learners: Sequence[Learner], config: PolicyConfig, stage: int
) -> list[Trip]:
    if stage == 0:
        return demonstration(fleet, config, stage_rng(config, 0))
    return record(fleet, config.round_steps, _each_its_own(fleet, learners))


def _each_its_own(fleet: Fleet, learners: Sequence[Learner]) -> Choose:
    """Policy i drives places i, i + number of policies, …; the teacher frees those that stand."""
    rescue = Rescue(fleet.envs)
    places = [np.arange(i, fleet.num_envs, len(learners)) for i in range(len(learners))]
    memories = [
        torch.zeros(len(own), learner.actor.memory)
        for own, learner in zip(places, learners, strict=True)
    ]

    @torch.no_grad()
    def choose(states: Float32, begun: NDArray[np.bool_]) -> Float32:
        actions = np.zeros((fleet.num_envs, 2), np.float32)
        for learner, own, memory in zip(learners, places, memories, strict=True):
            memory[torch.from_numpy(begun[own])] = 0.0
            state = learner.actor.state(torch.from_numpy(states[own][:, learner.columns]), memory)
            memory[:] = learner.actor.memory_of(state)
            actions[own] = learner.actor.act(state).numpy()
        return rescue(actions, fleet.hint, begun)

    return choose


def _read(drives: Path) -> list[Trip]:
    try:
        return trips_of(load(drives.read_bytes()))
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{drives} holds no drives: {error}", f"remove {drives.parent} and begin anew"
        ) from error


class Learner:
    """A policy that learns from the drives of all.

    Args:
        folder: Its own.
        columns: Its own inputs' places among all. (D of its own)
        pupil: What it is.
        config: How it learns.
    """

    def __init__(
        self, folder: Path, columns: list[int], pupil: Pupil, config: PolicyConfig
    ) -> None:
        self.columns, self._folder = columns, folder
        self._seeded = msgspec.structs.replace(config, sense="embedding", seed=pupil.seed)
        self.actor, self._imitator = beginner(self._seeded, pupil.perceive)
        self._learnt = -1
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / WEIGHTS).exists():
            self.actor, self._learnt = read_actor(folder / WEIGHTS), config.rounds
        elif (folder / CHECKPOINT).exists():
            self._restore()

    def learn(self, trips: Sequence[Trip], stage: int) -> None:
        """Learns from all drives up to a stage, unless it has."""
        if stage <= self._learnt:
            return
        seen = [replace(trip, inputs=trip.inputs[:, self.columns]) for trip in trips]
        self._imitator.learn_stage(seen, stage, stage_rng(self._seeded, stage))
        self._learnt = stage
        state = {"stage": torch.tensor(stage), **under("imitator", self._imitator.state())}
        write_whole(self._folder / CHECKPOINT, save(state))

    def finish(self) -> None:
        """Leaves the policy alone."""
        write_actor(self._folder / WEIGHTS, self.actor)
        (self._folder / CHECKPOINT).unlink(missing_ok=True)

    def _restore(self) -> None:
        path = self._folder / CHECKPOINT
        try:
            tensors: dict[str, Tensor] = load(path.read_bytes())
            self._imitator.restore(below("imitator", tensors))
            self._learnt = int(tensors["stage"])
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{path} is no checkpoint of this policy: {error}",
                f"remove {self._folder} and begin anew",
            ) from error
