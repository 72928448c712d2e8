"""The anomaly encoder, its ablations and its controls on all recordings; resumable.

    python -m tests.benchmarks.anomaly --data ../shared/data
    python -m tests.benchmarks.anomaly --datasets skab       only these figures of the JSON anew

Every cell (method, seed, series) is cached under `--cache`, keyed by the sources that it depends
on, so an interrupted run goes on and a changed method starts anew. Each figure in the JSON carries
the commit that it was measured at: with `--datasets` or `--finished` those that were not measured
now stay as they were. SMAP and SKAB were only measured
here; NAB, UCR, CWRU, FEMTO and the robot failures are what the method was developed on.

- SMAP, NAB, UCR: fitted on the training prefix, the whole series scored; VUS-PR by TSB-AD itself.
- SKAB: every third run, fitted on its first 400 rows; AUROC of each run's other rows; F1, FAR and
  MAR at the calibrated threshold, pooled.
- CWRU: AUROC of windows of unit RMS by fault; FEMTO: Spearman of the smoothed score with time;
  robot failures: AUROC of segments.

Rows without a score count with the first score of their series.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from limpet.contracts.reports import format_table, write_json
from limpet.runtime.machine import describe_machine
from limpet.training.run import source_commit
from tests.benchmarks.anomaly import methods, series
from tests.benchmarks.anomaly.cells import Cell, compute
from tests.benchmarks.anomaly.figures import summarise
from tests.benchmarks.anomaly.pictures import draw_all
from tests.benchmarks.anomaly.series import Segments, Series

REPOSITORY = Path(__file__).resolve().parents[3]
SOURCES = (
    "training/limpet/training/anomaly",
    "training/limpet/training/fit.py",
    "runtime/limpet/contracts/signals.py",
    "runtime/limpet/contracts/signal_preprocessor.py",
    "runtime/limpet/contracts/signal_steps.py",
    "runtime/limpet/contracts/signal_runners.py",
    "tests/benchmarks/anomaly/methods.py",
    "tests/benchmarks/anomaly/series.py",
)
RESULTS = REPOSITORY / "tests/benchmarks/results/anomaly.json"
SEEDS = (0, 1, 2)
SKAB_EVERY = 3
PROCESSES = 2


def load_all(data: Path) -> list[Series | Segments]:
    """All series, those of the report first."""
    sources: list[Iterable[Series | Segments]] = [
        series.smap(data), series.skab(data, SKAB_EVERY), series.cwru(data), series.femto(data),
        series.nab(data), series.ucr(data), series.robot_failures(data),
    ]  # fmt: skip
    return list(itertools.chain.from_iterable(sources))


def plan(items: Sequence[Series | Segments]) -> list[Cell]:
    """Everything with one seed first, then ours with the others, then the lesser ablations."""
    report = [item for item in items if item.dataset in ("smap", "skab", "nab")]
    first, *others = SEEDS
    cells = [Cell("ours", first, item) for item in items]
    cells += [Cell(method, first, item) for method in methods.BASELINES for item in items]
    main, *lesser = (method for method in methods.TRAINED if method != "ours")
    cells += [Cell(main, first, item) for item in report]
    cells += [Cell("ours", seed, item) for seed in others for item in items]
    cells += [Cell(method, first, item) for method in lesser for item in report]
    return cells


def _whole_sets(cells: Sequence[Cell], missing: Sequence[Cell]) -> list[Cell]:
    """Cells of those methods, seeds and data sets of which no cell is missing."""
    gaps = {(cell.method, cell.seed, cell.item.dataset) for cell in missing}
    return [c for c in cells if (c.method, c.seed, c.item.dataset) not in gaps]


def fingerprint() -> str:
    """Digest of the sources that results depend on."""
    digest = hashlib.sha256()
    for source in SOURCES:
        path = REPOSITORY / source
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def main() -> None:
    """Computes what is missing, then prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=REPOSITORY / "../shared/data")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/limpet/anomaly").expanduser())
    parser.add_argument("--json", type=Path, dest="json_file", default=RESULTS)
    parser.add_argument("--datasets", nargs="+", help="only these")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument(
        "--finished", action="store_true", help="report what is cached, fit nothing"
    )
    parser.add_argument(
        "--pictures", action="store_true",
        help="draw some series of each data set beside the JSON, from it and the cache; no more",
    )  # fmt: skip
    options = parser.parse_args()
    folder = options.cache / fingerprint()
    folder.mkdir(parents=True, exist_ok=True)
    items = load_all(options.data)
    if options.pictures:
        drawn = ("ours", *methods.BASELINES)
        cells = [Cell(method, SEEDS[0], item) for method in drawn for item in items]
        absent = sum(not (folder / cell.file).exists() for cell in cells)
        if absent:
            raise SystemExit(f"{absent} cells are not in {folder}: run without --pictures first")
        results = json.loads(options.json_file.read_text())["results"]
        paths = draw_all(
            options.json_file.parent, items, results, lambda cell: np.load(folder / cell.file)
        )
        print(*paths, sep="\n")
        return
    if options.datasets:
        items = [item for item in items if item.dataset in options.datasets]
    cells = plan(items)
    missing = [cell for cell in cells if not (folder / cell.file).exists()]
    print(
        f"{len(cells) - len(missing)} of {len(cells)} cells are cached in {folder}", file=sys.stderr
    )
    if options.finished:
        cells, missing = _whole_sets(cells, missing), []
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(compute, cell, folder): cell for cell in missing}
        for done, job in enumerate(as_completed(jobs), 1):
            cell = jobs[job]
            print(
                f"{done}/{len(missing)} {cell.method}, seed {cell.seed}: "
                f"{cell.item.dataset} {cell.item.name}",
                file=sys.stderr,
                flush=True,
            )
            job.result()
    report = summarise(cells, lambda cell: np.load(folder / cell.file))
    print(format_table(report.header, report.table))
    print(json.dumps(report.facts, indent=1))
    before = json.loads(options.json_file.read_text()) if options.json_file.exists() else {}
    new = [{**result, "commit": source_commit()} for result in report.results]
    results = merge(before.get("results", []), new)
    write_json(options.json_file, {"machine": describe_machine(), "results": results})


def merge(
    before: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Results in which the new ones take the place of those of the same method and figure."""

    def key(result: Mapping[str, Any]) -> tuple[str, str]:
        return result["method"], result["figure"]

    by_key = {key(result): result for result in new}
    kept = [by_key.pop(key(result), result) for result in before]
    return [*kept, *by_key.values()]


if __name__ == "__main__":
    main()
