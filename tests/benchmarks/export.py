"""`limpet bench export` of several encoders, gathered in one file by their kinds, with what a lower
precision costs in the task's terms.

    python -m tests.benchmarks.export RUN CALIBRATION [RUN CALIBRATION …] \
        [--labelled DATA --from-row N] [--images FOLDER] [--textures FOLDER --episodes N] \
        [--scenes FOLDER --views N] --json tests/benchmarks/results/export.json

The task's part, each of the same recordings, images, episodes or views at every precision: of an
anomaly encoder AUROC and average precision on labelled recordings; of an image encoder nearest
neighbours and actions on images, and the success rate of drives; of a grasp encoder average
precision on test views of a data set in GraspNet's layout, and whether fp32's grasps are found
again. What is not asked for stays as it is in the file.

Bundles are kept with --bundles FOLDER and taken from there the next time; with --task nothing else
is measured. Nothing here runs on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.export.benchmark import PRECISIONS, bench_export, describe
from limpet.runtime.machine import processor_name
from limpet.training.run import RunFolder
from tests.benchmarks.export_task import on_drives, on_images, on_recordings, on_views


def main() -> None:
    """Reads the command line, measures, prints tables and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN CALIBRATION")
    parser.add_argument("--labelled", type=Path, help="recordings with labels")
    parser.add_argument("--from-row", type=int, default=0)
    parser.add_argument("--images", type=Path, help="images that nothing was calibrated with")
    parser.add_argument("--episodes", type=int, default=0)
    parser.add_argument("--textures", type=Path, help="folder of images for appearances")
    parser.add_argument("--scenes", type=Path, help="data set in GraspNet's layout")
    parser.add_argument("--views", type=int, default=2, help="of each scene")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--bundles", type=Path, help="keep the bundles here")
    parser.add_argument("--task", action="store_true", help="only the task's part")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    if given.task and given.bundles is None:
        parser.error("--task needs the --bundles of an earlier time")
    known = msgspec.json.decode(given.json.read_bytes()) if given.json.exists() else {}
    for run, calibration in zip(given.runs[::2], given.runs[1::2], strict=True):
        kind = RunFolder(run).read_complete().kind
        with contextlib.ExitStack() as stack:
            folder = given.bundles or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / kind).mkdir(parents=True, exist_ok=True)
            figures = known.setdefault(kind, {})
            if not given.task:
                figures |= measured(run, folder / kind, calibration, given.rounds)
            bundles = {
                name: read_bundle(folder / kind / name)
                for name in PRECISIONS
                if (folder / kind / name).exists()
            }
            task = in_task(kind, bundles, given)
            print(msgspec.json.format(msgspec.json.encode(task)).decode())
            figures["task"] = {**figures.get("task", {}), **task}
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(known)) + b"\n")


def measured(run: Path, folder: Path, calibration: Path, rounds: int) -> dict[str, Any]:
    """What `limpet bench export --json` writes."""
    benchmark = bench_export(run, folder, calibration=calibration, rounds=rounds, report=print)
    print(describe(benchmark))
    figures: dict[str, Any] = msgspec.to_builtins(benchmark)
    figures["machine"]["processor"] = processor_name()
    return figures


def in_task(kind: str, bundles: dict[str, Bundle], given: argparse.Namespace) -> dict[str, Any]:
    """The task's part, as far as there is data for it."""
    found: dict[str, Any] = {}
    if kind == "anomaly" and given.labelled is not None:
        found["recordings"] = on_recordings(bundles, given.labelled, given.from_row)
    if kind == "navigation" and given.images is not None:
        found["images"] = on_images(bundles, given.images)
    if kind == "navigation" and given.episodes:
        found["drives"] = on_drives(bundles, given.episodes, given.textures)
    if kind == "grasp" and given.scenes is not None:
        found["views"] = on_views(bundles, given.scenes, given.views)
    return found


if __name__ == "__main__":
    main()
