"""An appearance: what a scene looks like, apart from its geometry.

Textures, colours, lamps, daylight and the camera's photometry, all drawn from a set and a seed. It
never sees a layout, so any layout can be shown in any appearance. What it says of a room (where the
lamps hang, say) it says relative to the room's sides, by the room's number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from limpet.training.navigation.solids import ROLES, Float64, Role
from limpet.training.navigation.textures import (
    FAMILIES,
    SETS,
    TILE,
    AppearanceSet,
    Float32,
    Rng,
    paint,
    read_texture,
    texture_files,
    to_linear,
)


class Photometry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the camera makes of light.

    Attributes:
        exposure_ev: Steps that the automatic exposure is off, log2.
        metering: How far exposure follows the scene: 0 not at all, 1 wholly.
        balance: Factors of red, green and blue.
        gamma: Exponent of the tone curve.
        read_noise: Standard deviation that does not depend on light, of full scale.
        shot_noise: Standard deviation at full scale, which grows with the root of the light.
        vignette: How much darker the corners are, 0 to 1.
        blur: Share of a pixel's light that falls on its neighbours, 0 to 0.5.
    """

    exposure_ev: float = 0.0
    metering: float = 0.8
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 2.2
    read_noise: float = 0.001
    shot_noise: float = 0.01
    vignette: float = 0.2
    blur: float = 0.25


@dataclass(frozen=True)
class Lighting:
    """What shines.

    Attributes:
        lamp_color: Linear RGB of lamps, about 1.
        lamp_power: How bright, relative to daylight's usual.
        pendant: Whether lamps hang and shine all around, rather than down from the ceiling.
        sky_color: Linear RGB of the sky.
        sky_power: How bright the sky is.
        sun: Unit vector towards the sun; below the horizon (z < 0) there is none.
        sun_power: How bright the sun is.
    """

    lamp_color: tuple[float, float, float]
    lamp_power: float
    pendant: bool
    sky_color: tuple[float, float, float]
    sky_power: float
    sun: tuple[float, float, float]
    sun_power: float


@dataclass(frozen=True)
class Appearance:
    """One look that any layout can have.

    Attributes:
        which: Its set.
        seed: What it was drawn from.
        tiles: Textures, linear albedo. float32 (n, TILE, TILE, 3)
        tile_m: Side of each texture on the wall, m; 0 stretches it over the whole patch. (n,)
        materials: Textures of each role, by place in `tiles`; a slot takes them in turn.
        sources: Where each texture comes from: a file's name or a family's.
        lighting: What shines.
        photometry: What the camera makes of it.
    """

    which: AppearanceSet
    seed: int
    tiles: Float32
    tile_m: Float64
    materials: dict[Role, tuple[int, ...]]
    sources: tuple[str, ...]
    lighting: Lighting
    photometry: Photometry

    def lamps_of(self, room: int) -> Float64:
        """Places of a room's lamps as shares of its sides, 0 to 1. (1 to 3, 2)"""
        rng = _generator(self.which, self.seed, 1, room)
        number = int(rng.integers(1, 4))
        if number == 1:
            return np.asarray(rng.uniform(0.35, 0.65, (1, 2)))
        along = (np.arange(number) + rng.uniform(0.3, 0.7, number)) / number
        places = np.stack([along, rng.uniform(0.35, 0.65, number)], axis=1)
        return np.asarray(places if rng.random() < 0.5 else places[:, ::-1])


# Hues in which a role is usually seen: HSV ranges (low, high) of the first colour.
_PALETTES: dict[Role, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "floor": ((0.04, 0.14), (0.05, 0.5), (0.3, 0.8)),
    "wall": ((0.0, 1.0), (0.01, 0.22), (0.62, 0.95)),
    "ceiling": ((0.08, 0.18), (0.0, 0.06), (0.85, 0.97)),
    "trim": ((0.06, 0.16), (0.0, 0.35), (0.35, 0.97)),
    "door": ((0.03, 0.6), (0.02, 0.35), (0.4, 0.92)),
    "wood": ((0.03, 0.12), (0.1, 0.65), (0.25, 0.9)),
    "fabric": ((0.0, 1.0), (0.05, 0.5), (0.2, 0.75)),
    "metal": ((0.5, 0.7), (0.0, 0.12), (0.2, 0.7)),
    "ceramic": ((0.08, 0.18), (0.0, 0.12), (0.6, 0.98)),
    "foliage": ((0.2, 0.4), (0.35, 0.7), (0.25, 0.6)),
    "paper": ((0.0, 1.0), (0.1, 0.6), (0.3, 0.9)),
    "picture": ((0.0, 1.0), (0.2, 0.7), (0.3, 0.9)),
    "screen": ((0.55, 0.7), (0.0, 0.3), (0.04, 0.15)),
    "sky": ((0.5, 0.62), (0.05, 0.4), (0.8, 1.0)),
}
_VARIANTS: dict[Role, int] = {
    "floor": 3, "wall": 4, "ceiling": 2, "trim": 1, "door": 2, "wood": 4, "fabric": 4, "metal": 2,
    "ceramic": 2, "foliage": 2, "paper": 5, "picture": 4, "screen": 2, "sky": 2,
}  # fmt: skip
_PATTERNED: dict[Role, float] = {
    "floor": 0.9, "wall": 0.45, "ceiling": 0.25, "door": 0.3, "wood": 0.7, "fabric": 0.7,
    "picture": 1.0, "paper": 0.3,
}  # fmt: skip
"""Share of a role's materials that have a pattern; the others are painted."""
_REAL: dict[Role, float] = {"floor": 0.6, "wall": 0.5, "ceiling": 0.4, "wood": 0.4, "door": 0.3}
"""Share of a role's materials that come from files, where there are files."""
_FITTING: dict[Role, tuple[str, ...]] = {
    "floor": ("floor", "tiles", "wood", "planks", "concrete", "asphalt", "marble"),
    "wall": ("wall", "brick", "cinder", "stucco", "concrete", "plaster", "drywall", "marble"),
    "ceiling": ("ceiling", "drywall", "stucco", "tiles_white", "concrete"),
    "wood": ("wood", "planks", "cardboard", "metal"),
    "door": ("door", "wood", "metal", "planks"),
}
"""Words in a file's name that suggest a role; where none fits, any file will do."""


def make_appearance(
    which: AppearanceSet, seed: int, textures: Path | str | None = None
) -> Appearance:
    """Draws an appearance of a set.

    Args:
        which: Whose. Sets share neither files nor families of patterns nor random numbers.
        seed: Number within the set.
        textures: Folder of image files to use beside drawn patterns, each set a third of them.

    Raises:
        DataError: The folder has too few images, or one cannot be read.
    """
    rng = _generator(which, seed, 0)
    files = texture_files(textures, which) if textures is not None else []
    tiles: list[Float32] = []
    sizes: list[float] = []
    sources: list[str] = []
    materials: dict[Role, tuple[int, ...]] = {}
    for role in ROLES:
        chosen = []
        for _ in range(_VARIANTS[role]):
            tile, size, source = _material(rng, role, which, files)
            chosen.append(len(tiles))
            tiles.append(tile)
            sizes.append(size)
            sources.append(source)
        materials[role] = tuple(chosen)
    return Appearance(
        which=which,
        seed=seed,
        tiles=np.stack(tiles),
        tile_m=np.array(sizes),
        materials=materials,
        sources=tuple(sources),
        lighting=_lighting(rng),
        photometry=_photometry(rng),
    )


def _generator(which: AppearanceSet, seed: int, *more: int) -> Rng:
    return np.random.default_rng([SETS.index(which), seed, 0x6170, *more])


def _material(
    rng: Rng, role: Role, which: AppearanceSet, files: list[Path]
) -> tuple[Float32, float, str]:
    base, other = _colors(rng, role)
    if role == "sky":
        return _view_outside(rng, base), 0.0, "view"
    if files and rng.random() < _REAL.get(role, 0.0):
        words = _FITTING[role]
        fitting = [file for file in files if any(word in file.stem for word in words)] or files
        file = fitting[rng.integers(len(fitting))]
        tint = (1 + rng.normal(0.0, 0.08, 3)) * rng.uniform(0.8, 1.1)
        tile = np.clip(read_texture(file) * tint.astype(np.float32), 0.0, 0.95)
        size = 0.0 if "door" in file.stem else rng.uniform(1.2, 2.4)
        return tile, size, file.name
    if rng.random() < _PATTERNED.get(role, 0.0):
        family = FAMILIES[which][int(rng.integers(len(FAMILIES[which])))]
        size = 0.0 if role == "picture" else rng.uniform(0.7, 2.0)
        return np.clip(family(rng, base, other), 0.0, 0.95), size, family.__name__
    return np.clip(paint(rng, base, other), 0.0, 0.95), 2.0, "paint"


def _colors(rng: Rng, role: Role) -> tuple[Float32, Float32]:
    """A role's first colour and one that goes with it, linear RGB."""
    ranges = _PALETTES[role]
    hue, saturation, value = (rng.uniform(*bounds) for bounds in ranges)
    base = _rgb(hue, saturation, value)
    near = rng.random() < 0.85
    hue += rng.normal(0.0, 0.03) if near else rng.uniform(0.2, 0.8)
    change = rng.choice([-1, 1]) * rng.uniform(0.15, 0.4)
    if not 0.1 < value + change < 1.0:
        change = -change
    return base, _rgb(hue, np.clip(saturation * rng.uniform(0.6, 1.4), 0, 1), value + change)


def _rgb(hue: float, saturation: float, value: float) -> Float32:
    at = np.abs((hue + np.array([0.0, 2 / 3, 1 / 3])) % 1.0 * 6.0 - 3.0) - 1.0
    srgb = value * (1 - saturation + saturation * np.clip(at, 0.0, 1.0))
    return to_linear(srgb)


def _view_outside(rng: Rng, sky: Float32) -> Float32:
    """Sky above, ground or houses below; v runs upwards."""
    y = np.linspace(0.0, 1.0, TILE, dtype=np.float32)[:, None, None]
    tile = sky * (0.75 + 0.25 * y) * np.ones((TILE, TILE, 3), np.float32)
    horizon = rng.uniform(0.2, 0.5)
    blocks = int(rng.integers(3, 7))
    heights = horizon + rng.uniform(-0.12, 0.25, blocks)
    skyline = heights[np.arange(TILE) * blocks // TILE][None, :, None]
    shade = rng.uniform(0.15, 0.5, (1, blocks)).repeat(TILE // blocks + 1, axis=1)[:, :TILE, None]
    tint = _rgb(rng.uniform(0, 1), 0.25, 0.8)
    return np.where(y < skyline, tint * shade, tile).astype(np.float32)


def _lighting(rng: Rng) -> Lighting:
    warm = rng.uniform(-0.25, 0.55)  # from cool white to incandescent
    lamp = (1.0, 1.0 - 0.25 * max(warm, 0.0), 1.0 - 0.65 * warm if warm > 0 else 1.0 - 0.2 * warm)
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(15.0, 55.0))
    day = rng.random() < 0.75
    sunny = day and rng.random() < 0.6
    sun = (
        float(np.cos(azimuth) * np.cos(height)),
        float(np.sin(azimuth) * np.cos(height)),
        float(np.sin(height)) if sunny else -1.0,
    )
    blue = rng.uniform(0.85, 1.3)
    return Lighting(
        lamp_color=lamp,
        lamp_power=rng.uniform(0.15, 1.2) if day else rng.uniform(0.8, 1.6),
        pendant=bool(rng.random() < 0.4),
        sky_color=(1.0 / np.sqrt(blue), 1.0, blue),
        sky_power=rng.uniform(0.6, 1.8) if day else rng.uniform(0.0, 0.05),
        sun=sun,
        sun_power=rng.uniform(1.5, 4.0) if sunny else 0.0,
    )


def _photometry(rng: Rng) -> Photometry:
    balance = 1 + rng.normal(0.0, 0.06, 3)
    return Photometry(
        exposure_ev=rng.normal(0.0, 0.35),
        metering=rng.uniform(0.6, 0.95),
        balance=(float(balance[0]), 1.0, float(balance[2])),
        gamma=rng.uniform(1.9, 2.5),
        read_noise=rng.uniform(0.0003, 0.002),
        shot_noise=rng.uniform(0.004, 0.018),
        vignette=rng.uniform(0.0, 0.4),
        blur=rng.uniform(0.1, 0.4),
    )
