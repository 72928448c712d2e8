"""How well policies drive in unseen layouts and appearances: ours against controls.

    python -m tests.benchmarks.navigation_policy --textures ../shared/data/textures \
        --encoder ours=RUN simclr=RUN … --json tests/benchmarks/results/navigation.json

Every arm is trained alike (`PolicyConfig`'s defaults), in appearances that its encoder never saw,
and drives the same episodes in layouts and appearances that nothing was trained in. Arms differ in
what they drive by: the LiDAR (oracle), nothing (blind), a frozen encoder, or an image encoder
trained along (end to end, with fewer commands). An arm without a finished RUN of its encoder is
skipped, and said to be missing.

Cells (arm × seed), their evaluations and the scenes of these (2.4 GB) are kept under --cache, so
the command goes on where it stopped; --train ARM … limits what is trained, the table always shows
all that is there.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from limpet.contracts.reports import format_table, write_json
from limpet.contracts.whole_files import write_whole
from limpet.runtime.demo.trips import Trip, draw_trips
from limpet.runtime.machine import describe_machine
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder, load_encoder
from limpet.training.navigation.policy import read_actor
from limpet.training.navigation.policy_config import PolicyConfig, SenseName
from limpet.training.navigation.policy_evaluation import (
    HELD_OUT,
    UNSEEN,
    Evaluation,
    bootstrap,
    evaluate_policy,
    wilson,
)
from limpet.training.navigation.policy_train import FOLDER, RECORD, train_policy
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import perception
from limpet.training.run import WEIGHTS

SEEDS: dict[str, int] = {
    "oracle": 3, "blind": 1, "random": 1, "ours": 3, "simclr": 3, "fixed": 1, "autoencoder": 1,
    "ours_short": 1, "ours_moment": 1,
    "end_to_end": 1,
}  # fmt: skip
"""Seeds of each arm, in the order of training. `ours_short` is ours with as many steps of its
encoder as the other controls have; `ours_moment` drives by its encoder without a memory."""
SENSES: dict[str, SenseName] = {"oracle": "lidar", "blind": "nothing", "end_to_end": "pixels"}
CHANGES: dict[str, dict[str, int]] = {
    # Recordings of images, and gradients through a convolutional network, take their toll.
    "end_to_end": {"demonstrated_steps": 10_000, "rounds": 4, "round_steps": 5_000},
    "ours_moment": {"memory": 0},
}
"""Where an arm is not trained as the others."""
TASKS = {"unseen": UNSEEN, "held_out": HELD_OUT}


def encoder_of(arm: str, runs: dict[str, Path]) -> Encoder | None:
    """The frozen encoder of an arm, None for one without; FileNotFoundError where it is missing."""
    if arm in SENSES:
        return None
    if arm == "random":
        return Encoder(NavigationConfig()).eval()
    if arm == "ours_moment":
        arm = "ours"
    if arm not in runs or not (runs[arm] / WEIGHTS).exists():
        raise FileNotFoundError(f"{arm}: no RUN given that is finished")
    return load_encoder(runs[arm])


def digest(encoder: Encoder | None) -> str:
    """Tells an encoder's weights from others'; empty for none."""
    if encoder is None:
        return ""
    weights = b"".join(value.numpy().tobytes() for value in encoder.state_dict().values())
    return hashlib.sha256(weights).hexdigest()[:12]


def cell(
    folder: Path,
    arm: str,
    seed: int,
    encoder: Encoder | None,
    options: argparse.Namespace,
) -> dict[str, Evaluation]:
    """Trains and evaluates one cell, or takes what is there."""
    config = PolicyConfig(sense=SENSES.get(arm, "embedding"), seed=seed)
    config = msgspec.structs.replace(config, **CHANGES.get(arm, {}))
    if not (folder / FOLDER / RECORD).exists():
        train_policy(folder, config, encoder, options.textures, resume=True)
    scenes = options.cache / "scenes"  # Every arm drives in the same: each is painted once.
    scenes.mkdir(exist_ok=True)
    library = SceneLibrary(options.textures, painted=16, kept=scenes)
    actor = read_actor(folder / FOLDER / WEIGHTS)
    found = {}
    for name, task in TASKS.items():
        file = folder / f"{name}.json"
        if not file.exists():
            evaluation = evaluate_policy(
                actor,
                perception(config, encoder),
                task,
                episodes=options.episodes if name == "unseen" else 100,
                library=library,
            )
            write_whole(file, msgspec.json.encode(evaluation))
        found[name] = msgspec.json.decode(file.read_bytes(), type=Evaluation)
    return found


def figures(cells: list[dict[str, Evaluation]]) -> dict[str, Any]:
    """SR and SPL of an arm: over all seeds' episodes, each seed's, each appearance's."""
    trips = [trip for each in cells for trip in each["unseen"].trips]
    by_seed = [each["unseen"].overall for each in cells]
    appearances = sorted({trip.appearance for trip in trips})
    return {
        "episodes": len(trips),
        "sr": wilson(sum(trip.success for trip in trips), len(trips)),
        "spl": bootstrap(np.array([trip.spl for trip in trips])),
        "contacts": float(np.mean([trip.contacts for trip in trips])),
        "sr_of_seeds": [one.sr.mean for one in by_seed],
        "spl_of_seeds": [one.spl.mean for one in by_seed],
        "sr_spread": float(np.std([one.sr.mean for one in by_seed], ddof=1))
        if len(cells) > 1
        else None,
        "sr_by_appearance": {
            seed: float(np.mean([t.success for t in trips if t.appearance == seed]))
            for seed in appearances
        },
        "sr_held_out": float(np.mean([each["held_out"].overall.sr.mean for each in cells])),
    }


def picture(path: Path, evaluation: Evaluation, number: int = 6) -> None:
    """The first trips, each in its layout, side by side."""
    library = SceneLibrary()
    trips = [
        Trip(
            path=np.array(trip.path),
            goal=np.array(trip.goal),
            success=trip.success,
            obstacles=library.layout(trip.layout).footprints.outlines(),
        )
        for trip in evaluation.trips[:number]
    ]
    draw_trips(path, trips, "Unseen layouts in unseen appearances")


def main() -> None:
    """Trains what is missing, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--textures", type=Path, help="folder of images for appearances")
    parser.add_argument("--encoder", nargs="*", metavar="ARM=RUN", default=[])
    parser.add_argument(
        "--cache", type=Path, default=Path("~/.cache/limpet/navigation").expanduser()
    )
    parser.add_argument("--train", nargs="*", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--json", type=Path, dest="json_file")
    parser.add_argument("--picture", type=Path, help="PNG of trips of `ours`, or of the oracle")
    options = parser.parse_args()
    runs = {arm: Path(run) for arm, _, run in (item.partition("=") for item in options.encoder)}
    cells: dict[str, list[dict[str, Evaluation]]] = {}
    encoders, missing = {}, []
    for arm in SEEDS:
        try:
            encoders[arm] = encoder_of(arm, runs)
        except FileNotFoundError as error:
            missing.append(str(error))
    for seed in range(max(SEEDS.values())):  # the first seed of every arm before the second of any
        for arm, encoder in encoders.items():
            folder = options.cache / f"policy-{arm}{digest(encoder)}-{seed}"
            there = all((folder / f"{name}.json").exists() for name in TASKS)
            if seed < SEEDS[arm] and (there or arm in options.train):
                cells.setdefault(arm, []).append(cell(folder, arm, seed, encoder, options))
                show(cells)
    report = {
        "machine": describe_machine(),
        "config": PolicyConfig(),
        "tasks": TASKS,
        "missing": missing,
        "arms": {arm: figures(found) for arm, found in cells.items()},
    }
    write_json(options.json_file, report)
    if options.picture is not None:
        picture(options.picture, cells["ours" if "ours" in cells else "oracle"][0]["unseen"])
    for line in missing:
        print("missing:", line)


def show(cells: dict[str, list[dict[str, Evaluation]]]) -> None:
    """The table so far."""
    rows = []
    for arm, found in cells.items():
        of = figures(found)
        sr, spl = of["sr"], of["spl"]
        rows.append(
            [
                arm,
                str(len(found)),
                f"{sr.mean:.3f} ({sr.low:.2f} to {sr.high:.2f})",
                f"{spl.mean:.3f}",
                f"{min(of['sr_by_appearance'].values()):.2f}",
                f"{of['contacts']:.1f}",
                f"{of['sr_held_out']:.2f}",
            ]
        )
    names = ["arm", "seeds", "SR", "SPL", "SR worst appearance", "contacts", "SR held out"]
    print(format_table(names, rows), flush=True)


if __name__ == "__main__":
    main()
