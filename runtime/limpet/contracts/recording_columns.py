"""Which columns of a recording are channels, which one is the label, and their names.

Dimension legend: n rows (samples in time), c channels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import DataError

Float64 = NDArray[np.float64]

LABEL_NAMES = ("anomaly", "label", "is_anomaly")
"""Names (any case) of a label, in the order in which one is taken."""

NEVER_CHANNELS = frozenset({*LABEL_NAMES, "changepoint"})
"""Names (any case) of columns that are never channels."""


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
            f"{missing.sum()} of {len(values)} rows have no label (first: row {missing.argmax()})"
        )
    wrong = ~np.isfinite(values) | (values < 0) | (values != np.rint(values))
    if wrong.any():
        return None, f"row {wrong.argmax()} holds {values[wrong.argmax()]:g}, wanted 0 or 1"
    return values != 0, ""
