"""Are labels right? Lift success in MuJoCo of grasps by what their labels say.

    python -m tests.benchmarks.grasp_labels --data ROOT --scenes 0 100 130 160 \
        --json tests/benchmarks/results/grasp_labels.json

Of each object in each scene some grasps of every lowest friction are drawn, free of collisions by
their labels, and as many without force closure whose opened gripper (10 cm) is free all the same.
A lift knows nothing of labels: it closes on convex pieces, not on the mesh, and lifts and shakes.
"""

from __future__ import annotations

import argparse
import collections
import json
import time
from pathlib import Path

import numpy as np

from limpet.contracts.grasp_frames import inverse_pose
from limpet.training.grasp.scenes.gripper import (
    HEIGHT_M,
    MAX_WIDTH_M,
    DistanceGrid,
    Grasps,
    collides,
    lowest,
)
from limpet.training.grasp.scenes.labels import FRICTIONS, candidates
from limpet.training.grasp.scenes.layout import collision_file, read_labels
from limpet.training.grasp.scenes.lift import lift_success, read_settled
from limpet.training.grasp.scenes.objects import make_object


def rows_of(grasps: Grasps, number: int) -> np.ndarray:
    """GraspNet rows of grasps on one object. (k, 17)"""
    rows = np.zeros((len(grasps), 17))
    rows[:, 1], rows[:, 2], rows[:, 3] = 2 * grasps.half, HEIGHT_M, grasps.depth
    columns = np.stack([grasps.approach, grasps.closing, grasps.height], axis=-1)
    rows[:, 4:13], rows[:, 13:16], rows[:, 16] = columns.reshape(-1, 9), grasps.origin, number
    return rows


def main() -> None:
    """Draws, lifts, reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenes", type=int, nargs="+", required=True)
    parser.add_argument("--each", type=int, default=3, help="grasps of a kind and object")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    seconds = 0.0
    for scene in options.scenes:
        settled = read_settled(options.data, scene)
        grids = [DistanceGrid(make_object(number).mesh) for number in settled.objects]
        kinds, rows = [], []
        with np.load(collision_file(options.data, scene)) as collisions:
            for k, number in enumerate(settled.objects):
                labels = read_labels(options.data, number)
                free = ~collisions[f"arr_{k}"]
                pose = settled.poses[k]
                for mu in FRICTIONS:
                    some = np.flatnonzero(free & (labels.friction == round(10 * mu)))
                    some = rng.permutation(some)[: options.each]
                    grasps = candidates(labels.points, some, labels.width.ravel()[some])
                    rows.append(rows_of(grasps.moved(pose), number))
                    kinds += [str(mu)] * len(some)
                some = rng.permutation(np.flatnonzero(labels.friction == 0))[:20_000]
                wide = np.full(len(some), MAX_WIDTH_M, np.float32)
                grasps = candidates(labels.points, some, wide).moved(pose)
                clear = lowest(grasps) > 0
                for grid, other in zip(grids, settled.poses, strict=True):
                    clear[clear] = ~collides(grasps[clear].moved(inverse_pose(other)), grid)
                kept = np.flatnonzero(clear)[: len(FRICTIONS) * options.each]
                rows.append(rows_of(grasps[kept], number))
                kinds += ["none"] * len(kept)
        start = time.perf_counter()
        for kind, lift in zip(kinds, lift_success(settled, np.concatenate(rows)), strict=True):
            outcomes[kind][lift.outcome] += 1
        seconds += time.perf_counter() - start
    report = {}
    for kind in [*map(str, FRICTIONS), "none"]:
        count = outcomes[kind]
        report[kind] = {"grasps": count.total(), "success": count["held"] / max(count.total(), 1)}
        report[kind] |= {name: number for name, number in sorted(count.items()) if name != "held"}
        print(kind, report[kind])
    number = sum(count.total() for count in outcomes.values())
    summary = {"scenes": options.scenes, "s_per_lift": seconds / number, "by_label": report}
    if options.json is not None:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
