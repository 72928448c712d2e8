"""Augmentations of images in batches, each in a few passes over the pixels.

Colour and brightness change by one affine map of RGB an image, clipped at black and white as a
camera clips, and in the same pass become the encoder's input.

Dimension legend: n images, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from limpet.contracts.images import ImagePreprocessing

Rng = np.random.Generator
Float32 = NDArray[np.float32]

BRIGHTER = (1.5, 2.0)
"""Factor of a view that is brightened."""
GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Luma of RGB (BT.601)."""


def color_maps(number: int, rng: Rng, brightened: float, jitter: float) -> tuple[Float32, Float32]:
    """Affine maps of RGB, in units of full scale: matrices (n, 3, 3) and offsets (n, 3).

    Args:
        number: How many images, n.
        rng: Source of randomness.
        brightened: Share that is made brighter by a factor within `BRIGHTER`.
        jitter: Spread of contrast, colour balance and saturation.
    """
    brighter = np.where(rng.random(number) < brightened, rng.uniform(*BRIGHTER, number), 1.0)
    contrast = np.exp(rng.normal(0.0, jitter, number))
    balance = np.exp(rng.normal(0.0, 0.5 * jitter, (number, 3)))
    saturation = np.clip(1.0 + rng.normal(0.0, 2.0 * jitter, number), 0.0, 2.0)
    grey = np.broadcast_to(GREY, (3, 3))
    mix = saturation[:, None, None] * np.eye(3) + (1.0 - saturation)[:, None, None] * grey
    matrix = (brighter * contrast)[:, None, None] * balance[:, :, None] * mix
    offset = np.repeat((0.5 * (1.0 - contrast))[:, None], 3, axis=1)
    return matrix.astype(np.float32), offset.astype(np.float32)


def to_input(images: Tensor, how: ImagePreprocessing, matrix: Float32, offset: Float32) -> Tensor:
    """Colour-mapped, clipped and normalised images, channels last in memory. (n, 3, H, W)

    With the identity this is `limpet.contracts.images.normalize`, to rounding.

    Args:
        images: uint8, RGB. (n, H, W, 3)
        how: Normalisation.
        matrix: Of RGB, (n, 3, 3).
        offset: In units of full scale, (n, 3).
    """
    n, height, width, _ = images.shape
    mean, scale = (torch.tensor(x, device=images.device) for x in (how.mean, how.scale))
    weights = torch.from_numpy(matrix).to(images.device).transpose(1, 2) / (255.0 * scale)
    shift = (torch.from_numpy(offset).to(images.device) - mean) / scale  # (n, 3)
    pixels = torch.baddbmm(shift[:, None], images.view(n, -1, 3).float(), weights)
    torch.clamp(pixels, -mean / scale, (1.0 - mean) / scale, out=pixels)
    return pixels.view(n, height, width, 3).permute(0, 3, 1, 2)


def flip(images: NDArray[np.uint8], chosen: NDArray[np.bool_]) -> None:
    """Mirrors the images that are chosen, left to right, in place. (n, H, W, 3)"""
    images[chosen] = images[chosen, :, ::-1]


def flip_scans(lidar: Float32, chosen: NDArray[np.bool_]) -> Float32:
    """What a LiDAR reads in the mirror image: beams in the opposite order. (n, B)"""
    beams = np.arange(lidar.shape[1])
    mirrored = lidar[:, -beams % lidar.shape[1]]
    return np.asarray(np.where(chosen[:, None], mirrored, lidar), np.float32)


def flip_goals(goals: Float32, chosen: NDArray[np.bool_]) -> Float32:
    """Distance and bearing of goals in the mirror image. (n, 2)"""
    turned = np.where(chosen, -goals[:, 1], goals[:, 1])
    return np.stack([goals[:, 0], turned], axis=1).astype(np.float32)


def crop_maps(number: int, rng: Rng, smallest: float) -> Float32:
    """Affine maps from the result's coordinates to a random part of an image. (n, 2, 3)

    Args:
        number: How many images, n.
        rng: Source of randomness.
        smallest: Least share of the area.
    """
    area, aspect = rng.uniform(smallest, 1.0, number), np.exp(rng.uniform(-0.28, 0.28, number))
    sides = np.minimum(np.sqrt(area[:, None] * np.stack([aspect, 1 / aspect], axis=1)), 1.0)
    maps = np.zeros((number, 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 1, 1] = sides[:, 0], sides[:, 1]
    maps[:, :, 2] = rng.uniform(-1.0, 1.0, (number, 2)) * (1.0 - sides)
    return maps


def crop(images: Tensor, maps: Float32) -> Tensor:
    """A part of each image, brought to the image's size. (n, 3, H, W)

    Args:
        images: As `to_input` gives them.
        maps: As `crop_maps` gives them. (n, 2, 3)
    """
    grid = functional.affine_grid(
        torch.from_numpy(maps).to(images.device), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False)
