"""Reading PRONOSTIA folders: vibration snapshots of a bearing, one CSV each, as one recording.

A folder holds `acc_00001.csv`, `acc_00002.csv`, … without header: hour, minute, second,
microsecond, horizontal and vertical acceleration in g. A snapshot lasts 0.1 s and the next
follows after 10 s, so each is a segment. The delimiter is a comma or a semicolon.

Source: Nectoux et al., "PRONOSTIA: an experimental platform for bearings accelerated degradation
tests", IEEE PHM 2012.

Dimension legend: n rows.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.contracts.recording_columns import RecordedColumns, array_to_columns, check_known
from limpet.contracts.time_columns import rate_from_times

Float64 = NDArray[np.float64]

CHANNELS = ("horizontal", "vertical")
TIMES = ("hour", "minute", "second", "microsecond")
RATE_HZ = 25_600.0
"""The platform's rate. The times are rounded to 10 µs and give 25,000 Hz."""

RATE_TOLERANCE = 1.05

_SNAPSHOT = re.compile(r"acc_(\d{1,15})\.csv", re.ASCII | re.IGNORECASE)
_TEMPERATURES = re.compile(r"temp_\d+\.csv", re.ASCII | re.IGNORECASE)
_COLUMNS = (*TIMES, *CHANNELS)
_TIME_LIMITS = (23, 59, 60, 1e6)
_DAY_NS = 86_400 * 10**9


def find_snapshots(folder: Path) -> list[Path]:
    """The snapshots in a folder in order of their numbers; none where it is no such folder."""
    try:
        names = [name for name in os.listdir(folder) if _SNAPSHOT.fullmatch(name)]
        files = [folder / name for name in sorted(names, key=_order)]
        return files if any(map(_begins_as_snapshot, files)) else []
    except OSError:
        return []  # whoever reads it says what is wrong with it


def _order(name: str) -> tuple[int, str]:
    match = _SNAPSHOT.fullmatch(name)
    return int(match[1]) if match else 0, name


def _begins_as_snapshot(file: Path) -> bool:
    with file.open("rb") as opened:
        line = opened.readline(200).decode("latin1")
    try:
        return len(_numbers(line)) == len(_COLUMNS)
    except ValueError:
        return False


def _with_commas(text: str) -> str:
    """Text whose delimiter is a comma; beside semicolons, a comma is a decimal sign."""
    return text.replace(",", ".").replace(";", ",") if ";" in text else text


def _numbers(line: str) -> list[float]:
    return [float(cell) for cell in _with_commas(line).split(",")]


def read_snapshots(
    folder: Path, *, ignore: Collection[str] = (), label: str | None = None
) -> RecordedColumns:
    """Reads a folder's snapshots as segments, with times that count from the first midnight.

    Args:
        folder: One for which `find_snapshots` finds some.
        ignore: Channels to leave out.
        label: Channel that holds the labels.

    Raises:
        DataError: A snapshot cannot be read; the message names file and line.
    """
    check_known(folder, "--label", [] if label is None else [label], CHANNELS)
    files = find_snapshots(folder)
    tables = [_read_snapshot(file) for file in files]
    table = np.concatenate(tables)  # (n, 6)
    times_ns = _times(table)
    measured_hz, _ = rate_from_times(times_ns)
    others = {path.name for path in folder.iterdir() if path.is_file()} - {f.name for f in files}
    temperatures = {name for name in others if _TEMPERATURES.fullmatch(name)}
    left_out = [f"{name} (time)" for name in TIMES]
    for count, what in (
        (len(temperatures), "temp_*.csv (temperatures at another rate"),
        (len(others - temperatures), "other files (no snapshots"),
    ):
        left_out += [f"{what}: {count})"] * bool(count)
    return array_to_columns(
        folder,
        table[:, len(TIMES) :],
        CHANNELS,
        ignore,
        label,
        times_ns=times_ns,
        rate_hz=RATE_HZ if _is_nominal(measured_hz) else None,
        segments=(0, *accumulate(map(len, tables[:-1]))),
        left_out=tuple(left_out),
    )


def _is_nominal(measured_hz: float | None) -> bool:
    return measured_hz is None or abs(math.log(measured_hz / RATE_HZ)) < math.log(RATE_TOLERANCE)


def _times(table: Float64) -> NDArray[np.int64]:
    """Nanoseconds since the first midnight; a step back by half a day is the next one. (n,)"""
    hours, minutes, seconds, micros = (table[:, column] for column in range(len(TIMES)))
    times_ns = ((hours * 60 + minutes) * 60 + seconds).astype(np.int64) * 10**9
    times_ns += np.rint(micros * 1e3).astype(np.int64)
    midnights = np.cumsum(np.diff(times_ns, prepend=times_ns[0]) < -_DAY_NS // 2)
    return np.asarray(times_ns + midnights * _DAY_NS, np.int64)


def _read_snapshot(file: Path) -> Float64:
    """One snapshot (rows, 6)."""
    try:
        text = file.read_text("ascii")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, byte {error.start}: not ASCII, wanted numbers") from error
    lines = [line for line in _with_commas(text).splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{file} is empty", "delete it, or restore it")
    try:
        table = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)  # (rows, 6)
    except ValueError:
        raise _damage(file, text) from None
    if table.shape[1] != len(_COLUMNS) or not _is_sound(table).all():
        raise _damage(file, text)
    return table


def _is_sound(table: Float64) -> NDArray[np.bool_]:
    """Rows with all numbers, and with a time of day. (rows,)"""
    times = table[:, : len(TIMES)]
    return np.asarray(
        np.isfinite(table).all(axis=1) & ((times >= 0) & (times <= _TIME_LIMITS)).all(axis=1)
    )


def _damage(file: Path, text: str) -> DataError:
    """The first line that is no row."""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = np.array([_numbers(line)])
            wrong = row.shape[1] != len(_COLUMNS) or not _is_sound(row).all()
        except ValueError:
            wrong = bool(line.strip())
        if wrong:
            return DataError(
                f"{file}, line {number}: {line[:80]!r}, wanted {', '.join(_COLUMNS)}",
                "correct or delete the line, or remove the file from the folder",
            )
    return DataError(f"{file}: wanted {len(_COLUMNS)} numbers a line", "restore it")
