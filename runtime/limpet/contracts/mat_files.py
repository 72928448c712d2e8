"""Reading MATLAB's `.mat` files (version 4 to 7) into columns; SciPy reads the bytes.

Dimension legend: s segments, n rows (samples in time), c channels.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.array_files import undamaged
from limpet.contracts.errors import DataError, MissingExtraError
from limpet.contracts.recording_columns import (
    LABEL_NAMES,
    NEVER_CHANNELS,
    RATE_NAMES,
    RecordedColumns,
    array_to_columns,
    check_known,
    join_arrays,
    labels_fit,
    split_key,
)
from limpet.contracts.time_columns import is_time_name, numbers_to_times

Array = NDArray[Any]

EXTRA = "matlab"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, 512)  # MATLAB puts a header of 512 bytes before it
_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_NUMBERS = frozenset({"double", "single", "logical", *_INTEGERS})
# Case Western's bearing data numbers the test in each name: X097_DE_time, X105_DE_time.
_NUMBERED_NAME = re.compile(r"X\d+_(\w+)_time", re.ASCII)


@dataclass(frozen=True)
class Variable:
    """A variable as the file announces it: MATLAB's shape and class."""

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_numeric(self) -> bool:
        """Whether the elements are numbers; only their values tell real from complex."""
        return self.kind in _NUMBERS

    @property
    def rows(self) -> int:
        """Rows of it as a recording; a vector, lying or standing, has one a number."""
        return self.size if self.is_vector else self.shape[0]

    @property
    def is_vector(self) -> bool:
        """Whether it is n × 1 or 1 × n."""
        return len(self.shape) == 2 and 1 in self.shape

    @property
    def short_name(self) -> str:
        """The name without what differs between the files of one rig: `DE` of `X097_DE_time`."""
        match = _NUMBERED_NAME.fullmatch(self.name)
        return match[1] if match else self.name

    def __str__(self) -> str:
        return f"{self.name} {self.kind} {list(self.shape)}"


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
        DataError: It is damaged or of version 7.3, or the arrays are no channels of one recording.
        MissingExtraError: SciPy is not installed.
    """
    with undamaged(path), path.open("rb") as file:
        content = file.read(_HDF5_OFFSETS[-1] + len(_HDF5))
    if not content:
        raise DataError(f"{path} is empty", "write or copy it anew")
    if any(content.startswith(_HDF5, offset) for offset in _HDF5_OFFSETS):
        raise DataError(
            f"{path} is a MATLAB file of version 7.3 (HDF5), wanted version 7 or earlier",
            f"in MATLAB: load('{path.name}'), then save('{path.stem}_v7.mat', '-v7')",
        )
    file_warnings: list[str] = []
    with _reading(path, file_warnings):
        from scipy.io import whosmat

        listed = [Variable(name, tuple(shape), kind) for name, shape, kind in whosmat(path)]
    by_name = {variable.name: variable for variable in listed}
    is_rate = [v for v in listed if v.size == 1 and v.is_numeric and v.name.lower() in RATE_NAMES]
    rate_variable = min(is_rate, key=lambda v: RATE_NAMES.index(v.name.lower()), default=None)
    chosen = _choose(path, listed, key, label)
    label_variable = _find_label(path, by_name, chosen, label)
    extra = [variable for variable in (rate_variable, label_variable) if variable]
    with _reading(path, file_warnings):
        from scipy.io import loadmat

        wanted = [variable.name for variable in (*chosen, *extra)]
        loaded: dict[str, Array] = loadmat(path, variable_names=wanted)
    for variable in (*chosen, *extra):
        _check_real(path, variable, loaded.get(variable.name))
    arrays = {v.name: loaded[v.name].reshape(-1) if v.is_vector else loaded[v.name] for v in chosen}
    times_ns, clock = _take_times(arrays)
    array, names = _name_columns(path, arrays, by_name)
    check_known(path, "--label", [label] if label and not label_variable else [], names, "channels")
    rate = float(loaded[rate_variable.name].item()) if rate_variable else math.nan
    if rate_variable and not (math.isfinite(rate) and rate > 0):
        file_warnings.append(f"{rate_variable.name!r} is {rate:g}, wanted a rate in Hz: not used")
    used = {*arrays, *(variable.name for variable in extra)}
    left_out = [f"{clock} (time)"] * bool(clock)
    left_out += [f"{v.name} ({_why(v)})" for v in listed if v.name not in used and v.name != clock]
    return array_to_columns(
        path,
        array,
        names,
        ignore,
        None if label_variable else label,
        labels=loaded[label_variable.name] if label_variable else None,
        label_key=label_variable.name if label_variable else "",
        times_ns=times_ns,
        rate_hz=rate if math.isfinite(rate) and rate > 0 else None,
        left_out=tuple(left_out),
        warnings=tuple(file_warnings),
    )


def _choose(
    path: Path, listed: Sequence[Variable], key: str | None, label: str | None
) -> list[Variable]:
    if key is None:
        chosen = [
            v
            for v in listed
            if _is_signal(v) and v.name.lower() not in NEVER_CHANNELS and v.name != label
        ]
        if not chosen:
            raise _no_choice(path, "has no vector or matrix of numbers", listed)
        if len({variable.rows for variable in chosen}) > 1:
            raise _no_choice(path, "has arrays of several lengths", listed)
        return chosen
    names = {name for v in listed for name in (v.name, v.short_name)}
    chosen = []
    for name in split_key(key, names):
        # A file may hold X098_DE_time beside X099_DE_time: DE alone is either.
        matches = [v for v in listed if v.name == name] or [
            v for v in listed if v.short_name == name
        ]
        if len(matches) != 1:
            found = f"has {len(matches) or 'no'} arrays {name!r}"
            raise _no_choice(path, found if matches else f"has no array {name!r}", listed)
        chosen += matches
    for variable in chosen:
        if not variable.is_numeric or not variable.size or len(variable.shape) > 3:
            raise DataError(
                f"{path}: {variable}, "
                "wanted numbers [rows], [rows, channels] or [segments, rows, channels]"
            )
    return chosen


def _check_real(path: Path, variable: Variable, array: Array | None) -> None:
    if array is None or array.shape != variable.shape or array.dtype.kind not in "biuf":
        found = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
        raise DataError(
            f"{path}: {variable} holds {found}, wanted real numbers", "take others with --key"
        )


def _is_signal(variable: Variable) -> bool:
    return variable.is_numeric and variable.size > 1 and len(variable.shape) == 2


def _no_choice(path: Path, found: str, listed: Sequence[Variable]) -> DataError:
    arrays = "; ".join(map(str, listed)) or "none"
    return DataError(f"{path} {found}", f"say --key NAME or --key NAME,NAME; variables: {arrays}")


def _find_label(
    path: Path, by_name: Mapping[str, Variable], chosen: Sequence[Variable], label: str | None
) -> Variable | None:
    """The variable with the labels; None where there is none, or where a channel holds them."""
    shape = (chosen[0].rows,) if len(chosen[0].shape) < 3 else chosen[0].shape

    def fits(variable: Variable) -> bool:
        found = (variable.size,) if variable.is_vector else variable.shape
        return variable.is_numeric and variable not in chosen and labels_fit(found, shape)

    if label is not None:
        variable = by_name.get(label)
        if variable is None or variable in chosen:
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


def _name_columns(
    path: Path, arrays: Mapping[str, Array], by_name: Mapping[str, Variable]
) -> tuple[Array, tuple[str, ...]]:
    if len(arrays) == 1:
        (only,) = arrays.values()
        if only.ndim > 1:
            return only, tuple(f"c{index}" for index in range(only.shape[-1]))
    short = [by_name[name].short_name for name in arrays]
    if len(set(short)) == len(short):
        return join_arrays(path, dict(zip(short, arrays.values(), strict=True)))
    return join_arrays(path, arrays)


def _why(variable: Variable) -> str:
    """Why a variable is no channel."""
    if not variable.is_numeric:
        return f"{variable.kind}, not numeric"
    if variable.name.lower() in NEVER_CHANNELS:
        return "never a channel"
    if variable.size < 2:
        return "one number" if variable.size else "empty"
    return "not chosen" if len(variable.shape) == 2 else f"{len(variable.shape)} dimensions"


@contextmanager
def _reading(path: Path, notes: list[str]) -> Iterator[None]:
    """Turns what SciPy raises into typed errors, and what it warns of into notes."""
    try:
        from scipy.io.matlab import MatReadError
    except ModuleNotFoundError as error:
        raise MissingExtraError(EXTRA, "scipy") from error
    with undamaged(path), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except MatReadError as error:
            raise ValueError(str(error)) from error
    notes += [" ".join(str(warning.message).split()) for warning in caught]
