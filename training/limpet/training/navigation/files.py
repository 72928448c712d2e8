"""Images and arrays from files that somebody else may have written."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limpet.contracts.errors import DataError


def read_image(file: Path) -> NDArray[np.uint8]:
    """An image, RGB. (H, W, 3)

    Raises:
        DataError: It cannot be read.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not an image that can be read: {error}") from error


def read_arrays(file: Path | str) -> dict[str, NDArray[Any]]:
    """All arrays of an npz by name.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not an npz that can be read: {error}") from error
