"""`limpet bench export` of several encoders, gathered in one file by their kinds.

    python -m tests.benchmarks.export RUN CALIBRATION [RUN CALIBRATION …] \
        [--labelled DATA --from-row N] --json tests/benchmarks/results/export.json

For an anomaly encoder with labelled recordings also AUROC and average precision at each precision:
int8 has to stay within a point of fp32. Nothing here runs on a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from limpet.export.benchmark import bench_export, describe
from limpet.export.evaluate_anomaly import evaluate_anomaly
from limpet.runtime.machine import processor_name


def main() -> None:
    """Reads the command line, measures, prints tables and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN CALIBRATION")
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--from-row", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    known = msgspec.json.decode(given.json.read_bytes()) if given.json.exists() else {}
    for run, calibration in zip(given.runs[::2], given.runs[1::2], strict=True):
        with tempfile.TemporaryDirectory() as folder:
            benchmark = bench_export(
                run, Path(folder), calibration=calibration, rounds=given.rounds, report=print
            )
            figures: dict[str, Any] = msgspec.to_builtins(benchmark)
            figures["machine"]["processor"] = processor_name()
            print(describe(benchmark))
            if given.labelled is not None and benchmark.kind == "anomaly":
                figures["labelled"] = {
                    out.name: quality(out, given.labelled, given.from_row)
                    for out in sorted(Path(folder).iterdir())
                }
                print(figures["labelled"])
        known[benchmark.kind] = figures
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(known)) + b"\n")


def quality(bundle: Path, labelled: Path, from_row: int) -> dict[str, float | None]:
    """How well a bundle finds labelled faults."""
    mean = evaluate_anomaly(bundle, labelled, from_row=from_row).mean
    return {"auroc": mean.auroc, "average_precision": mean.average_precision}


if __name__ == "__main__":
    main()
