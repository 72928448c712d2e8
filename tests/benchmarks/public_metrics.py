"""VUS-PR and VUS-ROC by the public implementation, TSB-AD, in an environment of its own.

TSB-AD pins NumPy below 2 and depends on much that its metric does not need, so it lives in a
virtual environment under the user's cache folder, made by the first call (about a minute, from
pip's own sources). Arrays go there in an npz and figures come back as JSON.

    python -m tests.benchmarks.public_metrics SCORES.npy RECORDING    prints the figures of one file
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.recordings import load_recording
from limpet.contracts.scores_file import read_scores
from limpet.training.anomaly.judged import fill_unscored

VERSION = "1.5"
REQUIREMENTS = ("numpy<2", "scipy", "scikit-learn", "statsmodels")
PROCESSES = 2

_PROGRAM = """
import json, sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from TSB_AD.evaluation.basic_metrics import generate_curve
from TSB_AD.utils.slidingWindows import find_length_rank

def measure(series):
    scores, labels, channel, window = series
    if window < 0:
        window = int(find_length_rank(channel.reshape(-1, 1), rank=1))
    *_, roc, pr = generate_curve(labels.astype(int), scores, window, "opt", 250)
    return {"window_rows": window, "vus_pr": float(pr), "vus_roc": float(roc)}

if __name__ == "__main__":
    with np.load(sys.argv[1]) as arrays:
        names = ("scores", "labels", "channel", "window")
        series = [
            tuple(arrays[f"{name}_{index}"] for name in names)
            for index in range(int(arrays["count"]))
        ]
    series = [(*arrays, int(window)) for *arrays, window in series]
    with ProcessPoolExecutor(int(sys.argv[2])) as pool:
        json.dump(list(pool.map(measure, series)), sys.stdout)
"""


@dataclass(frozen=True, eq=False)
class Series:
    """What one pair of figures is computed from.

    Attributes:
        scores: Finite scores, higher is stranger. (n,)
        labels: Ground truth. (n,)
        channel: The recording's first channel, which gives the window; may be longer, where only
            later rows are scored. (m,)
        window_rows: The window, instead of the one that TSB-AD chooses.
    """

    scores: NDArray[np.floating]
    labels: NDArray[np.bool_]
    channel: NDArray[np.floating]
    window_rows: int | None = None


@dataclass(frozen=True)
class PublicFigures:
    """What TSB-AD says of one series."""

    window_rows: int
    vus_pr: float
    vus_roc: float


def public_figures(series: Sequence[Series]) -> list[PublicFigures]:
    """Figures of each series, in order; `PROCESSES` at a time."""
    if not series:
        return []
    arrays: dict[str, NDArray[np.generic] | int] = {"count": len(series)}
    for index, one in enumerate(series):
        arrays[f"scores_{index}"] = one.scores
        arrays[f"labels_{index}"] = one.labels
        arrays[f"channel_{index}"] = one.channel
        arrays[f"window_{index}"] = -1 if one.window_rows is None else one.window_rows
    with tempfile.TemporaryDirectory(prefix="limpet-metrics-") as folder:
        npz, program = Path(folder) / "series.npz", Path(folder) / "measure.py"
        np.savez(npz, **arrays)  # type: ignore[arg-type]
        program.write_text(_PROGRAM)
        command = [str(environment_python()), str(program), str(npz), str(PROCESSES)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"TSB-AD failed:\n{done.stderr}")
    return [PublicFigures(**figures) for figures in json.loads(done.stdout)]


def environment_python() -> Path:
    """The interpreter of the environment, which is made where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "limpet"
    folder = cache / f"tsb-ad-{VERSION}-python{sys.version_info[0]}.{sys.version_info[1]}"
    cache.mkdir(parents=True, exist_ok=True)
    python, made = folder / "bin" / "python", folder / ".made"
    with (cache / "tsb-ad.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            print(f"making {folder}, once", file=sys.stderr)
            pip = [str(python), "-m", "pip", "install", "--quiet"]
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(folder)],
                [*pip, *REQUIREMENTS],
                [*pip, "--no-deps", f"TSB-AD=={VERSION}"],
            ):
                subprocess.run(command, check=True, stdout=sys.stderr)
            made.touch()
    return python


def main() -> None:
    """Prints the figures of one score file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--key")
    options = parser.parse_args()
    recording = load_recording(options.recording, key=options.key)
    scores = read_scores(options.scores)
    if recording.labels is None or len(scores) != len(recording):
        raise SystemExit(f"{options.scores} and {options.recording}: no labels, or other rows")
    scores = fill_unscored(scores, recording.segments)
    print(*public_figures([Series(scores, recording.labels, recording.values[:, 0])]))


if __name__ == "__main__":
    main()
