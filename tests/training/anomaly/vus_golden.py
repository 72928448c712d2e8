"""The golden figures of VUS, `vus_golden.json`, and how they are computed anew.

Scores, labels and first channels are made here, from seeds and from real recordings; the figures
come from the public implementation in an environment of its own:

    python -m tests.training.anomaly.vus_golden

Dimension legend: n rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.recordings import load_recording
from tests.benchmarks.public_metrics import PublicFigures, Series, public_figures

FILE = Path(__file__).with_suffix(".json")
REPOSITORY = Path(__file__).resolve().parents[3]
DEMO = REPOSITORY / "runtime" / "limpet" / "runtime" / "demo" / "recordings"

REAL = {
    "skab/valve1/0.csv": None,
    "skab/other/9.csv": None,
    "smap/P-1.npz": "test",
    "smap/E-11.npz": "test",
    "tsb_ad/169_SMAP_id_26_Sensor_tr_1811_1st_4510.csv": None,
}
"""Recordings of the data folder, each with the key of its array."""


def labels(rows: int, *intervals: tuple[int, int]) -> NDArray[np.bool_]:
    """True within the intervals, each from its first row to before its last. (n,)"""
    truth = np.zeros(rows, bool)
    for start, stop in intervals:
        truth[start:stop] = True
    return truth


def seeded_series() -> dict[str, Series]:
    """Series by what is special about them."""
    rng = np.random.default_rng(0)
    rows = np.arange(2000)
    wave = np.sin(2 * np.pi * rows / 47) + rng.normal(0, 0.3, 2000)
    middle = labels(2000, (700, 760), (1500, 1530))

    def make(truth: NDArray[np.bool_], scores: NDArray[np.floating], window: int | None) -> Series:
        return Series(scores, truth, wave[: len(scores)], window)

    noisy = rng.normal(size=2000) + middle
    late = rng.random(2000) + np.roll(middle, 15)
    many = np.random.default_rng(1).random(2000) < 0.03
    return {
        "noise": make(middle, rng.random(2000), None),
        "noisy scores": make(middle, noisy, None),
        "float32 scores": make(middle, noisy.astype(np.float32), 60),
        "perfect scores": make(middle, middle + 0.01 * rng.random(2000), 60),
        "inverted scores": make(middle, rng.random(2000) - middle, 60),
        "scores that come late": make(middle, late, 60),
        "few values, many ties": make(middle, np.rint(noisy), 60),
        "binary scores": make(middle, (noisy > 1.5).astype(float), 60),
        "constant scores": make(middle, np.full(2000, 0.5), 60),
        "anomaly at the first row": make(labels(2000, (0, 40)), noisy, 60),
        "anomaly at the last row": make(labels(2000, (1990, 2000)), noisy, 60),
        "anomalies at both ends": make(labels(2000, (0, 1), (1999, 2000)), noisy, 61),
        "buffers that overlap": make(labels(2000, (500, 510), (525, 530), (560, 561)), noisy, 80),
        "single rows close together": make(labels(2000, (9, 10), (11, 12), (13, 14)), noisy, 30),
        "many single rows": make(many, noisy + 2 * many, 40),
        "mostly anomalous": make(~middle, noisy, 60),
        "all but one row anomalous": make(~labels(2000, (800, 801)), noisy, 60),
        "window 0": make(middle, noisy, 0),
        "window 1": make(middle, noisy, 1),
        "window longer than the recording": make(labels(50, (20, 24)), noisy[:50], 125),
        "fewer rows than thresholds": make(labels(100, (20, 24)), noisy[:100], 20),
        "two rows": make(labels(2, (1, 2)), noisy[:2], 2),
        "a step, no period": Series(noisy, middle, (rows > 900).astype(float), None),
        "a constant channel": Series(noisy, middle, np.full(2000, 3.25), None),
        "a slow wave": Series(noisy, middle, np.sin(2 * np.pi * rows / 350), None),
        "a fast wave": Series(noisy, middle, np.sin(2 * np.pi * rows / 5) + wave / 8, None),
    }


def demo_series() -> dict[str, Series]:
    """The demo's recordings, scored by a deviation from the recent level."""
    files = sorted([*DEMO.glob("*.csv"), *DEMO.glob("*.npz")])
    return {f"demo/{file.name}": real_series(file) for file in files}


def real_series(file: Path, key: str | None = None) -> Series:
    """A recording, its rows scored by their distance from the mean of the 50 rows before."""
    recording = load_recording(file, key=key)
    assert recording.labels is not None
    values = recording.values  # (n, c)
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values]), axis=0)
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - 50, 0)
    level = (sums[last] - sums[first]) / (last - first)[:, None]
    spread = values.std(axis=0)
    scores = (np.abs(values - level) / np.where(spread > 0, spread, 1.0)).mean(axis=1).round(6)
    return Series(scores, recording.labels, values[:, 0])


def read_golden() -> dict[str, PublicFigures]:
    """Figures by the name of the series."""
    return {name: PublicFigures(**one) for name, one in json.loads(FILE.read_text()).items()}


def main(data: Path = REPOSITORY.parent / "shared" / "data") -> None:
    """Computes all figures and writes the file."""
    series = seeded_series() | demo_series()
    series |= {name: real_series(data / name, key) for name, key in REAL.items()}
    figures: Sequence[PublicFigures] = public_figures(list(series.values()))
    table = {name: vars(one) for name, one in zip(series, figures, strict=True)}
    FILE.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
