"""A picture of what an embedding holds for alike: frames, each beside its nearest neighbours.

Dimension legend: p poses, k views of each, e embedding, H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limpet.contracts.errors import UsageError
from limpet.contracts.whole_files import output_file
from limpet.training.navigation.frames import Float32, Frames

QUERIES, NEIGHBOURS = 12, 6
"""Rows of the picture, and frames beside the first of each."""
GAP = 4
"""Pixels between two frames, and twice as many beside the first."""


def draw_neighbours(out: Path, embedded: Float32, poses: NDArray[np.intp], frames: Frames) -> None:
    """Draws frames in their first appearance and, to the right, the nearest frames of other poses
    in the second appearance, nearest first.

    Args:
        out: The picture, `.png`.
        embedded: Rows of unit length. (p, k, e)
        poses: Which poses they are of. (p,)
        frames: Where those come from.

    Raises:
        UsageError: Another suffix, or the folder does not exist.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(
            f"{out}: {out.suffix or 'no suffix'} is no suffix of a picture", "say .png"
        )
    second = min(1, frames.views - 1)
    queries = np.linspace(0, len(poses) - 1, min(QUERIES, len(poses))).astype(np.intp)
    cosines = embedded[queries, 0] @ embedded[:, second].T
    cosines[np.arange(len(queries)), queries] = -np.inf
    nearest = np.argsort(-cosines, axis=1)[:, :NEIGHBOURS]
    height, width = frames.images[0].shape[2:4]
    columns = 1 + nearest.shape[1]
    sheet = np.full(
        ((height + GAP) * len(queries) - GAP, (width + GAP) * columns, 3), 255, np.uint8
    )
    for row, query in enumerate(queries):
        top = row * (height + GAP)
        shown = [frames.take(poses[[query]], np.array([0]))[0]]
        shown += [*frames.take(poses[nearest[row]], np.full(columns - 1, second))]
        for column, image in enumerate(shown):
            left = column * (width + GAP) + (GAP if column else 0)
            sheet[top : top + height, left : left + width] = image
    with output_file(out) as file:
        Image.fromarray(sheet).save(file, "PNG")
