"""Training a policy: by its teacher's drives, by its own with advice, by Soft Actor-Critic.

    RUN/policy/policy.json             `PolicyRecord`, written last
    RUN/policy/weights.safetensors     the network (`policy.Actor`)
    RUN/policy/metrics.jsonl           figures by command, and as events in `tensorboard/`
    RUN/policy/checkpoint.safetensors  where to resume; gone once training is done

Training goes in stages, from one checkpoint to the next: a demonstration, the rounds of imitation,
and pieces of reinforcement. A stage begins with new episodes, and all its randomness follows from
the seed and its number: a training that was killed goes on from its last checkpoint and ends with
the same weights, on the same machine.

    python -m limpet.training.navigation.policy_train RUN [--config FILE] [--textures DIR] …
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
import numpy as np
import torch

from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.whole_files import write_whole
from limpet.training.navigation.course import Course, commands_of
from limpet.training.navigation.encoder import Encoder, load_encoder
from limpet.training.navigation.environment import Observation, PointGoalEnv
from limpet.training.navigation.fleet import Fleet
from limpet.training.navigation.imitation import Imitator
from limpet.training.navigation.policy import EMBEDDING, Actor, Eyes, read_actor, write_actor
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import Perception, perception
from limpet.training.progress import progress
from limpet.training.run import CHECKPOINT, POLICY, POLICY_RECORD, WEIGHTS, library_versions
from limpet.training.settings import read_settings
from limpet.training.threads import one_thread

FOLDER, RECORD = POLICY, POLICY_RECORD


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a trained policy came from.

    Attributes:
        config: The whole configuration.
        figures: The last figures of learning.
        seconds: How long the last uninterrupted part of training took.
        versions: Of Python and libraries.
        metrics: What it was measured to do since; the name says where.
    """

    config: PolicyConfig
    figures: dict[str, float]
    seconds: float
    versions: dict[str, str]
    metrics: dict[str, float] = {}


@dataclass(frozen=True)
class Policy:
    """A trained policy and its record."""

    actor: Actor
    record: PolicyRecord


def load_policy(run: Path | str) -> Policy | None:
    """Loads the policy that drives by a RUN's encoder; None where none was trained.

    Raises:
        DataError: Its training was interrupted, it drives by something else, or it is damaged.
    """
    folder = Path(run) / FOLDER
    if not (folder / RECORD).exists():
        if (folder / CHECKPOINT).exists():
            raise DataError(
                f"{folder} holds an interrupted training", "resume it, or remove the folder"
            )
        return None
    actor = read_actor(folder / WEIGHTS)
    try:
        record = msgspec.json.decode((folder / RECORD).read_bytes(), type=PolicyRecord)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{folder / RECORD} cannot be read: {error}", "train again") from error
    if record.config.sense != "embedding" or actor.features != EMBEDDING:
        raise DataError(
            f"{folder} drives by {record.config.sense}, wanted an encoder's embedding",
            'train it with sense = "embedding"',
        )
    return Policy(actor, record)


def write_record(run: Path | str, record: PolicyRecord) -> None:
    """Writes the record of a RUN's policy."""
    content = msgspec.json.format(msgspec.json.encode(record)) + b"\n"
    write_whole(Path(run) / FOLDER / RECORD, content)


class Schedule:
    """Which episode begins next: several in one scene, since painting one takes a second.

    Args:
        envs: The environments.
        config: Layouts, appearances, episodes of a scene, seed.
    """

    def __init__(self, envs: Sequence[PointGoalEnv], config: PolicyConfig) -> None:
        self._envs, self._config = envs, config
        self.begin_stage(0)

    def begin_stage(self, stage: int) -> None:
        """From here on, episodes follow from the seed and the stage."""
        places = range(len(self._envs))
        self._rngs = [np.random.default_rng([self._config.seed, stage, i]) for i in places]
        self._begun = [0 for _ in places]
        self._scenes: list[dict[str, int]] = [{} for _ in places]

    def begin(self, place: int) -> Observation:
        """Resets the environment of a place."""
        config, rng = self._config, self._rngs[place]
        if self._begun[place] % config.episodes_per_scene == 0:
            self._scenes[place] = {
                "layout": int(rng.integers(*config.task.layouts)),
                "appearance": int(rng.integers(config.task.appearances)),
            }
        self._begun[place] += 1
        seed = int(rng.integers(2**31))
        return self._envs[place].reset(seed=seed, options=self._scenes[place])[0]


def environments_of(
    config: PolicyConfig, perceive: Perception, library: SceneLibrary
) -> list[PointGoalEnv]:
    """Where a policy trains."""
    # Demonstrations need the LiDAR, whatever the policy perceives.
    senses = tuple(dict.fromkeys((*perceive.needs, "lidar", "goal", "proprioception")))
    task = msgspec.structs.replace(config.task, senses=senses)
    return [PointGoalEnv(task, library=library) for _ in range(config.environments)]


def beginner(config: PolicyConfig, perceive: Perception) -> tuple[Actor, Imitator]:
    """A policy that knows nothing yet, by the seed, and what makes it learn."""
    eyes = Eyes() if config.sense == "pixels" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        actor = Actor(perceive.features, config.width, config.task.robot, eyes, config.memory)
        return actor, Imitator(actor, config)


def train_policy(
    run: Path | str,
    config: PolicyConfig,
    encoder: Encoder | None = None,
    textures: Path | str | None = None,
    *,
    resume: bool = False,
    library: SceneLibrary | None = None,
) -> Actor:
    """Trains a policy into a RUN, in layouts and appearances of the policy's own.

    Args:
        run: The RUN; its folder `policy` is written.
        config: How.
        encoder: The frozen encoder, in evaluation mode, where the policy drives by embedding.
        textures: Folder of images for appearances; None draws all patterns.
        resume: Go on from the checkpoint of an interrupted training, if there is one.
        library: Scenes to share; `textures` is then the library's.

    Raises:
        UsageError: There is a policy already, or an interrupted training and no `resume`; or the
            encoder is missing.
        DataError: The checkpoint is damaged, or another configuration's.
    """
    folder = Path(run) / FOLDER
    if (folder / RECORD).exists():
        raise UsageError(f"{folder} holds a policy already", "remove it, or name another RUN")
    if (folder / CHECKPOINT).exists() and not resume:
        raise UsageError(f"{folder} holds an interrupted training", "resume it, or remove it")
    perceive = perception(config, encoder)
    if library is None:
        library = SceneLibrary(textures, painted=2 * config.environments)
    envs = environments_of(config, perceive, library)
    actor, imitator = beginner(config, perceive)
    schedule = Schedule(envs, config)
    fleet = Fleet(envs, actor, perceive, schedule.begin)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with one_thread(), progress("policy", commands_of(config)) as report:
        course = Course(folder, config, actor, fleet, imitator)
        figures = course.run(schedule, report)
    write_actor(folder / WEIGHTS, actor)
    record = PolicyRecord(
        config=config,
        figures=figures,
        seconds=round(time.monotonic() - began, 1),
        versions=library_versions("stable-baselines3", "torch", "gymnasium", "limpet"),
    )
    write_record(run, record)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return actor.eval()


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(file_okay=False, path_type=Path))
@click.option("--config", "config_file", type=click.Path(dir_okay=False, path_type=Path),
              help="TOML file with what differs from the defaults (limpet.training.navigation"
                   ".policy_config).")  # fmt: skip
@click.option("--textures", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of images for appearances [default: drawn patterns only].")  # fmt: skip
@click.option("--resume", is_flag=True,
              help="Go on with an interrupted training; rounds may be added or left out until the "
                   "last one has been learnt from.")  # fmt: skip
def command(run: Path, config_file: Path | None, textures: Path | None, resume: bool) -> None:
    """Trains a policy that drives by the encoder of RUN, and writes it to RUN/policy.

    With `sense = "lidar"` or `"nothing"` in the configuration no encoder is needed, and RUN may be
    any folder.
    """
    config = read_settings(config_file, PolicyConfig) if config_file else PolicyConfig()
    encoder = load_encoder(run) if config.sense == "embedding" else None
    train_policy(run, config, encoder, textures, resume=resume)
    click.echo(f"policy: {run / FOLDER}")


if __name__ == "__main__":
    command()
