"""Reading MATLAB's `.mat` files into columns.

Dimension legend: s segments, n rows (samples in time), c channels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.array_files import undamaged
from limpet.contracts.errors import DataError
from limpet.contracts.mat_format import HDF5_SIGNATURE, MatVariable, is_version_4, read_variables
from limpet.contracts.recording_columns import (
    LABEL_NAMES,
    NEVER_CHANNELS,
    RATE_NAMES,
    RecordedColumns,
    array_to_columns,
    check_known,
    check_rate,
    join_arrays,
    labels_fit,
    split_key,
)
from limpet.contracts.time_columns import is_time_name, numbers_to_times

Array = NDArray[Any]

_HDF5_OFFSETS = (0, 512)  # MATLAB puts a header of 512 bytes before it
# Case Western's bearing data numbers the test in each name: X097_DE_time, X105_DE_time.
_NUMBERED_NAME = re.compile(r"X\d+_(\w+)_time", re.ASCII)


def read_mat(
    path: Path, *, key: str | None = None, ignore: Collection[str] = (), label: str | None = None
) -> RecordedColumns:
    """Reads the arrays of equal length as channels under their names, and labels, times and rate.

    A vector is a channel; a matrix is several, numbered `x_0`, `x_1`, or `c0`, `c1` where it is
    all there is. `X097_DE_time` is called `DE`, so that a model fits other files of the rig.

    Args:
        path: The file.
        key: The array, or several separated by commas, by full or short name; by default all
            vectors and matrices. Alone, one of three dimensions [s, n, c] is segments.
        ignore: Channels to leave out.
        label: Variable or channel that holds the labels; by default a variable of `LABEL_NAMES`
            with one label a row.

    Raises:
        DataError: It is damaged or of another version, or the arrays are no channels of one
            recording.
    """
    listed = _read_variables(path)
    by_name = {variable.name: variable for variable in listed}
    rates = [v for v in listed if v.size == 1 and v.is_numeric and v.name.lower() in RATE_NAMES]
    rate = min(rates, key=lambda v: RATE_NAMES.index(v.name.lower()), default=None)
    chosen = _choose(path, listed, key, label)
    truth = _find_label(path, by_name, chosen, label)
    arrays = {v.name: v.array.reshape(-1) if _is_vector(v) else v.array for v in chosen}
    times_ns, clock = _take_times(arrays)
    array, names = _name_columns(path, arrays)
    check_known(path, "--label", [label] if label and not truth else [], names, "channels")
    stated = (None, ()) if rate is None else check_rate(rate.name, float(rate.array.item()))
    used = {*arrays, *(variable.name for variable in (rate, truth) if variable)}
    left_out = [f"{clock} (time)"] * bool(clock)
    left_out += [f"{v.name} ({_why(v)})" for v in listed if v.name not in {*used, clock}]
    return array_to_columns(
        path,
        array,
        names,
        ignore,
        None if truth else label,
        labels=truth.array if truth else None,
        label_key=truth.name if truth else "",
        times_ns=times_ns,
        rate_hz=stated[0],
        left_out=tuple(left_out),
        warnings=stated[1],
    )


def _read_variables(path: Path) -> list[MatVariable]:
    with undamaged(path):
        content = path.read_bytes()
        version = ""
        if any(content.startswith(HDF5_SIGNATURE, offset) for offset in _HDF5_OFFSETS):
            version = "7.3 (HDF5)"
        elif is_version_4(content):
            version = "4"
        if version:
            raise DataError(
                f"{path} is a MATLAB file of version {version}, wanted 5 to 7",
                f"in MATLAB: load('{path.name}'), then save('{path.stem}_v7.mat', '-v7')",
            )
        variables = read_variables(content)
    repeated = {v.name for v in variables if sum(v.name == w.name for w in variables) > 1}
    if repeated:
        raise DataError(f"{path} has several variables {', '.join(map(repr, sorted(repeated)))}")
    return variables


def _choose(
    path: Path, listed: Sequence[MatVariable], key: str | None, label: str | None
) -> list[MatVariable]:
    if key is None:
        chosen = [
            v
            for v in listed
            if _is_signal(v) and v.name.lower() not in NEVER_CHANNELS and v.name != label
        ]
        if not chosen:
            raise _no_choice(path, "has no vector or matrix of real numbers", listed)
        if len(set(map(_rows, chosen))) > 1:
            raise _no_choice(path, "has arrays of several lengths", listed)
        return chosen
    chosen = []
    for name in split_key(key, [known for v in listed for known in (v.name, _short_name(v.name))]):
        # A file may hold X098_DE_time beside X099_DE_time: DE alone is either.
        matches = [v for v in listed if v.name == name]
        matches = matches or [v for v in listed if _short_name(v.name) == name]
        if len(matches) != 1:
            count = f"{len(matches)} arrays" if matches else "no array"
            raise _no_choice(path, f"has {count} {name!r}", listed)
        chosen += [variable for variable in matches if variable not in chosen]
    for variable in chosen:
        if not variable.is_numeric or not variable.size or len(variable.shape) > 3:
            raise DataError(
                f"{path}: {variable}, wanted real numbers "
                "[rows], [rows, channels] or [segments, rows, channels]"
            )
    return chosen


def _is_signal(variable: MatVariable) -> bool:
    return variable.is_numeric and variable.size > 1 and len(variable.shape) == 2


def _is_vector(variable: MatVariable) -> bool:
    return len(variable.shape) == 2 and 1 in variable.shape


def _rows(variable: MatVariable) -> int:
    """Rows of it as a recording; a vector, lying or standing, has one a number."""
    return variable.size if _is_vector(variable) else variable.shape[0]


def _short_name(name: str) -> str:
    """The name without what differs between the files of one rig."""
    match = _NUMBERED_NAME.fullmatch(name)
    return match[1] if match else name


def _no_choice(path: Path, found: str, listed: Sequence[MatVariable]) -> DataError:
    variables = "; ".join(map(str, listed)) or "none"
    return DataError(f"{path} {found}", f"say --key NAME or --key NAME,NAME; arrays: {variables}")


def _find_label(
    path: Path,
    by_name: Mapping[str, MatVariable],
    chosen: Sequence[MatVariable],
    label: str | None,
) -> MatVariable | None:
    """The variable with the labels; None where there is none, or where a channel holds them."""
    names = {variable.name for variable in chosen}
    shape = chosen[0].shape if len(chosen[0].shape) > 2 else (_rows(chosen[0]),)

    def fits(variable: MatVariable) -> bool:
        found = (variable.size,) if _is_vector(variable) else variable.shape
        return variable.is_numeric and variable.name not in names and labels_fit(found, shape)

    if label is not None:
        variable = by_name.get(label)
        if variable is None or label in names:
            return None
        if not fits(variable):
            raise DataError(f"{path}: --label {variable}, wanted one number a row of {chosen[0]}")
        return variable
    named = (v for wanted in LABEL_NAMES for v in by_name.values() if v.name.lower() == wanted)
    return next(filter(fits, named), None)


def _take_times(arrays: dict[str, Array]) -> tuple[NDArray[np.int64] | None, str]:
    """Takes the first vector that is times by its name and ascends, where others remain."""
    for name, array in arrays.items():
        if array.ndim == 1 and len(arrays) > 1 and is_time_name(name):
            exact = array.dtype.kind in "iu" and array.dtype != np.uint64
            values = array.astype(np.int64) if exact else array.astype(np.float64)
            times_ns = numbers_to_times(name, values)
            if times_ns is not None:
                del arrays[name]
                return times_ns, name
    return None, ""


def _name_columns(path: Path, arrays: Mapping[str, Array]) -> tuple[Array, tuple[str, ...]]:
    if len(arrays) == 1:
        (only,) = arrays.values()
        if only.ndim > 1:
            return only, tuple(f"c{index}" for index in range(only.shape[-1]))
    short = [_short_name(name) for name in arrays]
    if len(set(short)) == len(short):
        return join_arrays(path, dict(zip(short, arrays.values(), strict=True)))
    return join_arrays(path, arrays)


def _why(variable: MatVariable) -> str:
    """Why a variable is no channel."""
    if not variable.is_numeric:
        return f"{variable.kind}, no real numbers"
    if variable.name.lower() in NEVER_CHANNELS:
        return "never a channel"
    if variable.size < 2:
        return "one number" if variable.size else "empty"
    return "not chosen" if len(variable.shape) == 2 else f"{len(variable.shape)} dimensions"
