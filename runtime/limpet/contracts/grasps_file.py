"""Files of grasps: GraspNet's 17 numbers a row, score descending."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import UsageError
from limpet.contracts.scores_file import SUFFIXES
from limpet.contracts.whole_files import output_file

GRASPS = "grasps"
"""Key of an npz."""
COLUMNS = (
    "score", "width_m", "height_m", "depth_m",
    *(f"r{row}{column}" for row in range(3) for column in range(3)),
    "x_m", "y_m", "z_m", "object_id",
)  # fmt: skip
"""Columns of a CSV, in the order of a row."""


def write_grasps(
    path: str | os.PathLike[str],
    rows: NDArray[np.float32],
    others: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Writes rows by the file's suffix; a file of that name is replaced at once or not at all.

    Args:
        path: `.npy` (n, 17), `.npz` with the key `grasps`, or `.csv` with a column for each number.
        rows: float32 (n, 17)
        others: Arrays that an npz holds as well.

    Raises:
        UsageError: Another suffix, or the folder does not exist.
        LimpetError: The file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: {path.suffix or 'no suffix'} is no suffix of a file of grasps",
            f"suffixes: {', '.join(SUFFIXES)}",
        )
    with output_file(path) as file:
        if suffix == ".npy":
            np.save(file, rows, allow_pickle=False)
        elif suffix == ".npz":
            np.savez(file, **{GRASPS: rows, **(others or {})})  # type: ignore[arg-type]
        else:  # nine significant digits tell any two float32 apart
            lines = [",".join(f"{value:.9g}" for value in row) for row in rows.tolist()]
            file.write(("\n".join([",".join(COLUMNS), *lines]) + "\n").encode())
