"""One column of a delimited text file while it is read: what it is, and its cells as numbers.

Dimension legend: n rows, b rows of a block.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.csv_dialect import MISSING, NUMBER
from limpet.contracts.time_columns import NO_TIME, is_time_name, parse_times

Float64 = NDArray[np.float64]

_TRUTH = {"true": "1", "false": "0"}
_PLAIN_MISSING = MISSING | {text.upper() for text in MISSING} | {text.title() for text in MISSING}


class Role(enum.Enum):
    """What a column is for; the value is the reason in `left_out`."""

    UNSETTLED = "empty"
    NUMBER = ""
    LABEL = "label"
    TIME = "time"
    CLOCK = "time of day"
    SPARE_TIME = "time, not used"
    NEVER = "never a channel"
    IGNORED = "ignored"
    TEXT = "not numeric"
    COUNTER = "row number"


class BadCellError(Exception):
    """A cell that its column cannot hold."""

    def __init__(self, name: str, row: int, cell: str, wanted: str) -> None:
        super().__init__(name)
        self.name, self.row, self.cell, self.wanted = name, row, cell, wanted


class Column:
    """One column while the file is read."""

    def __init__(self, name: str, role: Role) -> None:
        self.name, self.role = name, role
        self.clock: int | None = None  # the column with the time of day, where this has the date
        self.exact = is_time_name(name)  # integers are kept: they may be nanoseconds
        self.parts: list[NDArray[Any]] = []  # (b,) each

    def settle(self, cells: Sequence[str], decimal_comma: bool) -> None:
        """Finds out what the column is, if these cells tell."""
        values, bad = parse_numbers(cells, decimal_comma)
        missing = int(np.isnan(values).sum()) - len(bad)
        if not bad:
            self.role = Role.NUMBER if missing < len(cells) else Role.UNSETTLED
            return
        _, no_times = parse_times(cells, MISSING)
        if len(cells) - missing - len(no_times) > len(no_times):
            self.role = Role.TIME
            self.parts = [np.full(len(part), NO_TIME) for part in self.parts]
        elif len(cells) - missing - len(bad) > len(bad):
            self.role = Role.NUMBER
        else:
            self.role = Role.TEXT

    def parse(self, cells: Sequence[str], decimal_comma: bool) -> NDArray[Any]:
        """Reads cells. Raises `BadCellError`."""
        bad: list[int]
        values: NDArray[Any]
        if self.role is Role.TIME:
            values, bad = parse_times(cells, MISSING)
        elif self.role is Role.LABEL:
            cells = [_TRUTH.get(cell.strip().lower(), cell) for cell in cells]
            values, bad = parse_numbers(cells, decimal_comma)[0], []
        else:
            if self.exact and (integers := _parse_integers(cells)) is not None:
                return integers
            values, bad = parse_numbers(cells, decimal_comma)
        if bad:
            wanted = "a datetime" if self.role is Role.TIME else "a number"
            raise BadCellError(self.name, bad[0], cells[bad[0]], wanted)
        return values

    def values(self) -> NDArray[Any]:
        """All rows. (n,)"""
        return np.concatenate(self.parts)


def parse_numbers(cells: Sequence[str], decimal_comma: bool) -> tuple[Float64, list[int]]:
    """Numbers (b,), NaN where missing or none; and the cells that are none."""
    # Python's float also reads `1_000` and other scripts' digits, which NUMBER refuses.
    text = "".join(cells)
    if text.isascii() and "_" not in text:
        try:
            return np.fromiter(map(float, cells), np.float64, len(cells)), []
        except ValueError:
            pass
        numbers = ["nan" if cell in _PLAIN_MISSING else cell for cell in cells]
        if decimal_comma:
            numbers = [cell.replace(",", ".") for cell in numbers]
        try:
            return np.fromiter(map(float, numbers), np.float64, len(cells)), []
        except ValueError:
            pass
    values = np.full(len(cells), np.nan)
    bad: list[int] = []
    for index, cell in enumerate(cells):
        number = cell.strip().replace(",", ".") if decimal_comma else cell.strip()
        if number.lower() in MISSING:
            continue
        if NUMBER.fullmatch(number):
            values[index] = float(number)
        else:
            bad.append(index)
    return values, bad


def _parse_integers(cells: Sequence[str]) -> NDArray[np.int64] | None:
    text = "".join(cells)
    if not text.isascii() or "_" in text:
        return None
    try:
        return np.fromiter(map(int, cells), np.int64, len(cells))
    except (ValueError, OverflowError):
        return None
