"""Reading the UCI Robot Execution Failures format: labelled blocks of force and torque.

A block is a line with its class (`normal`, `collision`, …) and 15 lines of six integers,
separated by tabs; blank lines stand between blocks. Each block is a segment by itself.

Source: Lopes and Camarinha-Matos, "Robot Execution Failures", UCI Machine Learning Repository,
1999. A block spans 315 ms.

Dimension legend: s blocks.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from limpet.contracts.errors import DataError
from limpet.contracts.recording_columns import RecordedColumns, array_to_columns, check_known

CHANNELS = ("Fx", "Fy", "Fz", "Tx", "Ty", "Tz")
"""Force and torque along three axes, in the counts of the sensor."""

BLOCK_ROWS = 15
RATE_HZ = BLOCK_ROWS / 0.315
NORMAL_CLASSES = frozenset({"normal", "ok"})
LABEL = "label"
"""What the class of a block is called where a column would have a name."""

_CLASS = re.compile(r"[A-Za-z]\w*", re.ASCII)
_ROW = re.compile(r"[+-]?\d{1,15}(?:\t[+-]?\d{1,15}){5}", re.ASCII)
_SNIFFED_BYTES = 4096


def holds_failures(path: Path) -> bool:
    """Whether a text file begins with a class and a row of six integers, whatever its suffix."""
    try:
        with path.open("rb") as file:
            text = file.read(_SNIFFED_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return False  # whoever reads it says what is wrong with it
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return len(lines) > 1 and bool(_CLASS.fullmatch(lines[0]) and _ROW.fullmatch(lines[1]))


def read_failures(
    path: Path, *, ignore: Collection[str] = (), label: str | None = None
) -> RecordedColumns:
    """Reads the blocks as segments; a class outside `NORMAL_CLASSES` makes 15 anomalous rows.

    Args:
        path: The file.
        ignore: Channels to leave out.
        label: A channel that holds the labels, by default (`label`) the class.

    Raises:
        DataError: A block is not as the format has it; the message names the line.
    """
    check_known(path, "--label", [] if label is None else [label], [LABEL, *CHANNELS])
    try:
        lines = path.read_text("ascii").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, byte {error.start}: not ASCII, wanted classes and integers"
        ) from error
    anomalous: list[bool] = []
    blocks: list[list[list[float]]] = []
    began = 0
    for number, line in enumerate([*map(str.strip, lines), "end"], start=1):
        if _CLASS.fullmatch(line):
            if blocks and len(blocks[-1]) != BLOCK_ROWS:
                raise DataError(
                    f"{path}, line {began}: block {lines[began - 1].strip()!r} has "
                    f"{len(blocks[-1])} rows, wanted {BLOCK_ROWS}",
                    "delete the block, or restore its rows",
                )
            if number <= len(lines):
                anomalous.append(line.lower() not in NORMAL_CLASSES)
                blocks.append([])
                began = number
        elif blocks and _ROW.fullmatch(line):
            blocks[-1].append([float(cell) for cell in line.split("\t")])
        elif line:
            raise DataError(
                f"{path}, line {number}: {line[:80]!r}, wanted a class or "
                f"{len(CHANNELS)} integers separated by tabs"
            )
    by_class = label in (None, LABEL)
    return array_to_columns(
        path,
        np.array(blocks),  # (s, 15, 6)
        CHANNELS,
        ignore,
        None if by_class else label,
        labels=np.array(anomalous) if by_class else None,
        label_key=LABEL if by_class else "",
        rate_hz=RATE_HZ,
        left_out=() if by_class else (f"{LABEL} (never a channel)",),
    )
