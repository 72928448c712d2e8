"""Depth images and clouds in files. PNG needs Pillow.

Dimension legend: H rows, W columns, n points.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.array_files import undamaged
from limpet.contracts.errors import DataError, MissingExtraError

SUFFIXES = (".png", ".npy", ".npz")
"""Suffixes of files with depth, in any case."""
DEPTH_KEY, INTRINSICS_KEY = "depth", "intrinsics_matrix"
"""Keys of an npz, as the scenes published with 6-DOF GraspNet have them."""


@dataclass(frozen=True, eq=False)
class DepthFile:
    """What one file holds.

    Attributes:
        values: A depth image in the file's own unit (H, W), or a cloud (n, 3).
        intrinsics: The camera's, where the file has them. (3, 3)
    """

    values: NDArray[Any]
    intrinsics: NDArray[np.float64] | None = None

    @property
    def is_cloud(self) -> bool:
        """Whether it holds points instead of an image."""
        return self.values.shape[1] == 3 and self.values.dtype.kind == "f"


def read_depth(path: Path) -> DepthFile:
    """Reads a depth image, or a cloud from `.npy`.

    Args:
        path: `.png` of 16 bits, `.npy` (H, W), or `.npz` with `depth` and, where known,
            `intrinsics_matrix`; `.npy` (n, 3) of floats is a cloud.

    Raises:
        DataError: It cannot be read, or holds something else.
        MissingExtraError: It is a PNG and Pillow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path}: {path.suffix or 'no suffix'} is no suffix of a depth image",
            f"wanted {', '.join(SUFFIXES)}",
        )
    if suffix == ".png":
        return DepthFile(_read_png(path))
    with undamaged(path), path.open("rb") as file:
        if suffix == ".npy":
            return DepthFile(_checked(path, "the array", np.load(file, allow_pickle=False)))
        with np.load(file, allow_pickle=False) as archive:
            if DEPTH_KEY not in archive.files:
                raise DataError(
                    f"{path} has the keys {', '.join(archive.files) or 'none'}",
                    f"wanted {DEPTH_KEY} and, where known, {INTRINSICS_KEY}",
                )
            depth = _checked(path, repr(DEPTH_KEY), archive[DEPTH_KEY])
            if INTRINSICS_KEY not in archive.files:
                return DepthFile(depth)
            intrinsics = archive[INTRINSICS_KEY]
    if intrinsics.shape != (3, 3) or intrinsics.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: {INTRINSICS_KEY} is {intrinsics.dtype} {list(intrinsics.shape)}, wanted "
            "numbers [3, 3]"
        )
    return DepthFile(depth, intrinsics.astype(np.float64))


def _checked(path: Path, what: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2 or array.dtype.kind not in "uif" or min(array.shape) < 2:
        raise DataError(
            f"{path}: {what} is {array.dtype} {list(array.shape)}, wanted a depth image of "
            "numbers [rows, columns]"
        )
    return array


def _read_png(path: Path) -> NDArray[np.uint16]:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("images", "Pillow") from error
    try:
        with Image.open(path) as image:
            if not image.mode.startswith("I"):
                raise ValueError(
                    f"mode {image.mode}, wanted one channel of 16 bits: is it the colour image?"
                )
            return np.asarray(image).astype(np.uint16)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a depth image that can be read: {error}") from error
