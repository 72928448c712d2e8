"""Image files: which of a folder are meant, and what is in them. Needs Pillow, when it reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from limpet.contracts.errors import DataError, MissingExtraError
from limpet.contracts.images import Uint8

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Suffixes of image files, in any case."""

DEEP_MODES = ("I", "F")
"""First letter of Pillow's modes with more than 8 bits a channel, which it would cut off."""


def image_paths(inputs: Sequence[Path | str]) -> list[Path]:
    """The image files that are meant, in order: files as they are, a folder's in order of name.

    What is in a folder's own folders, or hidden in it (`._1.png`), is not meant.

    Raises:
        DataError: Something does not exist, is no image by its suffix, or is a folder without any.
    """
    found: list[Path] = []
    for path in map(Path, inputs):
        if path.is_dir():
            inside = sorted(
                (
                    file
                    for file in path.iterdir()
                    if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
                ),
                key=lambda file: file.name,
            )
            if not inside:
                raise DataError(f"{path} holds no image", f"wanted files: {', '.join(SUFFIXES)}")
            found += inside
        elif not path.exists():
            raise DataError(f"{path} does not exist")
        elif path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{path}: {path.suffix or 'no suffix'} is no suffix of an image",
                f"wanted a folder or files: {', '.join(SUFFIXES)}",
            )
        else:
            found.append(path)
    return found


def read_image(file: Path) -> Uint8:
    """An image file, RGB; grey becomes all three channels, transparency is dropped. (H, W, 3)

    Pixels are taken as they are stored: a note in the file that it should be turned is for people.

    Raises:
        DataError: It cannot be read, or has more than 8 bits a channel.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("images", "Pillow") from error
    try:
        with Image.open(file) as image:
            if image.mode[0] in DEEP_MODES:
                raise ValueError(f"mode {image.mode}, wanted 8 bits a channel")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not an image that can be read: {error}") from error
