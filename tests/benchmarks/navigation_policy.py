"""How well policies drive in unseen layouts and appearances: the reference policy and its bounds.

    python -m tests.benchmarks.navigation_policy --textures ../shared/data/textures \
        --encoder RUN --json tests/benchmarks/results/navigation.json

Every arm is trained for itself by `PolicyConfig`'s defaults, in appearances that no encoder saw,
and drives the same episodes in layouts and appearances that nothing was trained in. Arms differ in
what they drive by: the LiDAR (oracle), nothing (blind), the frozen encoder of RUN, or an image
encoder trained along (end to end, with fewer commands). Other encoders are compared with it at one
budget, with several seeds, by `navigation_matched`.

Policies, evaluations and the scenes of these (2.4 GB) are kept under --cache, so the command goes
on where it stopped; --train ARM … limits what is trained, the table shows all that is there.
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
from limpet.training.navigation.encoder import Encoder, load_encoder
from limpet.training.navigation.policy import read_actor
from limpet.training.navigation.policy_config import PolicyConfig, SenseName
from limpet.training.navigation.policy_evaluation import (
    HELD_OUT,
    UNSEEN,
    Evaluation,
    evaluate_policy,
)
from limpet.training.navigation.policy_train import FOLDER, RECORD, train_policy
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import perception
from limpet.training.run import WEIGHTS

ARMS = ("oracle", "blind", "ours", "ours_moment", "end_to_end")
"""In the order of training. `ours_moment` drives by its encoder without a memory."""
SENSES: dict[str, SenseName] = {"oracle": "lidar", "blind": "nothing", "end_to_end": "pixels"}
CHANGES: dict[str, dict[str, int]] = {
    # Recordings of images, and gradients through a convolutional network, take their toll.
    "end_to_end": {"demonstrated_steps": 10_000, "rounds": 4, "round_steps": 5_000},
    "ours_moment": {"memory": 0},
}
"""Where an arm is not trained as the others."""
TASKS = {"unseen": UNSEEN, "held_out": HELD_OUT}


def digest(encoder: Encoder | None) -> str:
    """Tells an encoder's weights from others'; empty for none."""
    if encoder is None:
        return ""
    weights = b"".join(value.numpy().tobytes() for value in encoder.state_dict().values())
    return hashlib.sha256(weights).hexdigest()[:12]


def cell(
    folder: Path, arm: str, encoder: Encoder | None, options: argparse.Namespace
) -> dict[str, Evaluation]:
    """Trains and evaluates an arm, or takes what is there."""
    config = PolicyConfig(sense=SENSES.get(arm, "embedding"))
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


def figures(cell: dict[str, Evaluation]) -> dict[str, Any]:
    """SR and SPL of an arm: over all episodes, and in each appearance."""
    unseen = cell["unseen"]
    return {
        "episodes": unseen.overall.episodes,
        "sr": unseen.overall.sr,
        "spl": unseen.overall.spl,
        "contacts": unseen.overall.contacts,
        "sr_by_appearance": {seed: of.sr.mean for seed, of in unseen.by_appearance.items()},
        "sr_held_out": cell["held_out"].overall.sr.mean,
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
    parser.add_argument("--encoder", type=Path, metavar="RUN", required=True)
    parser.add_argument(
        "--cache", type=Path, default=Path("~/.cache/limpet/navigation").expanduser()
    )
    parser.add_argument("--train", nargs="*", choices=ARMS, default=ARMS)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--json", type=Path, dest="json_file")
    parser.add_argument("--picture", type=Path, help="PNG of trips of `ours`, or of the oracle")
    options = parser.parse_args()
    encoder = load_encoder(options.encoder)
    cells: dict[str, dict[str, Evaluation]] = {}
    for arm in ARMS:
        seeing = None if arm in SENSES else encoder
        folder = options.cache / f"policy-{arm}{digest(seeing)}-0"
        there = all((folder / f"{name}.json").exists() for name in TASKS)
        if there or arm in options.train:
            cells[arm] = cell(folder, arm, seeing, options)
            show(cells)
    report = {
        "machine": describe_machine(),
        "config": PolicyConfig(),
        "tasks": TASKS,
        "arms": {arm: figures(found) for arm, found in cells.items()},
    }
    write_json(options.json_file, report)
    if options.picture is not None:
        picture(options.picture, cells["ours" if "ours" in cells else "oracle"]["unseen"])


def show(cells: dict[str, dict[str, Evaluation]]) -> None:
    """The table so far."""
    rows = []
    for arm, found in cells.items():
        of = figures(found)
        sr, spl = of["sr"], of["spl"]
        rows.append(
            [
                arm,
                f"{sr.mean:.3f} ({sr.low:.2f} to {sr.high:.2f})",
                f"{spl.mean:.3f}",
                f"{min(of['sr_by_appearance'].values()):.2f}",
                f"{of['contacts']:.1f}",
                f"{of['sr_held_out']:.2f}",
            ]
        )
    names = ["arm", "SR", "SPL", "SR worst appearance", "contacts", "SR held out"]
    print(format_table(names, rows), flush=True)


if __name__ == "__main__":
    main()
