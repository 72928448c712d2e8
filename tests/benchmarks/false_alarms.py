"""Declared against observed false-alarm rate, on normal rows that nothing was fitted to.

    python -m tests.benchmarks.false_alarms --json tests/benchmarks/results/false_alarms.json

`limpet train anomaly` on the first rows of SKAB's anomaly-free run, at a declared rate of 1 %, then
the share of all later rows, which are normal too, that reach the threshold; three seeds. The split
leaves at least 50 expected exceedances.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from limpet.contracts.recording_scores import score_recording
from limpet.contracts.recordings import load_recording
from limpet.contracts.reports import format_table, write_json
from limpet.contracts.scoring import SignalScorer
from limpet.export.anomaly import run_manifest
from limpet.export.runs import torch_run
from limpet.runtime.machine import describe_machine
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.model import load_scorer
from limpet.training.anomaly.train import train_anomaly

TRAIN_ROWS = 4400
SEEDS = (0, 1, 2)


def measure(file: Path, seed: int) -> dict[str, float]:
    """One seed."""
    config = AnomalyConfig(seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        report = train_anomaly(file, run, config, train_rows=TRAIN_ROWS)
        scorer, record = load_scorer(run)
    manifest = run_manifest("normal", scorer, record, "fp32")
    signal_scorer = SignalScorer(manifest, torch_run(scorer, manifest))
    scores = score_recording(signal_scorer, load_recording(file)).scores[TRAIN_ROWS:]
    observed = float((scores >= report.calibration.threshold).mean())
    return {
        "seed": seed,
        "declared": report.calibration.false_alarm_rate,
        "observed": observed,
        "rows": len(scores),
        "expected_exceedances": report.calibration.false_alarm_rate * len(scores),
        "ratio": observed / report.calibration.false_alarm_rate,
        "train_s": report.seconds,
    }


def main() -> None:
    """Measures every seed, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/skab"))
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    file = options.data / "anomaly-free" / "anomaly-free.csv"
    results = [measure(file, seed) for seed in SEEDS]
    names = list(results[0])
    print(format_table(names, [[f"{result[name]:.4g}" for name in names] for result in results]))
    print(f"mean ratio: {np.mean([result['ratio'] for result in results]):.2f}")
    write_json(options.json_file, {"machine": describe_machine(), "results": results})


if __name__ == "__main__":
    main()
