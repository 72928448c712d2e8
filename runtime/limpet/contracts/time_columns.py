"""When each row of a recording was taken: ISO datetimes or numbers, as Unix nanoseconds.

Dimension legend: n rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

NO_TIME = np.iinfo(np.int64).min
"""Stands for a missing time; NumPy's NaT in the same bytes."""

_CLOCK = r"\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?"
_DATE = r"(?:19|20|21)\d\d(?:-\d\d-\d\d|/\d\d/\d\d)"
_TIME_CELL = re.compile(
    rf"(?P<date>{_DATE})(?:[Tt ](?P<clock>{_CLOCK})\s?(?P<zone>[Zz]|UTC|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_PLAIN_TIME = re.compile(
    r"(?:19|20|21)\d\d-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?", re.ASCII
)
_DATE_CELL = re.compile(_DATE, re.ASCII)
_CLOCK_CELL = re.compile(_CLOCK, re.ASCII)

_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_TIME_NAME = re.compile(
    r"(?:(?:unix|epoch|utc|elapsed)_?)?"
    r"(?:time_?stamp|date_?time|time|date|stamp|epoch|unix|ts|t)(?:_?utc)?"
    r"(?:_?[_(\[](?:(?P<s>s|secs?|seconds?)|(?P<ms>ms|msecs?|milliseconds?)"
    r"|(?P<us>[u\u00b5\u03bc]s|usecs?|microseconds?)|(?P<ns>ns|nsecs?|nanoseconds?))[)\]]?)?"
)


def is_time(cell: str) -> bool:
    """Whether a cell is an ISO-like datetime (`2020-03-01 15:44:06.5+01:00`) or date."""
    return _TIME_CELL.fullmatch(cell.strip()) is not None


def is_date(cell: str) -> bool:
    """Whether a cell is a date without a time of day."""
    return _DATE_CELL.fullmatch(cell.strip()) is not None


def is_clock(cell: str) -> bool:
    """Whether a cell is a time of day without a date."""
    return _CLOCK_CELL.fullmatch(cell.strip()) is not None


def is_time_name(name: str) -> bool:
    """Whether numbers under this name may be times: `timestamp`, `t`, `time_ms`, `Time [s]`."""
    return _match_name(name) is not None


def parse_times(cells: Sequence[str], missing: frozenset[str]) -> tuple[Int64, list[int]]:
    """Reads datetimes; one without a time zone is UTC.

    Args:
        cells: Text of n cells.
        missing: Spellings of a missing value, in lower case.

    Returns:
        Unix nanoseconds (n,), `NO_TIME` where missing; and the cells that are no datetime.
    """
    if all(map(_PLAIN_TIME.fullmatch, cells)):
        try:
            return np.array(cells, "datetime64[ns]").astype(np.int64), []
        except ValueError:
            pass  # a month 13: found cell by cell below
    times_ns = np.full(len(cells), NO_TIME)
    bad: list[int] = []
    for index, cell in enumerate(cells):
        if cell.strip().lower() in missing:
            continue
        time_ns = _parse_time(cell.strip())
        if time_ns is None:
            bad.append(index)
        else:
            times_ns[index] = time_ns
    return times_ns, bad


def _parse_time(cell: str) -> int | None:
    match = _TIME_CELL.fullmatch(cell)
    if match is None:
        return None
    text = match["date"].replace("/", "-")
    if match["clock"]:
        text += "T" + match["clock"].replace(",", ".")
    try:
        local_ns = int(np.datetime64(text, "ns").astype(np.int64))
    except ValueError:
        return None
    zone = match["zone"] or "Z"
    if zone[0] not in "+-":
        return local_ns
    minutes = int(zone[1:3]) * 60 + int(zone[3:].lstrip(":") or 0)
    return local_ns - int(zone[0] + "1") * minutes * 60 * 10**9


def numbers_to_times(name: str, values: NDArray[np.int64] | NDArray[np.float64]) -> Int64 | None:
    """Reads a numeric column as times.

    The unit is the one in the name (`time_ms`), else it follows from the magnitude: below 1e11
    seconds (the year 5138), below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds.

    Args:
        name: The column's name.
        values: Numbers, NaN where missing. (n,)

    Returns:
        Unix nanoseconds (n,), `NO_TIME` where missing; None where this is no time column: it
        has another name, decreases, stands still or leaves the years that int64 can hold.
    """
    match = _match_name(name)
    measured = np.isfinite(values)
    known = values[measured]
    if match is None or np.isinf(values).any() or not len(known):
        return None
    if len(known) > 1 and (known[-1] <= known[0] or (known[1:] < known[:-1]).any()):
        return None
    largest = max(abs(float(known[0])), abs(float(known[-1])))
    by_magnitude = sum(largest >= limit for limit in (1e11, 1e14, 1e17))
    named = next((unit for unit, found in match.groupdict().items() if found), None)
    factor = _UNIT_NS[named or tuple(_UNIT_NS)[by_magnitude]]
    if largest * factor > 9.2e18:
        return None
    times_ns = np.full(len(values), NO_TIME)
    if known.dtype.kind == "i":  # kept exact: float64 resolves today's nanoseconds to 256
        times_ns[measured] = known * factor
    else:
        whole = np.floor(known)
        part_ns = np.rint((known - whole) * factor).astype(np.int64)
        times_ns[measured] = whole.astype(np.int64) * factor + part_ns
    return times_ns


def rate_from_times(times_ns: Int64) -> tuple[float | None, tuple[str, ...]]:
    """The sampling rate, 1 / median step.

    Args:
        times_ns: Unix nanoseconds, `NO_TIME` where missing. (n,)

    Returns:
        Hz, or None where the times give none; and warnings.
    """
    known = times_ns != NO_TIME
    steps = np.diff(times_ns)[known[1:] & known[:-1]]
    if not len(steps):
        return None, ()
    warnings = []
    backwards = int((steps < 0).sum())
    if backwards:
        places = "1 place" if backwards == 1 else f"{backwards} places"
        warnings.append(f"time runs backwards in {places}")
    median = float(np.median(steps))
    if median > 0:
        return 1e9 / median, tuple(warnings)
    mean = float(np.mean(steps))
    if mean > 0:
        warnings.append("most rows share their time with the row before: taking the mean rate")
        return 1e9 / mean, tuple(warnings)
    return None, tuple(warnings)


def _match_name(name: str) -> re.Match[str] | None:
    return _TIME_NAME.fullmatch(re.sub(r"[\s.-]+", "_", name.strip().lower()))
