"""How a delimited text file is written: delimiter, header, comment lines.

Found from the file's first lines, so that nobody has to say it.
"""

from __future__ import annotations

import csv
import enum
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile

from limpet.contracts.time_columns import is_time

MISSING = frozenset({"", "nan", "-nan", "na", "n/a", "#n/a", "null", "none", "?", "-"})
"""Spellings of a missing value, in lower case."""

NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|infinity)", re.ASCII | re.IGNORECASE
)
"""A number with a decimal point. Python's `float` takes more, `1_000` for one."""

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "whitespace"}
"""Delimiters in the order in which a tie is decided; a space stands for any whitespace."""

_SNIFFED_ROWS = 100


class CellKind(enum.Enum):
    """What a cell looks like by itself."""

    NUMBER = enum.auto()
    TIME = enum.auto()
    MISSING = enum.auto()
    TEXT = enum.auto()


class QuotingError(Exception):
    """A row that cannot be split into cells; `line` (from 1) is where it begins."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.reason = line, reason


@dataclass(frozen=True)
class Dialect:
    """How a file is written.

    Attributes:
        delimiter: One of `DELIMITERS`.
        width: Number of columns, those of the first row.
        comment_lines: Lines before the first row, each blank or starting with `#`.
        names: Column names as they stand in the file; None where it has no header.
        has_header_row: Whether they are the first row, and not the last comment line.
    """

    delimiter: str
    width: int
    comment_lines: int = 0
    names: tuple[str, ...] | None = None
    has_header_row: bool = False

    @property
    def decimal_comma(self) -> bool:
        """Whether a comma in a number is its decimal sign."""
        return self.delimiter in ";\t"

    def split(self, lines: Sequence[str], *, strict: bool = True) -> list[tuple[int, list[str]]]:
        """Rows as (number of the row's last line in `lines`, from 1; cells), without blank lines.

        Raises:
            QuotingError: A quote is not closed or closes in the middle of a cell (only where
                `strict`), or a cell is longer than the csv module takes.
        """
        if self.delimiter == " ":
            lines = [" ".join(line.split()) for line in lines]
        # In a single column, skipping spaces would turn a blank line into a quoted empty cell.
        reader = csv.reader(
            lines, delimiter=self.delimiter, strict=strict, skipinitialspace=self.width > 1
        )
        rows: list[tuple[int, list[str]]] = []
        line = 0
        try:
            for cells in reader:
                line = reader.line_num
                if not self._is_blank(cells):
                    rows.append((line, cells))
        except csv.Error as error:
            raise QuotingError(line + 1, str(error)) from error
        return rows

    def _is_blank(self, cells: list[str]) -> bool:
        if len(cells) != 1:
            return not cells
        return cells[0].isspace() or (self.width > 1 and not cells[0])


def cell_kind(cell: str, *, decimal_comma: bool) -> CellKind:
    """What a cell looks like by itself."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return CellKind.MISSING
    if NUMBER.fullmatch(cell.replace(",", ".") if decimal_comma else cell):
        return CellKind.NUMBER
    return CellKind.TIME if is_time(cell) else CellKind.TEXT


def sniff(lines: Sequence[str]) -> Dialect | None:
    """Finds how a file is written: the delimiter that makes the most cells readable.

    Args:
        lines: Its first lines, complete.

    Returns:
        The dialect; None where there is no row.

    Raises:
        QuotingError: A cell is longer than the csv module takes.
    """
    body = list(dropwhile(lambda line: not line.strip() or line.startswith("#"), lines))
    best: tuple[tuple[float, float, int], Dialect, list[list[str]]] | None = None
    for delimiter in DELIMITERS:
        dialect = Dialect(delimiter, width=2)
        rows = [cells for _, cells in dialect.split(body[:_SNIFFED_ROWS], strict=False)]
        if not rows:
            continue
        width, count = Counter(map(len, rows)).most_common(1)[0]
        if width == 1 and delimiter != ",":
            continue  # it separates nothing
        kinds = [_kinds(row, dialect) for row in rows if len(row) == width]
        readable = sum(kind is not CellKind.TEXT for row in kinds for kind in row)
        share = count / len(rows)
        score = (round(share * readable / (count * width), 6), share, width)
        if best is None or score > best[0]:
            best = score, replace(dialect, width=len(rows[0])), rows
    if best is None:
        return None
    _, dialect, rows = best
    comments = lines[: len(lines) - len(body)]
    dialect = replace(dialect, comment_lines=len(comments))
    if _is_header(rows[0], rows[1:], dialect):
        return replace(dialect, names=tuple(rows[0]), has_header_row=True)
    commented = dialect.split([line.lstrip("#") for line in comments if line.strip()], strict=False)
    if commented:
        names = commented[-1][1]
        if len(names) == dialect.width and CellKind.TEXT in _kinds(names, dialect):
            return replace(dialect, names=tuple(names))
    return dialect


def _kinds(row: Sequence[str], dialect: Dialect) -> list[CellKind]:
    return [cell_kind(cell, decimal_comma=dialect.decimal_comma) for cell in row]


def _is_header(first: Sequence[str], body: Sequence[Sequence[str]], dialect: Dialect) -> bool:
    """Whether the first row names the columns.

    A row with a datetime, or with a number that is no column number (`0,1,2,Label`), is data.
    Text makes a header where its column goes on otherwise, or where there is nothing but text.
    """
    kinds = _kinds(first, dialect)
    numbers = [
        cell.strip() for cell, kind in zip(first, kinds, strict=True) if kind is CellKind.NUMBER
    ]
    counted = [[str(start + i) for i in range(len(numbers))] for start in (0, 1)]
    if CellKind.TEXT not in kinds or CellKind.TIME in kinds or numbers not in counted:
        return False
    text_columns = [j for j, kind in enumerate(kinds) if kind is CellKind.TEXT]
    if not body or len(text_columns) == len(first):
        return True
    return any(
        cell_kind(row[j], decimal_comma=dialect.decimal_comma) in (CellKind.NUMBER, CellKind.TIME)
        for row in body
        for j in text_columns
        if j < len(row)
    )
