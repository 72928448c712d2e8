"""Reading a delimited text file (CSV and its relatives) into columns.

Dimension legend: n rows, c channels, b rows of a block.

The file is read block by block. The first block settles what each column is; from then on a
block of numbers, datetimes and missing cells goes through NumPy's C parser, any other cell by
cell, which finds the line to blame.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.csv_columns import BadCellError, Column, Role
from limpet.contracts.csv_dialect import DELIMITERS, MISSING, Dialect, QuotingError, sniff
from limpet.contracts.errors import DataError
from limpet.contracts.recording_columns import (
    NEVER_CHANNELS,
    RecordedColumns,
    check_known,
    find_label,
    unique_names,
)
from limpet.contracts.time_columns import (
    is_clock,
    is_date,
    numbers_to_times,
)

Float64 = NDArray[np.float64]

_FIRST_BLOCK_CHARS = 1 << 20
_BLOCK_CHARS = 1 << 23
_UNQUOTED = "look for a quote that is not closed"
_READ = (Role.UNSETTLED, Role.NUMBER, Role.LABEL, Role.TIME)


def read_csv(
    path: Path, *, ignore: Collection[str] = (), label: str | None = None
) -> RecordedColumns:
    """Reads a delimited text file.

    Args:
        path: The file.
        ignore: Columns to leave out, unread.
        label: Name of the label column, by default the first of `LABEL_NAMES`.

    Raises:
        DataError: It cannot be read; the message names file, line, column and cell.
    """
    with _readable(path), path.open(encoding="utf-8-sig", newline="") as file:
        block = file.readlines(_FIRST_BLOCK_CHARS)
        try:
            dialect = sniff(block)
        except QuotingError as error:
            raise DataError(f"{path}: {error.reason}", _UNQUOTED) from error
        if dialect is None:
            raise DataError(f"{path} is empty", "wanted: rows of numbers, with or without a header")
        reader = _Reader(path, file, dialect, ignore, label)
        while block:
            reader.take(block)
            block = file.readlines(_BLOCK_CHARS)
    return reader.finish()


class _Reader:
    """Collects the columns of one file, block by block."""

    def __init__(
        self,
        path: Path,
        file: TextIO,
        dialect: Dialect,
        ignore: Collection[str],
        label: str | None,
    ) -> None:
        self._path, self._file, self._dialect = path, file, dialect
        names, self._warnings = unique_names(dialect.names or [""] * dialect.width)
        check_known(path, "--ignore", ignore, names)
        check_known(path, "--label", [] if label is None else [label], names)
        self._label = find_label(names, ignore, label)
        self._columns = [Column(name, self._role(name, ignore)) for name in names]
        edge = re.escape(dialect.delimiter)
        spellings = "|".join(map(re.escape, sorted(MISSING, reverse=True)))
        self._missing_cell = re.compile(
            rf"{edge} *(?:{spellings}) *(?={edge}|\r?\n?$)", re.IGNORECASE
        )
        self._lines = 0  # lines before this block
        self._rows = 0

    def _role(self, name: str, ignore: Collection[str]) -> Role:
        if name == self._label:
            return Role.LABEL
        if name in ignore:
            return Role.IGNORED
        return Role.NEVER if name.lower() in NEVER_CHANNELS else Role.UNSETTLED

    def take(self, block: list[str]) -> None:
        """Reads the next lines."""
        quotes = sum(line.count('"') for line in block)
        while quotes % 2 and (line := self._file.readline()):  # a cell goes on in the next line
            block.append(line)
            quotes += line.count('"')
        if quotes or not self._take_clean(block):
            self._take_carefully(block)
        self._lines += len(block)

    def _take_clean(self, block: list[str]) -> bool:
        """Reads a block of numbers and datetimes at C speed; False where it is anything else."""
        delimiter, width = self._dialect.delimiter, self._dialect.width
        columns = [(j, column) for j, column in enumerate(self._columns) if column.role in _READ]
        slow = [(j, c) for j, c in columns if c.exact or c.role is Role.TIME]
        fast = [(j, c) for j, c in columns if not (c.exact or c.role is Role.TIME)]
        spaced = delimiter == " "
        if not self._rows or not fast or any(c.role is Role.UNSETTLED for _, c in slow):
            return False
        if spaced and len(fast) < width:
            return False
        if width == 1 or spaced:
            block = [line for line in block if not line.isspace()]
        elif {line.count(delimiter) for line in block} != {width - 1}:
            return False
        if not block:
            return True
        table = self._load_numbers(block, [j for j, _ in fast])
        if table is None or table.shape != (len(block), len(fast)):
            return False
        unsettled = [index for index, (_, c) in enumerate(fast) if c.role is Role.UNSETTLED]
        if not np.isnan(table[:, unsettled]).all():
            return False
        try:
            parts = [column.parse(self._cells(block, j, column), False) for j, column in slow]
        except BadCellError:
            return False
        for index, (_, column) in enumerate(fast):
            column.parts.append(table[:, index])
        for (_, column), part in zip(slow, parts, strict=True):
            column.parts.append(part)
        self._rows += len(block)
        return True

    def _load_numbers(self, lines: list[str], columns: list[int]) -> Float64 | None:
        """Columns of numbers (b, columns); None where a cell is neither a number nor missing."""
        delimiter = self._dialect.delimiter
        if self._dialect.decimal_comma:
            lines = [line.replace(",", ".") for line in lines]
        for fill_missing in (False,) if delimiter == " " else (False, True):
            if fill_missing:
                filled = delimiter + "nan"
                lines = [self._missing_cell.sub(filled, delimiter + line)[1:] for line in lines]
            try:
                return np.loadtxt(
                    lines,
                    delimiter=None if delimiter == " " else delimiter,
                    comments=None,
                    encoding=None,
                    usecols=None if len(columns) == self._dialect.width else columns,
                    ndmin=2,
                )
            except ValueError:
                continue
        return None

    def _cells(self, lines: list[str], j: int, column: Column) -> list[str]:
        delimiter = self._dialect.delimiter
        cells = [line.split(delimiter, j + 1)[j].strip() for line in lines]
        if column.clock is None:
            return cells
        k = column.clock
        return _join(cells, [line.split(delimiter, k + 1)[k].strip() for line in lines])

    def _take_carefully(self, block: list[str]) -> None:
        width, decimal_comma = self._dialect.width, self._dialect.decimal_comma
        skipped = 0 if self._lines else self._dialect.comment_lines
        before = self._lines + skipped
        try:
            rows = self._dialect.split(block[skipped:])
        except QuotingError as error:
            where = f"{self._path}, line {before + error.line}"
            raise DataError(f"{where}: {error.reason}", _UNQUOTED) from error
        if not self._lines and self._dialect.has_header_row:
            rows = rows[1:]
        if not rows:
            return
        ragged = next((i for i, (_, cells) in enumerate(rows) if len(cells) != width), None)
        if ragged is not None:
            raise self._ragged(
                before + rows[ragged][0], len(rows[ragged][1]), ragged + 1 == len(rows)
            )
        flat = list(chain.from_iterable(cells for _, cells in rows))
        for j, column in enumerate(self._columns):
            if column.role not in _READ:
                continue
            cells = flat[j::width]
            if column.role is Role.UNSETTLED:
                column.settle(cells, decimal_comma)
                self._settle_time(j, flat)
            if column.role is Role.TEXT or column.role is Role.SPARE_TIME:
                continue
            if column.clock is not None:
                cells = _join(cells, flat[column.clock :: width])
            try:
                column.parts.append(column.parse(cells, decimal_comma))
            except BadCellError as bad:
                raise self._bad_cell(bad, before + rows[bad.row][0]) from None
        self._rows += len(rows)

    def _settle_time(self, j: int, flat: list[str]) -> None:
        """Takes the first column of datetimes; a date goes with a time of day on its right."""
        column, width = self._columns[j], self._dialect.width
        n_rows = len(flat) // width
        if column.role is not Role.TIME:
            return
        if any(other.role is Role.TIME for other in self._columns if other is not column):
            column.role = Role.SPARE_TIME
        elif j + 1 < width and self._columns[j + 1].role is Role.UNSETTLED:
            pairs = zip(flat[j::width], flat[j + 1 :: width], strict=True)
            if 2 * sum(is_date(date) and is_clock(clock) for date, clock in pairs) > n_rows:
                column.clock = j + 1
                self._columns[j + 1].role = Role.CLOCK

    def _ragged(self, line: int, found: int, last: bool) -> DataError:
        width, delimiter = self._dialect.width, DELIMITERS[self._dialect.delimiter]
        hint = f"every line needs {width} cells, separated by {delimiter}, as the first has"
        if last and found < width and not self._file.readline():
            hint = "the last line is cut short, as a logger leaves it when it stops: delete it"
        cells = "1 cell" if found == 1 else f"{found} cells"
        return DataError(f"{self._path}, line {line}: {cells}, wanted {width}", hint)

    def _bad_cell(self, bad: BadCellError, line: int) -> DataError:
        hint = (
            "correct it, leave the cell empty where the value is missing, "
            f"or leave the column out: --ignore {bad.name!r}"
        )
        if self._dialect.names is None and line == self._dialect.comment_lines + 1:
            hint += "; if this line is a header, no name in it may be a number or a date"
        return DataError(
            f"{self._path}, line {line}, column {bad.name!r}: "
            f"{bad.cell[:80]!r} is not {bad.wanted}",
            hint,
        )

    def finish(self) -> RecordedColumns:
        """The columns, once all lines are read."""
        if not self._rows:
            raise DataError(f"{self._path} has a header and no rows")
        warnings = list(self._warnings)
        times_ns = self._find_times(warnings)
        for column, name in zip(self._columns, self._dialect.names or (), strict=False):
            unnamed = column.role is Role.NUMBER and not name.strip() and self._rows > 1
            if unnamed and (np.diff(column.values()) == 1).all():  # what pandas writes as index
                column.role = Role.COUNTER
        channels = [column for column in self._columns if column.role is Role.NUMBER]
        left_out = tuple(
            f"{column.name} ({column.role.value})"
            for column in self._columns
            if column.role is not Role.NUMBER
        )
        if not channels:
            raise DataError(
                f"{self._path}: no numeric column to take as a channel",
                f"columns: {', '.join(left_out)}",
            )
        values = np.empty((self._rows, len(channels)))  # (n, c)
        for index, column in enumerate(channels):
            np.concatenate(column.parts, out=values[:, index])
            column.parts.clear()
        labels = next((c.values() for c in self._columns if c.role is Role.LABEL), None)
        return RecordedColumns(
            values=values,
            channels=tuple(column.name for column in channels),
            times_ns=times_ns,
            label=labels,
            label_name=self._label or "",
            left_out=left_out,
            warnings=tuple(warnings),
        )

    def _find_times(self, warnings: list[str]) -> NDArray[np.int64] | None:
        """The datetimes, else the first numbers that are times by their name."""
        times_ns = next((c.values() for c in self._columns if c.role is Role.TIME), None)
        for column in self._columns:
            if column.role is not Role.NUMBER or not column.exact:
                continue
            found = numbers_to_times(column.name, column.values())
            if found is None:
                warnings.append(
                    f"column {column.name!r} does not ascend: taken as a channel, not as time"
                )
            elif times_ns is None:
                column.role, times_ns = Role.TIME, found
            else:
                column.role = Role.SPARE_TIME
        return times_ns


def _join(dates: Sequence[str], clocks: Sequence[str]) -> list[str]:
    return [f"{date.strip()} {clock.strip()}" for date, clock in zip(dates, clocks, strict=True)]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path) from error


def _wrong_encoding(path: Path) -> DataError:
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return DataError(f"{path} is UTF-16", "save it as UTF-8")
    where, found = "", ": it"
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        where = f", line {line}"
        found = f": byte 0x{content[error.start]:02x}"
    return DataError(
        f"{path}{where}{found} is not UTF-8",
        f"convert it: iconv -f latin1 -t utf-8 '{path}' > utf8.csv",
    )
