"""Recordings: what `--data` and INPUT name, as one array with names, rate, times and labels.

Dimension legend: n rows (samples in time), c channels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.array_files import read_npy, read_npz
from limpet.contracts.csv_tables import read_csv
from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.failure_blocks import holds_failures, read_failures
from limpet.contracts.mat_files import read_mat
from limpet.contracts.recording_columns import RecordedColumns, to_labels
from limpet.contracts.snapshot_folders import find_snapshots, read_snapshots
from limpet.contracts.time_columns import NO_TIME, rate_from_times

CSV_SUFFIXES = (".csv", ".tsv", ".txt")
ARRAY_SUFFIXES = (".npy", ".npz", ".mat")
KEYED_SUFFIXES = (".npz", ".mat")
SUFFIXES = (*CSV_SUFFIXES, *ARRAY_SUFFIXES, ".data")
"""Suffixes of recordings, in any case."""

DEFAULT_RATE_HZ = 1.0


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording.

    Attributes:
        path: The file it comes from, or the folder of snapshots.
        values: The channels in their own units, NaN where missing. (n, c)
        channels: Their names.
        rate_hz: Sampling rate.
        times_ns: Unix nanoseconds of each row, where the file has a complete time column; a
            column that counts from 0 starts in 1970. (n,)
        segments: First row of each segment, ascending from 0; state resets at each.
        labels: Ground truth, True where anomalous, where the file has any. (n,)
        left_out: Columns that are no channels, each with the reason: `anomaly (label)`.
        warnings: What its user should know, one sentence each.
        snapshots: The files in a folder of snapshots, one a segment.
    """

    path: Path
    values: NDArray[np.float64]
    channels: tuple[str, ...]
    rate_hz: float
    times_ns: NDArray[np.int64] | None = None
    segments: tuple[int, ...] = (0,)
    labels: NDArray[np.bool_] | None = None
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    snapshots: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return (
            f"Recording({str(self.path)!r}, {len(self)} rows of {len(self.channels)} channels "
            f"at {self.rate_hz:g} Hz)"
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """All files it comes from."""
        return self.snapshots or (self.path,)

    def select(self, channels: Sequence[str]) -> Recording:
        """These channels in this order; a column of the file without any value is all NaN.

        Raises:
            DataError: A channel is missing.
        """
        if tuple(channels) == self.channels:
            return self
        empty = {n: f"{n} (empty)" for n in channels if f"{n} (empty)" in self.left_out}
        missing = [n for n in channels if n not in self.channels and n not in empty]
        if missing:
            raise DataError(
                f"{self.path}: channel {', '.join(map(repr, missing))} is missing",
                f"wanted: {', '.join(channels)}; found: {', '.join(self.channels)}"
                + (f"; left out: {', '.join(self.left_out)}" if self.left_out else ""),
            )
        values = np.full((len(self), len(channels)), np.nan)
        for index, name in enumerate(channels):
            if name not in empty:
                values[:, index] = self.values[:, self.channels.index(name)]
        unwanted = [f"{name} (not wanted)" for name in self.channels if name not in channels]
        return replace(
            self,
            values=values,
            channels=tuple(channels),
            left_out=(*(n for n in self.left_out if n not in empty.values()), *unwanted),
            warnings=(*self.warnings, *(f"channel {name!r} has no values" for name in empty)),
        )

    def rows(self, start: int | None = None, stop: int | None = None) -> Recording:
        """The rows `start` to `stop` as in a slice; the first begins a segment."""
        first, last, _ = slice(start, stop).indices(len(self))
        inner = (row - first for row in self.segments if first < row < last)
        return replace(
            self,
            values=self.values[first:last],
            times_ns=None if self.times_ns is None else self.times_ns[first:last],
            labels=None if self.labels is None else self.labels[first:last],
            segments=(0, *inner),
        )


def load_recording(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    ignore: Collection[str] = (),
    rate_hz: float | None = None,
    label: str | None = None,
) -> Recording:
    """Reads one file by its suffix (`SUFFIXES`), or one folder of PRONOSTIA's snapshots.

    A text file with the blocks of `limpet.contracts.failure_blocks` is known by its content.

    Args:
        path: The file, or a folder with `acc_00001.csv`, `acc_00002.csv`, ….
        key: Array of an npz or mat, or several separated by commas; by default the only one of
            an npz, all of equal length of a mat.
        ignore: Columns that are no channels.
        rate_hz: Sampling rate, instead of what the file says.
        label: Column or key with the ground truth, by default `anomaly`, `label` or
            `is_anomaly` where present, in any case.

    Raises:
        DataError: The file cannot be read or used.
        UsageError: `rate_hz` is no rate, or `key` is given for a file without keys.
    """
    path = Path(path)
    if rate_hz is not None and not (math.isfinite(rate_hz) and rate_hz > 0):
        raise UsageError(f"--rate-hz is {rate_hz:g}, wanted more than 0 Hz")
    if isinstance(ignore, str):
        raise TypeError("ignore is a collection of names")
    suffix = path.suffix.lower()
    snapshots = find_snapshots(path) if os.path.isdir(path) else []
    if os.path.isdir(path) and not snapshots:
        raise DataError(f"{path} is a folder, wanted a file")
    if suffix not in SUFFIXES and not snapshots:
        if not os.path.exists(path):
            raise DataError(f"{path}: No such file or directory")
        raise DataError(
            f"{path}: {suffix or 'no suffix'} is not read by this version",
            f"suffixes: {', '.join(SUFFIXES)}",
        )
    if key is not None and (suffix not in KEYED_SUFFIXES or snapshots):
        raise UsageError(
            f"--key {key} names an array of an .npz file or a .mat file, not of {path}"
        )
    if snapshots:
        columns = read_snapshots(path, ignore=ignore, label=label)
    elif suffix == ".npz":
        columns = read_npz(path, key=key, ignore=ignore, label=label)
    elif suffix == ".npy":
        columns = read_npy(path, ignore=ignore, label=label)
    elif suffix == ".mat":
        columns = read_mat(path, key=key, ignore=ignore, label=label)
    elif holds_failures(path):
        columns = read_failures(path, ignore=ignore, label=label)
    else:
        columns = read_csv(path, ignore=ignore, label=label)
    found = _settle(path, columns, rate_hz, label is not None)
    return replace(found, snapshots=tuple(snapshots))


def _settle(
    path: Path, columns: RecordedColumns, rate_hz: float | None, label_is_named: bool
) -> Recording:
    """Settles rate, times and labels."""
    warnings = list(columns.warnings)
    times_ns, found_hz = columns.times_ns, columns.rate_hz
    if times_ns is not None:
        measured_hz, time_warnings = rate_from_times(times_ns)
        found_hz = found_hz or measured_hz
        warnings.extend(time_warnings)
        missing = times_ns == NO_TIME
        if missing.any():
            warnings.append(
                f"{missing.sum()} rows have no time (first: row {missing.argmax()}): "
                "times are used for the rate only"
            )
            times_ns = None
    if rate_hz is None and found_hz is None:
        what = "the times give no rate"
        if columns.times_ns is None:
            is_array = path.suffix.lower() in ARRAY_SUFFIXES
            what = "no sampling rate in the file" if is_array else "no time column"
        warnings.append(f"{what}: taking {DEFAULT_RATE_HZ:g} Hz, say --rate-hz")
    labels = None
    if columns.label is not None:
        labels, problem = to_labels(columns.label)
        if problem and label_is_named:
            raise DataError(f"{path}: label {columns.label_name!r}: {problem}")
        if problem:
            warnings.append(f"label {columns.label_name!r} is not used: {problem}")
    return Recording(
        path=path,
        values=columns.values,
        channels=columns.channels,
        rate_hz=rate_hz or found_hz or DEFAULT_RATE_HZ,
        times_ns=times_ns,
        segments=columns.segments,
        labels=labels,
        left_out=columns.left_out,
        warnings=tuple(warnings),
    )


def load_recordings(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    ignore: Collection[str] = (),
    rate_hz: float | None = None,
    label: str | None = None,
    channels: Sequence[str] | None = None,
) -> list[Recording]:
    """Reads a file, or every recording in a folder and below it, in order of the paths.

    Args:
        path: A file or a folder; hidden files and other suffixes in a folder are passed over. A
            folder of snapshots, here or below, is one recording.
        key: As for `load_recording`, like the next three.
        ignore: Columns that are no channels.
        rate_hz: Sampling rate.
        label: Column or key with the ground truth.
        channels: Channels to select from each, by default those of the first.

    Returns:
        Recordings of the same channels in the same order.

    Raises:
        DataError: A file cannot be read, the channels differ, or there is no recording.
        UsageError: As for `load_recording`.
    """
    path = Path(path)
    files = _find_files(path) if os.path.isdir(path) else [path]
    recordings: list[Recording] = []
    for file in files:
        found = load_recording(file, key=key, ignore=ignore, rate_hz=rate_hz, label=label)
        if channels is not None:
            found = found.select(channels)
        elif recordings:
            found = _agree(found, recordings[0])
        recordings.append(found)
    return recordings


def _find_files(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: {error.strerror}") from error

    files, others = [], set()
    for parent, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if find_snapshots(Path(parent)):
            files.append(Path(parent))
            continue
        for file in (Path(parent, name) for name in names if not name.startswith(".")):
            if file.suffix.lower() in SUFFIXES:
                files.append(file)
            else:
                others.add(file.suffix or file.name)
    if not files:
        found = f", only {', '.join(sorted(others))}" if others else ""
        raise DataError(f"{folder} holds no recording{found}", f"suffixes: {', '.join(SUFFIXES)}")
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def _agree(found: Recording, first: Recording) -> Recording:
    """`found` with the channels in the first one's order."""
    if set(found.channels) != set(first.channels):
        lacks = [name for name in first.channels if name not in found.channels]
        adds = [name for name in found.channels if name not in first.channels]
        differences = [f"lacks {', '.join(lacks)}"] * bool(lacks)
        differences += [f"has also {', '.join(adds)}"] * bool(adds)
        way_out = "leave columns out with --ignore"
        if found.path.suffix.lower() == ".mat":
            way_out = "take the same arrays of each with --key NAME,NAME"
        raise DataError(
            f"{found.path} has other channels than {first.path}: it {' and '.join(differences)}",
            f"{way_out}, or keep different recordings in different folders",
        )
    agreed = found.select(first.channels)
    if abs(math.log(found.rate_hz / first.rate_hz)) > math.log(1.2):
        warning = f"rate is {found.rate_hz:g} Hz, but {first.rate_hz:g} Hz in {first.path}"
        agreed = replace(agreed, warnings=(*agreed.warnings, warning))
    return agreed
