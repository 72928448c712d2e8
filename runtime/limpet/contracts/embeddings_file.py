"""Embedding files: one embedding per image, rows of unit length, in the order of the images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import UsageError
from limpet.contracts.scores_file import SUFFIXES
from limpet.contracts.whole_files import output_file

EMBEDDING = "embedding"
"""Key of an npz; columns of a CSV are `embedding_0`, `embedding_1`, …."""


def write_embeddings(path: str | os.PathLike[str], embeddings: NDArray[np.float32]) -> None:
    """Writes an embedding file by its suffix; a file of that name is replaced at once or not at
    all.

    Args:
        path: `.npy` (n, e), `.npz` with the key `embedding`, or `.csv` with a column each.
        embeddings: float32 (n, e)

    Raises:
        UsageError: Another suffix, or the folder does not exist.
        LimpetError: The file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: {path.suffix or 'no suffix'} is no suffix of an embedding file",
            f"suffixes: {', '.join(SUFFIXES)}",
        )
    with output_file(path) as file:
        if suffix == ".npy":
            np.save(file, embeddings, allow_pickle=False)
        elif suffix == ".npz":
            np.savez(file, **{EMBEDDING: embeddings})  # type: ignore[arg-type]
        else:  # nine significant digits tell any two float32 apart
            names = [f"{EMBEDDING}_{index}" for index in range(embeddings.shape[1])]
            rows = [",".join(f"{value:.9g}" for value in row) for row in embeddings.tolist()]
            file.write(("\n".join([",".join(names), *rows]) + "\n").encode())
