"""The recordings of the benchmark, each cut into training and test before anything is fitted.

Dimension legend: n rows, c channels, g segments, w rows of a segment.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.recordings import load_recording

SKAB_TRAIN_ROWS = 400
NAB_TRAIN_SHARE = 0.25
"""Of a NAB stream, at most; never beyond what precedes its first label."""
WINDOW_ROWS, WINDOW_HOP = 2048, 1024
"""Vibration windows of Case Western's recordings."""
CWRU_HZ, FEMTO_HZ, ROBOT_HZ = 12_000.0, 25_600.0, 15 / 0.315
DECIMATION = 4
"""Case Western's normal run is sampled at 48 kHz, its faults at 12 kHz."""


@dataclass(frozen=True, eq=False)
class Series:
    """A labelled recording, of which the first rows train.

    Attributes:
        dataset: Which data set it belongs to.
        name: Its name within it.
        values: (n, c)
        labels: True where anomalous. (n,)
        train_rows: Rows that train.
        first_row: First row that counts in the figures.
    """

    dataset: str
    name: str
    values: NDArray[np.float64]
    labels: NDArray[np.bool_]
    train_rows: int
    first_row: int


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments that are judged as a whole.

    Attributes:
        dataset: Which data set they belong to.
        name: Their name within it.
        rate_hz: Sampling rate.
        train: Normal segments that train. (g, w, c)
        test: Segments by group. (g, w, c) each; `normal` among them, or `life` where they are a
            bearing's life in order.
    """

    dataset: str
    name: str
    rate_hz: float
    train: NDArray[np.float64]
    test: dict[str, NDArray[np.float64]]


def smap(data: Path) -> Iterator[Series]:
    """The 22 files of TSB-AD, fitted on the prefix that it gives, judged whole."""
    with (data / "smap" / "tsbad_mapping.csv").open() as file:
        for row in csv.DictReader(file):
            with np.load(data / row["our_npz"]) as arrays:
                values, labels = arrays["test"].astype(np.float64), arrays["label"].astype(bool)
            name = Path(row["our_npz"]).stem
            yield Series("smap", name, values, _flat(labels), int(row["train_prefix"]), 0)


def skab(data: Path, every: int) -> Iterator[Series]:
    """Every so many of the 34 runs, fitted on the first 400 rows, judged on the others."""
    files = [
        file
        for group in ("other", "valve1", "valve2")
        for file in sorted((data / "skab" / group).glob("*.csv"), key=lambda f: int(f.stem))
    ]
    for file in files[::every]:
        recording = load_recording(file)
        assert recording.labels is not None
        yield Series(
            "skab", f"{file.parent.name}-{file.stem}", recording.values, recording.labels,
            SKAB_TRAIN_ROWS, SKAB_TRAIN_ROWS,
        )  # fmt: skip


def nab(data: Path) -> Iterator[Series]:
    """Seven streams with known causes."""
    windows = json.loads((data / "nab" / "labels" / "combined_windows.json").read_text())
    for file in sorted((data / "nab" / "realKnownCause").glob("*.csv")):
        recording = load_recording(file)
        times = np.array(
            [row["timestamp"] for row in csv.DictReader(file.open())], dtype="datetime64[s]"
        )
        labels = np.zeros(len(recording), bool)
        for start, stop in windows[f"realKnownCause/{file.name}"]:
            first, last = (np.datetime64(text[:19].replace(" ", "T")) for text in (start, stop))
            labels |= (times >= first) & (times <= last)
        before = int(np.flatnonzero(labels)[0])
        train = min(int(NAB_TRAIN_SHARE * len(labels)), int(0.95 * before))
        yield Series("nab", file.stem, recording.values, labels, train, 0)


def ucr(data: Path) -> Iterator[Series]:
    """TSB-AD's univariate file."""
    for file in sorted((data / "tsb_ad").glob("*_UCR_*.csv")):
        recording = load_recording(file)
        assert recording.labels is not None
        train = int(file.stem.split("_tr_")[1].split("_")[0])
        yield Series(
            "ucr", file.stem.split("_tr_")[0], recording.values, recording.labels, train, 0
        )


def cwru(data: Path) -> Iterator[Segments]:
    """Bearing faults against the normal run at 12 kHz, each window scaled to unit RMS.

    The first 60 % of the normal run train; no window of the test overlaps them.
    """
    from scipy.signal import decimate

    for sensor in ("DE", "FE"):
        normal = _channel(data / "cwru" / "normal_1797_48k.npz", sensor)
        normal = decimate(normal, DECIMATION, ftype="fir")
        cut = int(0.6 * len(normal))
        test = {"normal": _windows(normal[cut:])}
        for file in sorted((data / "cwru").glob("de12k_*.npz")):
            test[file.stem.removeprefix("de12k_")] = _windows(_channel(file, sensor))
        yield Segments("cwru", sensor, CWRU_HZ, _windows(normal[:cut]), test)


def femto(data: Path) -> Iterator[Segments]:
    """Six bearings run to failure, each fitted on its first 20 %."""
    for file in sorted((data / "femto").glob("*.npz")):
        with np.load(file) as arrays:
            snapshots = arrays["acc_mg"].astype(np.float64) / 1000.0
        train = snapshots[: len(snapshots) // 5]
        name = file.stem.removeprefix("Learning_set_")
        yield Segments("femto", name, FEMTO_HZ, train, {"life": snapshots})


def robot_failures(data: Path) -> Iterator[Segments]:
    """Force and torque of a robot arm: normal executions against failures."""
    for file in sorted((data / "robot_failures").glob("lp*")):
        recording = load_recording(file)
        assert recording.labels is not None
        stops = (*recording.segments[1:], len(recording))
        pairs = list(zip(recording.segments, stops, strict=True))
        segments = np.stack([recording.values[a:b] for a, b in pairs])
        failed = np.array([bool(recording.labels[a:b].any()) for a, b in pairs])
        normal = segments[~failed]
        cut = round(0.6 * len(normal))
        test = {"normal": normal[cut:], "failure": segments[failed]}
        yield Segments("robot_failures", file.stem, ROBOT_HZ, normal[:cut], test)


def _channel(file: Path, sensor: str) -> NDArray[np.float64]:
    with np.load(file) as arrays:
        return np.asarray(arrays[sensor].ravel(), np.float64)


def _windows(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Windows without mean, of unit RMS. (g, w, 1)"""
    windows = np.lib.stride_tricks.sliding_window_view(signal, WINDOW_ROWS)[::WINDOW_HOP].copy()
    windows -= windows.mean(axis=1, keepdims=True)
    return (windows / np.sqrt(np.square(windows).mean(axis=1, keepdims=True)))[:, :, None]


def _flat(labels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return labels if labels.ndim == 1 else labels.any(axis=1)
