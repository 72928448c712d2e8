"""Declared against observed false-alarm rate, on normal rows that nothing was fitted to.

    python -m tests.benchmarks.false_alarms --json tests/benchmarks/results/false_alarms.json
    python -m tests.benchmarks.false_alarms --on nab plants

`limpet train anomaly` on the first rows of SKAB's anomaly-free run, at a declared rate of 1 %, then
the share of all later rows, which are normal too, that reach the threshold; three seeds. The split
leaves at least 50 expected exceedances. SKAB is for the report alone: calibration was developed on
the rows of NAB that precede a stream's first label, half of which train, and on synthetic plants
(`lasting_faults`) without any fault, that keep still, change their operating point or wander off.

Dimension legend: n rows, c channels.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.recordings import load_recording
from limpet.contracts.reports import format_table, write_json
from limpet.contracts.scoring import SignalScorer
from limpet.export.anomaly import run_manifest
from limpet.export.runs import torch_run
from limpet.runtime.machine import describe_machine
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.model import load_scorer
from limpet.training.anomaly.train import train_anomaly
from tests.benchmarks.anomaly.series import nab
from tests.benchmarks.lasting_faults import CHANNELS, causes, draw_plant, operating_point

Values = NDArray[np.float64]
Stream = tuple[str, Values, int]
"""A name, normal rows (n, c), and how many of them train."""

TRAIN_ROWS = 4400
SEEDS = (0, 1, 2)
LEAST_ROWS = 600
"""Normal rows of a stream, of which half train, at least."""
PLANT_ROWS = (800, 3000)


def skab_streams(data: Path) -> Iterator[Stream]:
    """SKAB's anomaly-free run."""
    recording = load_recording(data / "skab" / "anomaly-free" / "anomaly-free.csv")
    yield "skab", recording.values, TRAIN_ROWS


def nab_streams(data: Path) -> Iterator[Stream]:
    """What precedes the first label of NAB's streams, less a twentieth."""
    for series in nab(data):
        rows = int(0.95 * np.flatnonzero(series.labels)[0])
        if rows >= LEAST_ROWS:
            yield f"nab {series.name}", series.values[:rows], rows // 2


def plant_streams(_: Path) -> Iterator[Stream]:
    """Synthetic plants, two of each kind and length."""
    for k, kind in enumerate(("steady", "moving", "wandering")):
        for rows in PLANT_ROWS:
            for number in range(2):
                rng = np.random.default_rng([77, rows, number, k])
                plant, n = draw_plant(rng), 2 * rows
                x = causes(rng, n) @ plant.mix + rng.normal(size=(n, CHANNELS)) * plant.noise
                if kind == "moving":
                    x += operating_point(rng, kind, rows, n)[:, None] * plant.load
                elif kind == "wandering":  # each channel by itself, by one unit in training
                    x += np.cumsum(rng.normal(size=(n, CHANNELS)), axis=0) / np.sqrt(rows)
                yield f"{kind} plant {number}", x, rows


SOURCES: dict[str, Callable[[Path], Iterator[Stream]]] = {
    "skab": skab_streams, "nab": nab_streams, "plants": plant_streams,
}  # fmt: skip


def measure(stream: Stream, seed: int) -> dict[str, float | str]:
    """One stream and seed."""
    name, values, train_rows = stream
    with tempfile.TemporaryDirectory() as folder:
        file, run = Path(folder) / "normal.npz", Path(folder) / "run"
        np.savez(file, x=values)
        config = AnomalyConfig(seed=seed)
        report = train_anomaly(file, run, config, key="x", rate_hz=1.0, train_rows=train_rows)
        scorer, record = load_scorer(run)
    manifest = run_manifest("normal", scorer, record, "fp32")
    scores = SignalScorer(manifest, torch_run(scorer, manifest)).push(values).scores[train_rows:]
    observed = float((scores >= report.calibration.threshold).mean())
    return {
        "stream": name,
        "seed": seed,
        "train_rows": train_rows,
        "declared": report.calibration.false_alarm_rate,
        "observed": observed,
        "rows": len(scores),
        "expected_exceedances": report.calibration.false_alarm_rate * len(scores),
        "ratio": observed / report.calibration.false_alarm_rate,
        "train_s": report.seconds,
    }


def main() -> None:
    """Measures every stream and seed, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--on", nargs="+", choices=[*SOURCES], default=["skab"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS])
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    streams = [stream for source in options.on for stream in SOURCES[source](options.data)]
    results = [measure(stream, seed) for stream in streams for seed in options.seeds]
    names = list(results[0])
    rows = [
        [f"{x:.4g}" if isinstance(x, float) else str(x) for x in result.values()]
        for result in results
    ]
    print(format_table(names, rows))
    print(f"mean ratio: {np.mean([float(result['ratio']) for result in results]):.2f}")
    write_json(options.json_file, {"machine": describe_machine(), "results": results})


if __name__ == "__main__":
    main()
