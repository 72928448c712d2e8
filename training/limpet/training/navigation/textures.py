"""Textures: square tiles of albedo, drawn from families of patterns or read from files.

A tile is float32 (TILE, TILE, 3), linear albedo 0 to 1, and repeats without a seam where its
pattern allows. Families of patterns and files are split among the appearance sets, so that no
pattern that one set shows is ever shown by another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.contracts.image_files import SUFFIXES, read_image
from limpet.contracts.images import resize_area

Float32 = NDArray[np.float32]
Rng = np.random.Generator

AppearanceSet = Literal["encoder", "policy", "test"]
SETS: tuple[AppearanceSet, ...] = get_args(AppearanceSet)

TILE = 128


def to_linear(srgb: NDArray[np.floating]) -> Float32:
    """Albedo of an sRGB colour, both 0 to 1 (gamma 2.2)."""
    return np.asarray(np.power(np.clip(srgb, 0.0, 1.0), 2.2), np.float32)


def noise(rng: Rng, octaves: int = 4, stretch: tuple[int, int] = (1, 1)) -> Float32:
    """Repeating value noise, mean 0 and about ±1. (TILE, TILE)

    Args:
        rng: Source of randomness.
        octaves: Scales, from coarse to fine.
        stretch: Cells of the coarsest scale down and across: (1, 8) is long grain.
    """
    total = np.zeros((TILE, TILE), np.float32)
    for octave in range(octaves):
        cells = [min(TILE, 4 * s * 2**octave) for s in stretch]
        grid = rng.standard_normal(cells).astype(np.float32)
        total += _smooth(grid) * 0.55**octave
    return total / max(1e-6, float(np.abs(total).max()))


def _smooth(grid: Float32) -> Float32:
    """Bilinear, repeating enlargement to a tile."""
    for axis in (0, 1):
        cells = grid.shape[axis]
        at = np.arange(TILE) * (cells / TILE)
        low = at.astype(int)
        share = (at - low).astype(np.float32)
        share = share * share * (3 - 2 * share)
        share = share[:, None] if axis == 0 else share[None]
        grid = (
            grid.take(low % cells, axis) * (1 - share) + grid.take((low + 1) % cells, axis) * share
        )
    return grid


_Y, _X = np.mgrid[:TILE, :TILE].astype(np.float32) / TILE


def _color(base: Float32, variation: Float32, other: Float32, amount: float) -> Float32:
    """From base to other by a variation of about ±1."""
    share = np.clip(variation * amount + 0.5 * amount, 0.0, 1.0)[..., None]
    return np.asarray(base * (1 - share) + other * share, np.float32)


def _cells(rng: Rng, index: NDArray[np.integer], spread: float) -> Float32:
    """A brightness for each cell of a pattern. (TILE, TILE, 1)"""
    values = rng.normal(1.0, spread, int(index.max()) + 1).astype(np.float32)
    return np.asarray(values[index][..., None])


def paint(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Plain, hardly mottled."""
    return _color(base, noise(rng, 5), other, rng.uniform(0.03, 0.12))


def planks(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Boards with grain and dark joints."""
    number, pieces = int(rng.integers(5, 10)), 2
    row = (_Y * number).astype(int)
    shift = rng.random(number).astype(np.float32)[row]
    along = (_X * pieces + shift) % pieces
    cell = row * pieces + along.astype(int)
    tile = _color(base, noise(rng, 4, (8, 1)), other, 0.5) * _cells(rng, cell, 0.13)
    joint = ((_Y * number) % 1 < 0.05) | (along % 1 < 0.012)
    return np.where(joint[..., None], tile * 0.45, tile).astype(np.float32)


def checker(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Squares of two colours."""
    number = 2 * int(rng.integers(1, 4))
    dark = (((_X * number).astype(int) + (_Y * number).astype(int)) % 2).astype(bool)
    tile = np.where(dark[..., None], other, base) * (1 + 0.1 * noise(rng, 5)[..., None])
    return np.asarray(tile, np.float32)


def stripes(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Upright stripes of a wallpaper."""
    number = int(rng.integers(4, 12))
    on = (_X * number) % 1 < rng.uniform(0.2, 0.6)
    mixed = base * 0.6 + other * 0.4
    tile = np.where(on[..., None], mixed, base) * (1 + 0.04 * noise(rng)[..., None])
    return np.asarray(tile, np.float32)


def weave(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Cloth of two yarns."""
    number = int(rng.integers(12, 24))
    wave = np.sin(2 * np.pi * number * _X) * np.sin(2 * np.pi * number * _Y)
    return _color(base, wave + 0.4 * noise(rng, 5), other, 0.5)


def tiles(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Square tiles with joints."""
    number = int(rng.integers(3, 7))
    cell = (_Y * number).astype(int) * number + (_X * number).astype(int)
    tile = _color(base, noise(rng, 4), other, 0.15) * _cells(rng, cell, 0.05)
    joint = ((_X * number) % 1 < 0.05) | ((_Y * number) % 1 < 0.05)
    return np.where(joint[..., None], other * 0.6, tile).astype(np.float32)


def terrazzo(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Chips of stone in cement."""
    chips = noise(rng, 2, (6, 6))
    tile = np.where((chips > 0.42)[..., None], other, base)
    tile = np.where((chips < -0.5)[..., None], base * 0.5, tile)
    return np.asarray(tile * (1 + 0.05 * noise(rng, 5)[..., None]), np.float32)


def panels(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Framed panels."""
    across, down = int(rng.integers(2, 5)), int(rng.integers(1, 3))
    x, y = (_X * across) % 1, (_Y * down) % 1
    edge = np.minimum(np.minimum(x, 1 - x) / across, np.minimum(y, 1 - y) / down)
    tile = _color(base, noise(rng, 4, (1, 6)), other, 0.2)
    groove = (edge > 0.03) & (edge < 0.045)
    return np.where(groove[..., None], tile * 0.6, tile).astype(np.float32)


def speckle(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Fine two-coloured grain."""
    return _color(base, noise(rng, 2, (16, 16)), other, rng.uniform(0.4, 0.8))


def basket(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Parquet of blocks laid crosswise."""
    blocks, strips = 2 * int(rng.integers(1, 3)), 4
    upright = ((_X * blocks).astype(int) + (_Y * blocks).astype(int)) % 2 == 0
    across = np.where(upright, _X, _Y) * blocks * strips
    block = (_Y * blocks).astype(int) * blocks + (_X * blocks).astype(int)
    strip = block * strips + (across % strips).astype(int)
    grain = np.where(upright, noise(rng, 4, (1, 6)), noise(rng, 4, (6, 1)))
    tile = _color(base, grain, other, 0.4) * _cells(rng, strip, 0.14)
    return np.where((across % 1 < 0.07)[..., None], tile * 0.5, tile).astype(np.float32)


def carpet(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Pile with soft blotches."""
    fine = rng.standard_normal((TILE, TILE)).astype(np.float32) * 0.35
    return _color(base, fine + 0.6 * noise(rng, 2), other, 0.45)


def bricks(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Courses of bricks with mortar."""
    rows, columns = 2 * int(rng.integers(5, 9)), int(rng.integers(4, 7))
    row = (_Y * rows).astype(int)
    along = (_X * columns + 0.5 * (row % 2)) % columns
    cell = row * columns + along.astype(int)
    tile = _color(base, noise(rng, 5), other, 0.3) * _cells(rng, cell, 0.14)
    mortar = ((_Y * rows) % 1 < 0.13) | (along % 1 < 0.06)
    return np.where(mortar[..., None], other * 0.9, tile).astype(np.float32)


def marble(rng: Rng, base: Float32, other: Float32) -> Float32:
    """Veins that follow folded noise."""
    veins = 1 - np.abs(np.sin(3 * np.pi * noise(rng, 4)))
    return _color(base, veins**4 * 2 - 0.8, other, 0.6)


Family = Callable[[Rng, Float32, Float32], Float32]
FAMILIES: Mapping[AppearanceSet, Sequence[Family]] = {
    "encoder": (planks, checker, stripes, weave),
    "policy": (tiles, terrazzo, panels, speckle),
    "test": (basket, carpet, bricks, marble),
}
"""Patterns of each set. `paint` is everybody's, from seeds that no two sets share."""


def texture_files(folder: Path | str, which: AppearanceSet) -> list[Path]:
    """The image files of a folder that a set may show: every third, in order of name.

    Raises:
        DataError: The folder has fewer than three images.
    """
    found = sorted(file for file in Path(folder).glob("*") if file.suffix.lower() in SUFFIXES)
    if len(found) < len(SETS):
        raise DataError(
            f"{folder} holds {len(found)} texture images (.png, .jpg), wanted at least 3",
            "name a folder of images, or leave textures out: patterns are then drawn",
        )
    return found[SETS.index(which) :: len(SETS)]


@lru_cache(maxsize=256)
def read_texture(file: Path) -> Float32:
    """A file as a tile of linear light, 0 to 1. float32 (TILE, TILE, 3)

    Raises:
        DataError: It is no image that can be read.
    """
    tile = to_linear(resize_area(read_image(file), TILE, TILE) / 255.0)
    tile.setflags(write=False)
    return tile
