"""Which columns of a recording are channels, which one is the label, and their names.

Dimension legend: s segments, n rows (samples in time), c channels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import DataError

Float64 = NDArray[np.float64]

LABEL_NAMES = ("anomaly", "label", "is_anomaly")
"""Names (any case) of a label, in the order in which one is taken."""

NEVER_CHANNELS = frozenset({*LABEL_NAMES, "changepoint"})
"""Names (any case) of columns that are never channels."""

RATE_NAMES = ("rate_hz", "fs")
"""Names (any case) of a single number that states the sampling rate in Hz."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedColumns:
    """What a file holds, before rate and labels are settled.

    Attributes:
        values: The channels, NaN where missing. (n, c)
        channels: Their names.
        times_ns: Unix nanoseconds of each row, `NO_TIME` where missing. (n,)
        rate_hz: The sampling rate that the file states.
        segments: First row of each segment.
        label: The label column as numbers, NaN where missing or no number. (n,)
        label_name: Its name.
        left_out: Columns that are no channels, each with the reason.
        warnings: What the reader should know.
    """

    values: Float64
    channels: tuple[str, ...]
    times_ns: NDArray[np.int64] | None = None
    rate_hz: float | None = None
    segments: tuple[int, ...] = (0,)
    label: Float64 | None = None
    label_name: str = ""
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def unique_names(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names every column: an empty name becomes `c3` (its position), a repeated one `name_2`.

    Returns:
        The names, and a warning for each repeated one.
    """
    taken: set[str] = set()
    unique: list[str] = []
    warnings = []
    given = {name.strip() for name in names}
    for index, name in enumerate(names):
        wanted = name.strip() or f"c{index}"
        chosen, count = wanted, 1
        while chosen in taken or (count > 1 and chosen in given):
            count += 1
            chosen = f"{wanted}_{count}"
        if count > 1:
            warnings.append(f"column name {wanted!r} is repeated: column {index + 1} is {chosen!r}")
        taken.add(chosen)
        unique.append(chosen)
    return tuple(unique), tuple(warnings)


def check_known(
    path: Path, option: str, wanted: Iterable[str], names: Collection[str], what: str = "columns"
) -> None:
    """Checks that an option names columns that exist.

    Raises:
        DataError: One does not.
    """
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise DataError(
            f"{path}: {option} {', '.join(unknown)}: no such column",
            f"{what}: {', '.join(names)}",
        )


def find_label(names: Sequence[str], ignore: Collection[str], label: str | None) -> str | None:
    """The label column: the one named, else the first of `LABEL_NAMES` that is not ignored."""
    if label is not None:
        return label
    for wanted in LABEL_NAMES:
        for name in names:
            if name.lower() == wanted and name not in ignore:
                return name
    return None


def to_labels(values: Float64) -> tuple[NDArray[np.bool_] | None, str]:
    """Ground truth from numbers: 0 is normal, any other class number anomalous.

    Args:
        values: NaN where missing or no number. (n,)

    Returns:
        Labels (n,) and an empty string, or None and what is wrong.
    """
    missing = np.isnan(values)
    if missing.any():
        return None, (
            f"{missing.sum()} of {len(values)} rows have no label that is a number "
            f"(first: row {missing.argmax()})"
        )
    wrong = ~np.isfinite(values) | (values < 0) | (values != np.rint(values))
    if wrong.any():
        return None, f"row {wrong.argmax()} holds {values[wrong.argmax()]:g}, wanted 0 or 1"
    return values != 0, ""


def check_rate(name: str, rate_hz: float) -> tuple[float | None, tuple[str, ...]]:
    """The rate that a file states under this name, None where it is none; and a warning then."""
    if math.isfinite(rate_hz) and rate_hz > 0:
        return rate_hz, ()
    return None, (f"{name!r} is {rate_hz:g}, wanted a rate in Hz: not used",)


def split_key(key: str, names: Collection[str]) -> list[str]:
    """The arrays that `--key` names: one, or several separated by commas."""
    return [key] if key in names else [part.strip() for part in key.split(",")]


def join_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Puts arrays (n,) and (n, c) beside each other.

    Args:
        path: Where they come from, for the message.
        arrays: By name.

    Returns:
        All of them (n, c); their names, those of a matrix numbered (`x_0`, `x_1`).

    Raises:
        DataError: They differ in length, or one has three dimensions.
    """
    columns, names = [], []
    for name, array in arrays.items():
        columns.append(array[:, None] if array.ndim == 1 else array)
        width = columns[-1].shape[-1]
        names += [name] if array.ndim == 1 else [f"{name}_{index}" for index in range(width)]
    if any(column.ndim > 2 or len(column) != len(columns[0]) for column in columns):
        listed = "; ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(
            f"{path}: arrays of several shapes are no channels of one recording: {listed}",
            "say --key with those of equal length, separated by commas",
        )
    return np.concatenate(columns, axis=1), tuple(names)


def labels_fit(labels: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether labels of this shape are one a row, or one a segment, of an array."""
    rows = math.prod(shape[:-1] if len(shape) > 1 else shape)
    fitting = [(rows,), (rows, 1)] + ([shape[:2], shape[:1]] if len(shape) == 3 else [])
    return labels in fitting


def array_to_columns(
    path: Path,
    array: NDArray[Any],
    names: Sequence[str],
    ignore: Collection[str],
    label: str | None,
    *,
    labels: NDArray[Any] | None = None,
    label_key: str = "",
    times_ns: NDArray[np.int64] | None = None,
    rate_hz: float | None = None,
    segments: tuple[int, ...] | None = None,
    left_out: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> RecordedColumns:
    """Sorts the columns of an array into channels, label and what is left out.

    Args:
        path: Where it comes from, for the message.
        array: (n,), (n, c) or (s, n, c).
        names: Of its columns. (c,)
        ignore: Columns to leave out.
        label: Column that holds the labels, where it is one of `names`.
        labels: Labels from elsewhere, one a row or one a segment.
        label_key: What to call those.
        times_ns: Unix nanoseconds of each row. (n,)
        rate_hz: The sampling rate that the file states.
        segments: First row of each segment, where the array has fewer than three dimensions.
        left_out: What else of the file is no channel, each with the reason.
        warnings: What the reader should know.

    Raises:
        DataError: `ignore` names no column, or no channel is left.
    """
    check_known(path, "--ignore", ignore, names, "channels")
    values = array.reshape(-1, len(names)).astype(np.float64, copy=False)  # (all rows, c)
    label_name = label_key or find_label(names, ignore, label) or ""
    if labels is not None:  # one a row, or one a segment
        labels = np.repeat(labels.reshape(-1), len(values) // labels.size).astype(np.float64)
    elif label_name:
        labels = values[:, list(names).index(label_name)].copy()
    kept, others = [], list(left_out)
    for index, name in enumerate(names):
        if name == label_name and not label_key:
            others.append(f"{name} (label)")
        elif name in ignore:
            others.append(f"{name} (ignored)")
        elif name.lower() in NEVER_CHANNELS:
            others.append(f"{name} (never a channel)")
        else:
            kept.append(index)
    if label_key:
        others.append(f"{label_key} (label)")
    if not kept:
        raise DataError(f"{path}: no channel is left", f"columns: {', '.join(others)}")
    if array.ndim == 3:
        segments = tuple(range(0, len(values), array.shape[1]))
    return RecordedColumns(
        values=np.ascontiguousarray(values if len(kept) == len(names) else values[:, kept]),
        channels=tuple(names[index] for index in kept),
        times_ns=times_ns,
        rate_hz=rate_hz,
        segments=segments or (0,),
        label=labels,
        label_name=label_name,
        left_out=tuple(others),
        warnings=warnings,
    )
