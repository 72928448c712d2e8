"""Camera images → what an encoder takes: one implementation for training and robot.

An image is uint8 (H, W, 3), RGB, rows downward. Channel order cannot be seen in an array: where
a source names it (ROS does), `as_rgb` puts it right; where nothing does, RGB is taken on trust.

Dimension legend: H rows, W columns, h and w those of the result; n pixels along an axis become m.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import TensorError

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

ChannelOrder = Literal["rgb", "bgr", "rgba", "bgra", "mono"]
CHANNELS: dict[ChannelOrder, int] = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "mono": 1}
"""Channels of a pixel in each order."""

SMALLEST_SIDE, LARGEST_SIDE = 16, 8192
"""Sides of an image, pixels, that a camera may send."""


class ImagePreprocessing(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="image"
):
    """How a camera's image becomes an encoder's input; a manifest carries it.

    The largest centred part of the wanted aspect is cut out, resized by area averaging, and
    normalised per channel: (x / 255 - mean) / scale.

    Attributes:
        width, height: Size of the encoder's input, pixels.
        mean: Of each channel, in units of full scale.
        scale: Divisor of each channel, in units of full scale.
    """

    width: int = 128
    height: int = 128
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    scale: tuple[float, float, float] = (0.25, 0.25, 0.25)


def check_image(image: object) -> Uint8:
    """An image as it should be.

    Raises:
        TensorError: Not uint8 (H, W, 3), or of a size that no camera sends.
    """
    wanted = "wanted a uint8 image of shape [rows, columns, 3] in RGB order"
    if not isinstance(image, np.ndarray):
        raise TensorError(f"found {type(image).__name__}, {wanted}")
    shape = list(image.shape)
    if image.dtype != np.uint8:
        hint = (
            "multiply by 255 and round, if it runs from 0 to 1" if image.dtype.kind == "f" else ""
        )
        raise TensorError(f"image is {image.dtype} {shape}, {wanted}", hint)
    if image.ndim != 3 or image.shape[2] != 3:
        hint = ""
        if image.ndim == 3 and image.shape[0] == 3:
            hint = "it looks channels-first: image.transpose(1, 2, 0)"
        elif image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 4)):
            hint = "name its channel order: as_rgb(image, 'mono'), 'rgba' or 'bgra'"
        raise TensorError(f"image has shape {shape}, {wanted}", hint)
    if not SMALLEST_SIDE <= min(shape[:2]) <= max(shape[:2]) <= LARGEST_SIDE:
        raise TensorError(
            f"image has {shape[0]} rows and {shape[1]} columns, "
            f"wanted {SMALLEST_SIDE} to {LARGEST_SIDE} of each"
        )
    return image


def as_rgb(image: Uint8, order: ChannelOrder) -> Uint8:
    """An image of a known channel order in RGB; alpha is dropped, mono is grey.

    Raises:
        TensorError: The order is unknown, or the array has other channels than it says.
    """
    channels = CHANNELS.get(order)
    if channels is None:
        raise TensorError(f"channel order {order!r}, wanted one of {', '.join(CHANNELS)}")
    if image.ndim == 2 and channels == 1:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] != channels:
        raise TensorError(
            f"image has shape {list(image.shape)}, wanted {channels} channels last ({order})"
        )
    if channels == 1:
        return check_image(np.repeat(image, 3, axis=2))
    rgb = image[..., :3] if order.startswith("rgb") else image[..., 2::-1]
    return check_image(np.ascontiguousarray(rgb))


def preprocess(image: Uint8, how: ImagePreprocessing) -> Float32:
    """An encoder's input of one image, any size. (3, h, w)

    Raises:
        TensorError: As `check_image`.
    """
    return normalize(shrink(image, how), how)


def shrink(image: Uint8, how: ImagePreprocessing) -> Float32:
    """An image, any size, cut and resized to the encoder's, values 0 to 255. (h, w, 3)

    Raises:
        TensorError: As `check_image`.
    """
    cut = crop_to_aspect(check_image(image), how.width, how.height)
    return resize_area(cut, how.height, how.width)


def normalize(images: NDArray[np.floating] | Uint8, how: ImagePreprocessing) -> Float32:
    """Images of the right size, values 0 to 255, as input. (..., h, w, 3) → (..., 3, h, w)"""
    mean = np.array(how.mean, np.float32) * 255
    scale = np.array(how.scale, np.float32) * 255
    scaled = (images.astype(np.float32) - mean) / scale
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def crop_to_aspect(image: Uint8, width: int, height: int) -> Uint8:
    """The largest centred part with the aspect width : height, to the pixel, without a copy."""
    rows, columns = image.shape[:2]
    keep_columns = min(columns, max(1, round(rows * width / height)))
    keep_rows = min(rows, max(1, round(columns * height / width)))
    top, left = (rows - keep_rows) // 2, (columns - keep_columns) // 2
    return image[top : top + keep_rows, left : left + keep_columns]


def resize_area(image: Uint8, height: int, width: int) -> Float32:
    """Area-averaging resize: exact, whatever the factor, up or down.

    A pixel is a square of constant colour; each pixel of the result is the mean of what it covers.
    Along one axis of n pixels, result pixel j of m covers [j n/m, (j + 1) n/m), and pixel i weighs
    as much as it overlaps that. Nothing is rounded: values stay float32, 0 to 255. (h, w, 3)
    """
    return np.ascontiguousarray(_resize_axis(_resize_axis(image, height, 0), width, 1))


def _resize_axis(image: Uint8 | Float32, m: int, axis: int) -> Float32:
    """Resizes along one axis: a sum of as many weighted slices as a result pixel covers pixels.

    A product with the whole matrix of weights took 8 ms for a 640 × 480 image where this takes 2.5,
    and 120 ms where BLAS had several threads on two busy cores.
    """
    n = image.shape[axis]
    if n == m:
        return image.astype(np.float32, copy=False)
    first_m, weights_km = _overlaps(n, m)
    shape = [1, 1, 1]
    shape[axis] = m
    total = np.zeros((*image.shape[:axis], m, *image.shape[axis + 1 :]), np.float32)
    for k, weights_m in enumerate(weights_km):
        total += np.take(image, first_m + k, axis, mode="clip") * weights_m.reshape(shape)
    return total


@lru_cache(maxsize=32)
def _overlaps(n: int, m: int) -> tuple[NDArray[np.intp], Float32]:
    """First pixel that each result pixel covers, and the weights of that and the following ones.

    (m,) and (k, m); the weights of a result pixel sum to 1.
    """
    edges = np.arange(m + 1) * (n / m)
    first = edges[:-1].astype(np.intp)
    i = first + np.arange(math.ceil(n / m) + 1)[:, None]  # (k, m)
    overlap = np.minimum(edges[1:], i + 1) - np.maximum(edges[:-1], i)
    weights = (np.maximum(overlap, 0.0) * (m / n)).astype(np.float32)
    weights.setflags(write=False)
    first.setflags(write=False)
    return first, weights
