"""Encoders under one budget: as many steps on the same images for each, then policies alike.

    nice python -m tests.benchmarks.navigation_matched --pairs DIR --cache DIR \
        --textures ../shared/data/textures --reference RUN \
        --json tests/benchmarks/results/navigation_matched.json

A seed is that of encoder and policy both. Its policies share one demonstration of the LiDAR driver,
rendered once; then each drives itself for a round, learns from all, and drives the same episodes in
layouts and appearances that nothing was trained in. The pairs are those of
`python -m limpet.training.navigation.pairs`, of the set `encoder`.

All is kept under --cache, so the command goes on where it stopped; --arms and --seeds limit what is
trained and driven, the table shows all that is there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from limpet.contracts.reports import format_table, write_json
from limpet.contracts.whole_files import write_whole
from limpet.runtime.machine import describe_machine
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder, load_encoder
from limpet.training.navigation.policy import read_actor
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.policy_evaluation import (
    UNSEEN,
    Evaluation,
    Interval,
    bootstrap,
    evaluate_policy,
    wilson,
)
from limpet.training.navigation.policy_train import (
    FOLDER,
    RECORD,
    share_demonstration,
    train_policy,
)
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import perception
from limpet.training.navigation.train import train_navigation
from limpet.training.run import CHECKPOINT, WEIGHTS, RunFolder
from limpet.training.run import RECORD as RUN_RECORD

BUDGET = {"steps": 400, "precision": "bf16"}
"""Of every encoder that is trained, beside its defaults."""
POLICY = PolicyConfig(rounds=1)
"""Of every policy: 42,000 commands."""
ENCODERS: dict[str, dict[str, Any]] = {
    "ours": {},
    "simclr": {"objective": "simclr"},
    "autoencoder": {"objective": "autoencoder"},
    "fixed": {"objective": "multi_positive", "temperature": "fixed"},
}
"""What differs from the defaults."""
SEEDS = {
    "ours": 3, "simclr": 3, "oracle": 3, "random": 1, "autoencoder": 1, "fixed": 1, "reference": 1,
}  # fmt: skip
"""Of each arm. The reference is an encoder of a longer training, its policy one of this budget."""


def encoder_of(arm: str, seed: int, options: argparse.Namespace) -> Encoder | None:
    """An arm's encoder, trained if it is not there yet; None for one without."""
    if arm == "oracle":
        return None
    if arm == "reference":
        return load_encoder(options.reference)
    if arm == "random":
        return Encoder(NavigationConfig(seed=seed)).eval()
    run = options.cache / f"encoder-{arm}-{seed}"
    begun = (run / RUN_RECORD).exists()
    if not (begun and RunFolder(run).read().complete):
        config = msgspec.convert({**BUDGET, **ENCODERS[arm], "seed": seed}, NavigationConfig)
        train_navigation(
            options.pairs, run, config, resume=begun, command=__doc__.split("\n")[2].strip()
        )
    return load_encoder(run)


def cell(cache: Path, arm: str, seed: int) -> Path:
    """Where an arm's policy of a seed is, and its evaluation."""
    return cache / f"policy-{arm}-{seed}"


def evaluation_of(cache: Path, arm: str, seed: int, episodes: int) -> Path:
    """The file of an evaluation."""
    return cell(cache, arm, seed) / f"unseen-{episodes}.json"


def fill(arms: list[str], seed: int, options: argparse.Namespace, library: SceneLibrary) -> None:
    """Trains and drives all arms of a seed, as far as they are not there."""
    cache: Path = options.cache
    left = [a for a in arms if not evaluation_of(cache, a, seed, options.episodes).exists()]
    policies = {}
    for arm in left:
        encoder = encoder_of(arm, seed, options)
        sense = "lidar" if encoder is None else "embedding"
        config = msgspec.structs.replace(POLICY, sense=sense, seed=seed)
        policies[arm] = config, encoder, perception(config, encoder)
    begun = (RECORD, CHECKPOINT)
    fresh = {
        cell(cache, arm, seed): (config, perceive)
        for arm, (config, _, perceive) in policies.items()
        if not any((cell(cache, arm, seed) / FOLDER / name).exists() for name in begun)
    }
    if fresh:
        share_demonstration(fresh, library)
    for arm, (config, encoder, perceive) in policies.items():
        folder = cell(cache, arm, seed)
        if not (folder / FOLDER / RECORD).exists():
            train_policy(folder, config, encoder, resume=True, library=library)
        actor = read_actor(folder / FOLDER / WEIGHTS)
        found = evaluate_policy(actor, perceive, episodes=options.episodes, library=library)
        file = evaluation_of(cache, arm, seed, options.episodes)
        write_whole(file, msgspec.json.encode(found))
        show(rows(options))


def rows(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Each arm's figures, of all seeds that have been driven."""
    found = {}
    for arm, seeds in SEEDS.items():
        files = [evaluation_of(options.cache, arm, seed, options.episodes) for seed in range(seeds)]
        driven = [
            msgspec.json.decode(file.read_bytes(), type=Evaluation)
            for file in files
            if file.exists()
        ]
        if driven:
            found[arm] = figures(driven)
    return found


def figures(driven: list[Evaluation]) -> dict[str, Any]:
    """SR and SPL over the episodes of all seeds, and each seed's."""
    trips = [trip for each in driven for trip in each.trips]
    srs, spls = ([getattr(e.overall, name).mean for e in driven] for name in ("sr", "spl"))
    several = len(driven) > 1
    return {
        "seeds": len(driven),
        "episodes": len(trips),
        "sr": wilson(sum(trip.success for trip in trips), len(trips)),
        "spl": bootstrap(np.array([trip.spl for trip in trips])),
        "sr_of_seeds": srs,
        "spl_of_seeds": spls,
        "sr_spread": float(np.std(srs, ddof=1)) if several else None,
        "spl_spread": float(np.std(spls, ddof=1)) if several else None,
        "contacts": float(np.mean([trip.contacts for trip in trips])),
    }


def margin(options: argparse.Namespace) -> Interval | None:
    """Success rate of ours beyond SimCLR's, on the same episodes of the seeds that both have."""
    differences = []
    for seed in range(SEEDS["ours"]):
        files = [
            evaluation_of(options.cache, a, seed, options.episodes) for a in ("ours", "simclr")
        ]
        if all(file.exists() for file in files):
            ours, simclr = (
                msgspec.json.decode(file.read_bytes(), type=Evaluation).trips for file in files
            )
            differences += [a.success - b.success for a, b in zip(ours, simclr, strict=True)]
    return bootstrap(np.array(differences, float)) if differences else None


def show(found: dict[str, dict[str, Any]]) -> None:
    """The table so far."""
    names = ["arm", "seeds", "SR", "of each seed", "SPL", "contacts"]
    print(
        format_table(
            names,
            [
                [
                    arm,
                    str(of["seeds"]),
                    f"{of['sr'].mean:.3f} ({of['sr'].low:.2f} to {of['sr'].high:.2f})",
                    " ".join(f"{sr:.3f}" for sr in of["sr_of_seeds"]),
                    f"{of['spl'].mean:.3f}",
                    f"{of['contacts']:.1f}",
                ]
                for arm, of in found.items()
            ],
        ),
        flush=True,
    )


def main() -> None:
    """Trains and drives what is missing, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="what encoders learn from")
    parser.add_argument("--textures", type=Path, help="folder of images for appearances")
    parser.add_argument("--reference", type=Path, metavar="RUN", help="a longer trained encoder")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--arms", nargs="*", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    scenes = options.cache / "scenes"
    scenes.mkdir(parents=True, exist_ok=True)
    library = SceneLibrary(options.textures, painted=2 * POLICY.environments, kept=scenes)
    for seed in options.seeds:
        arms = [arm for arm in options.arms if seed < SEEDS[arm]]
        if options.reference is None and "reference" in arms:
            arms.remove("reference")
        fill(arms, seed, options, library)
    found = rows(options)
    show(found)
    report = {
        "machine": describe_machine(),
        "encoders": {"budget": BUDGET, "changes": ENCODERS, "pairs": options.pairs.name},
        "policy": POLICY,
        "task": UNSEEN,
        "arms": found,
        "ours_beyond_simclr": margin(options),
    }
    write_json(options.json_file, report)


if __name__ == "__main__":
    main()
