"""The whole path on the Skoltech Anomaly Benchmark, through the command line and real sockets.

    python -m tests.benchmarks.spine_skab --data ../shared/data/skab --json results/spine_skab.json

Trains on `anomaly-free.csv`, exports, verifies, serves, streams every run of `valve1` at maximum
speed, and compares with `limpet predict`. Figures, all on rows whose labels nothing was fitted to:

- rows acknowledged, and the largest difference between streamed and predicted scores;
- F1, FAR and MAR of rows at the calibrated threshold, pooled over the runs, and the mean AUROC per
  run; rows without a score count with the first score of their run, so that warming up hides none;
- runs with an alert inside a labelled interval, and the share of unlabelled time with an incident.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from limpet.contracts.bundle import read_bundle
from limpet.contracts.messages import Alert
from limpet.contracts.recordings import load_recording
from limpet.contracts.reports import format_table, write_json
from limpet.contracts.scores_file import read_scores
from limpet.runtime.alert_feed import AlertFeed
from limpet.runtime.machine import describe_machine

LIMPET = [sys.executable, "-m", "limpet.runtime.cli"]
SEEDS = (0, 1, 2)


def measure(data: Path, seed: int, folder: Path, train_options: list[str]) -> dict[str, object]:
    """One seed: trains, serves, streams all runs, and scores them."""
    folder.mkdir()
    run, bundle = folder / "run", folder / "bundle"
    started_s = time.monotonic()
    normal = str(data / "anomaly-free" / "anomaly-free.csv")
    train = ["train", "anomaly", "--data", normal, "--out", str(run), "--seed", str(seed)]
    limpet(*train, *train_options)
    train_s = time.monotonic() - started_s
    limpet("export", str(run), "--out", str(bundle))
    limpet("verify", str(bundle))
    calibration = read_bundle(bundle).manifest.calibration
    assert calibration is not None
    files = sorted((data / "valve1").glob("*.csv"), key=lambda file: int(file.stem))
    runs = []
    with serve(folder) as endpoint:
        for file in files:
            streamed, predicted = folder / f"s{file.stem}.npy", folder / f"p{file.stem}.npy"
            report = limpet_json(
                "stream", str(file), "--to", endpoint, "--stream", f"valve1-{file.stem}",
                "--speed", "max", "--out", str(streamed),
            )  # fmt: skip
            limpet("predict", str(bundle), str(file), "--out", str(predicted))
            runs.append((file, report, read_scores(streamed), read_scores(predicted)))
        with AlertFeed(endpoint, since=0) as feed:
            alerts = [event for event in feed.events(timeout_s=0.5) if isinstance(event, Alert)]
    return {"seed": seed, "train_s": train_s, **summarise(runs, alerts, calibration.threshold)}


def summarise(
    runs: list[tuple[Path, dict[str, int], np.ndarray, np.ndarray]],
    alerts: list[Alert],
    threshold: float,
) -> dict[str, object]:
    """The figures of one seed."""
    rows = acknowledged = 0
    difference, aurocs, detected, latencies = 0.0, [], 0, []
    labels_all, flags_all, incident_all = [], [], []
    for file, report, streamed, predicted in runs:
        labels = load_recording(file).labels
        assert labels is not None
        rows, acknowledged = rows + report["rows"], acknowledged + report["acknowledged"]
        assert np.array_equal(np.isnan(streamed), np.isnan(predicted)), file
        difference = max(difference, float(np.nanmax(np.abs(streamed - predicted))))
        first = int(np.flatnonzero(~np.isnan(streamed))[0])
        scores = np.where(np.isnan(streamed), streamed[first], streamed)
        aurocs.append(float(roc_auc_score(labels, scores)))
        in_incident = incident_rows(file, alerts, len(labels))
        opened = [a.row for a in alerts if a.event == "open" and stream_of(file) == a.stream]
        detected += bool(labels[opened].any())
        latencies.append(report["latency_p99_ms"])
        labels_all.append(labels)
        flags_all.append(scores >= threshold)
        incident_all.append(in_incident)
    labels, flags = np.concatenate(labels_all), np.concatenate(flags_all)
    incident = np.concatenate(incident_all)
    hits = int((flags & labels).sum())
    return {
        "runs": len(runs),
        "rows": rows,
        "acknowledged": acknowledged,
        "largest_score_difference": difference,
        "f1": 2 * hits / (int(flags.sum()) + int(labels.sum())),
        "far": float(flags[~labels].mean()),
        "mar": float((~flags)[labels].mean()),
        "mean_auroc": float(np.mean(aurocs)),
        "auroc_per_run": aurocs,
        "runs_with_alert_opened_in_label": detected,
        "runs_in_incident_in_label": sum(
            bool((i & m).any()) for i, m in zip(incident_all, labels_all, strict=True)
        ),
        "alert_time_share_of_unlabelled": float(incident[~labels].mean()),
        "unlabelled_share_of_alert_time": float((~labels)[incident].mean()),
        "alerts": len(alerts),
        "message_p99_ms_median": float(np.median(latencies)),
    }


def stream_of(file: Path) -> str:
    """Name under which a run was streamed."""
    return f"valve1-{file.stem}"


def incident_rows(file: Path, alerts: list[Alert], rows: int) -> np.ndarray:
    """Whether an incident was open at each row of a run. (rows,)"""
    inside = np.zeros(rows, bool)
    opened: int | None = None
    for alert in alerts:
        if alert.stream != stream_of(file):
            continue
        if alert.event == "open":
            opened = alert.row
        elif alert.event == "close" and opened is not None:
            inside[opened : alert.row] = True
            opened = None
    if opened is not None:
        inside[opened:] = True
    return inside


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """A server of `folder/bundle` in a process of its own."""
    config = folder / "serve.toml"
    config.write_text(
        '[server]\nlisten = ["tcp://127.0.0.1:0"]\npublish = ["tcp://127.0.0.1:0"]\n'
        '[[models]]\nbundle = "bundle"\n'
    )
    process = subprocess.Popen([*LIMPET, "serve", str(config)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[1]
    finally:
        process.terminate()
        assert process.wait(30) == 0


def limpet(*arguments: str) -> str:
    """Runs a command; gives its standard output."""
    done = subprocess.run([*LIMPET, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"limpet {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def limpet_json(*arguments: str) -> dict[str, int]:
    """Runs a command with `--json -`."""
    report: dict[str, int] = json.loads(limpet(*arguments, "--json", "-"))
    return report


def main() -> None:
    """Measures every seed, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/skab"))
    parser.add_argument("--json", type=Path, dest="json_file")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options, train_options = parser.parse_known_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="limpet-skab-") as folder:
        for seed in options.seeds:
            print(f"seed {seed}", file=sys.stderr)
            results.append(measure(options.data, seed, Path(folder) / f"seed{seed}", train_options))
    names = [k for k, v in results[0].items() if isinstance(v, (int, float))]
    table = [[name, *(f"{result[name]:.4g}" for result in results)] for name in names]
    print(format_table(["", *(f"seed {seed}" for seed in options.seeds)], table))
    write_json(options.json_file, {"machine": describe_machine(), "results": results})


if __name__ == "__main__":
    main()
