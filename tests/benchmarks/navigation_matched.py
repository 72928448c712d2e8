"""Two frozen encoders under one budget: policies of the same few recorded commands.

    python -m tests.benchmarks.navigation_matched ours=RUN:CHECKPOINT simclr=RUN:CHECKPOINT \
        --commands 42000 --textures DIR --json tests/benchmarks/results/navigation_matched.json

A CHECKPOINT is that of a policy's training on the RUN (RUN/policy/checkpoint.safetensors, copied
before training is done): it holds every trip so far, in order. The first commands of each count:
the driver's demonstration, then rounds in which the arm's own policy drove. A fresh policy learns
from them, alike for all, and drives episodes in layouts and appearances that nothing was trained
in.
Evaluations are kept under --cache as ARM.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors.torch import load

from limpet.contracts.reports import format_table, write_json
from limpet.contracts.whole_files import write_whole
from limpet.runtime.machine import describe_machine
from limpet.training.navigation.course import trips_of
from limpet.training.navigation.encoder import load_encoder
from limpet.training.navigation.imitation import Imitator
from limpet.training.navigation.policy import Actor
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.policy_evaluation import UNSEEN, Evaluation, evaluate_policy
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import Embedding
from limpet.training.threads import one_thread

EPOCHS = 8
"""Before those at whose end the learning rate has fallen."""


def learnt(checkpoint: Path, commands: int, config: PolicyConfig) -> Actor:
    """A policy of the first commands that a checkpoint holds."""
    trips, left = [], commands
    for trip in trips_of(load(checkpoint.read_bytes())):
        if left <= 0:
            break
        trips.append(trip)
        left -= len(trip.taught)
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(config.seed)
        actor = Actor(128, config.width, config.task.robot, None, config.memory)
        imitator, rng = Imitator(actor, config), np.random.default_rng(config.seed)
        rate = config.learning_rate
        imitator.learn(trips, EPOCHS, rng, (rate, rate))
        imitator.learn(trips, config.last_epochs, rng, (rate, rate * config.last_rate))
    return actor.eval()


def main() -> None:
    """Trains and drives what is missing, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arms", nargs="+", metavar="ARM=RUN:CHECKPOINT")
    parser.add_argument("--commands", type=int, default=42_000)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--textures", type=Path, help="folder of images for appearances")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    config, found = PolicyConfig(), dict[str, Evaluation]()
    for item in options.arms:
        arm, _, paths = item.partition("=")
        run, _, checkpoint = paths.partition(":")
        file = options.cache / f"{arm}.json"
        if not file.exists():
            actor = learnt(Path(checkpoint), options.commands, config)
            library = SceneLibrary(options.textures, painted=16)
            evaluation = evaluate_policy(
                actor, Embedding(load_encoder(run)), episodes=options.episodes, library=library
            )
            write_whole(file, msgspec.json.encode(evaluation))
        found[arm] = msgspec.json.decode(file.read_bytes(), type=Evaluation)
    print(
        format_table(
            ["arm", "SR", "SPL", "contacts"],
            [
                [
                    arm,
                    f"{each.overall.sr.mean:.3f} ({each.overall.sr.low:.2f} to "
                    f"{each.overall.sr.high:.2f})",
                    f"{each.overall.spl.mean:.3f}",
                    f"{each.overall.contacts:.1f}",
                ]
                for arm, each in found.items()
            ],
        )
    )
    report = {
        "machine": describe_machine(),
        "commands": options.commands,
        "epochs": EPOCHS + config.last_epochs,
        "config": config,
        "task": UNSEEN,
        "arms": {arm: each.overall for arm, each in found.items()},
    }
    write_json(options.json_file, report)


if __name__ == "__main__":
    main()
