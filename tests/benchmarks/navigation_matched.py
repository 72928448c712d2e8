"""Encoders under one budget: as many steps on the same images for each, then policies alike.

    nice python -m tests.benchmarks.navigation_matched --pairs DIR --cache DIR \
        --unseen DIR --textures ../shared/data/textures \
        --json tests/benchmarks/results/navigation_matched.json

A seed is that of an encoder and of the weights of its policy. All policies learn from the same
drives: a demonstration of the LiDAR driver, and rounds in which each policy drives its share
(`limpet.training.navigation.common_drives`); so images are rendered once for all. Then each drives
the same episodes in layouts and appearances that nothing was trained in. The pairs are those of
`python -m limpet.training.navigation.pairs`, of the set `encoder`; the unseen ones are of the set
`test`, in other layouts, and on them the encoders themselves are judged.

All is kept under --cache, so the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from limpet.contracts.reports import format_table, write_json
from limpet.contracts.whole_files import write_whole
from limpet.runtime.machine import describe_machine
from limpet.training.intervals import Interval, bootstrap, wilson
from limpet.training.navigation.common_drives import Pupil, train_together
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder, load_encoder
from limpet.training.navigation.frames import open_frames
from limpet.training.navigation.policy_config import PolicyConfig, SenseName
from limpet.training.navigation.policy_evaluation import (
    UNSEEN,
    Evaluation,
    evaluate_policy,
)
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import perception
from limpet.training.navigation.train import train_navigation
from limpet.training.run import RECORD as RUN_RECORD
from limpet.training.run import RunFolder
from limpet.training.threads import one_thread
from tests.benchmarks.navigation_encoder import JUDGED, embedder, judge

BUDGET = {"steps": 1600, "precision": "bf16"}
"""Of every encoder that is trained, beside its defaults: that of the reference bundle."""
ENCODERS: dict[str, dict[str, Any]] = {
    "ours": {},
    "simclr": {"objective": "simclr"},
    "autoencoder": {"objective": "autoencoder"},
    "fixed": {"objective": "multi_positive", "temperature": "fixed"},
}
"""What differs from the defaults."""
SEEDS = {"ours": 3, "simclr": 3, "oracle": 3, "random": 1, "autoencoder": 1, "fixed": 1}
"""Of each arm."""
ARMS = [(arm, seed) for seed in range(3) for arm, seeds in SEEDS.items() if seed < seeds]
POLICY = PolicyConfig(
    rounds=4, round_steps=20_000, last_epochs=12, environments=2 * len(ARMS), episodes_per_scene=4
)
"""Of all policies together: 110,000 commands that each learns from."""


def encoder_of(arm: str, seed: int, options: argparse.Namespace) -> Encoder | None:
    """An arm's encoder, trained if it is not there yet; None for one without."""
    if arm == "oracle":
        return None
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


def pupil_of(encoder: Encoder | None, seed: int) -> Pupil:
    """What an arm's policy drives by."""
    sense: SenseName = "lidar" if encoder is None else "embedding"
    return Pupil(perception(msgspec.structs.replace(POLICY, sense=sense), encoder), seed)


def spearman(encoders: Mapping[tuple[str, int], Encoder | None], unseen: Path) -> dict[str, Any]:
    """Rank correlation of geometric and embedding similarity, of each seed's encoder by arm."""
    frames = open_frames(unseen, JUDGED.image)
    found: dict[str, Any] = {}
    with one_thread():
        for (arm, _), encoder in encoders.items():
            if encoder is not None:
                judged = judge(embedder(encoder), {"unseen": frames})["unseen"]
                found.setdefault(arm, []).append(judged.spearman)
    return {"poses": len(frames), "views": frames.views, "of_seeds": found}


def evaluation_of(cache: Path, arm: str, seed: int, episodes: int) -> Path:
    """The file of an evaluation."""
    return cache / "policies" / f"{arm}-{seed}" / f"unseen-{episodes}.json"


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
    parser.add_argument("--unseen", type=Path, required=True, help="what they are judged on")
    parser.add_argument("--textures", type=Path, help="folder of images for appearances")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    scenes = options.cache / "scenes"
    scenes.mkdir(parents=True, exist_ok=True)
    painted, geometries = 2 * POLICY.environments, 2 * POLICY.environments
    library = SceneLibrary(options.textures, geometries, painted, kept=scenes)
    encoders = {(arm, seed): encoder_of(arm, seed, options) for arm, seed in ARMS}
    pupils = {f"{arm}-{seed}": pupil_of(encoder, seed) for (arm, seed), encoder in encoders.items()}
    actors = train_together(options.cache / "policies", pupils, POLICY, library)
    for arm, seed in ARMS:
        file = evaluation_of(options.cache, arm, seed, options.episodes)
        if not file.exists():
            name = f"{arm}-{seed}"
            driven = evaluate_policy(
                actors[name], pupils[name].perceive, episodes=options.episodes, library=library
            )
            write_whole(file, msgspec.json.encode(driven))
            show(rows(options))
    found = rows(options)
    show(found)
    ranks = spearman(encoders, options.unseen)
    for arm, each in ranks["of_seeds"].items():
        print(f"rank correlation of {arm}: {' '.join(f'{rank:.3f}' for rank in each)}")
    report = {
        "machine": describe_machine(),
        "encoders": {"budget": BUDGET, "changes": ENCODERS, "pairs": options.pairs.name},
        "policy": POLICY,
        "task": UNSEEN,
        "arms": found,
        "spearman": ranks,
        "ours_beyond_simclr": margin(options),
    }
    write_json(options.json_file, report)


if __name__ == "__main__":
    main()
