"""Score files: one anomaly score per input row, NaN where there is none; high is anomalous."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.array_files import DAMAGE
from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.whole_files import check_folder, output_file

SUFFIXES = (".csv", ".npy", ".npz")
"""Suffixes of score files, in any case."""

SCORE = "score"
"""Column of a CSV, key of an npz."""


def write_scores(path: str | os.PathLike[str], scores: NDArray[np.floating]) -> None:
    """Writes a score file by its suffix; a file of that name is replaced at once or not at all.

    Args:
        path: `.csv` with the column `score`, `.npy` float32 (n,) or `.npz` with the key `score`.
        scores: One a row, NaN where there is none; stored as float32. (n,)

    Raises:
        UsageError: Another suffix, or the folder does not exist.
        LimpetError: The file cannot be written.
    """
    path = Path(path)
    _check_suffix(path)
    if scores.ndim != 1 or scores.dtype.kind != "f":
        raise TypeError(f"scores are {scores.dtype} {list(scores.shape)}, wanted floating [rows]")
    stored = scores.astype(np.float32)
    suffix = path.suffix.lower()
    with output_file(path) as file:
        if suffix == ".npy":
            np.save(file, stored, allow_pickle=False)
        elif suffix == ".npz":
            np.savez(file, score=stored)
        else:  # nine significant digits tell any two float32 apart
            rows = "".join([f"{score:.9g}\n" for score in stored.tolist()])
            file.write(f"{SCORE}\n{rows}".encode())


def check_scores_file(path: str | os.PathLike[str]) -> None:
    """Whether scores can be written there, before the work of which they come.

    Raises:
        UsageError: No suffix of a score file, or the folder does not exist.
    """
    path = Path(path)
    _check_suffix(path)
    check_folder(path)


def read_scores(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Reads what `write_scores` wrote. float32 (n,)

    Raises:
        UsageError: Another suffix.
        DataError: The file cannot be read, or is no score file.
    """
    path = Path(path)
    _check_suffix(path)
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as text:
                scores = _read_csv(path, text)
        else:
            with path.open("rb") as file:
                loaded = np.load(file, allow_pickle=False)
                scores = loaded if isinstance(loaded, np.ndarray) else loaded[SCORE]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (*DAMAGE, csv.Error) as error:
        raise DataError(f"{path} is no score file: {error}") from error
    if scores.ndim != 1 or scores.dtype.kind != "f":
        raise DataError(f"{path}: scores are {scores.dtype} {list(scores.shape)}, wanted [rows]")
    return scores.astype(np.float32)


def _read_csv(path: Path, text: TextIO) -> NDArray[np.float32]:
    rows = csv.reader(text)
    header = next(rows, [])
    if SCORE not in header:
        raise DataError(f"{path} has no column {SCORE!r}, found: {', '.join(header) or 'nothing'}")
    column = header.index(SCORE)
    scores = []
    for cells in rows:
        try:
            scores.append(float(cells[column]))
        except (ValueError, IndexError):
            raise DataError(f"{path}, line {rows.line_num}: {cells} holds no score") from None
    return np.array(scores, np.float32)


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: {path.suffix or 'no suffix'} is no suffix of a score file",
            f"suffixes: {', '.join(SUFFIXES)}",
        )
