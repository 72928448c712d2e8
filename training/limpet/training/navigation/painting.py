"""Geometry in an appearance: every texel's radiance, computed once, then photographs of it.

Dimension legend: X texels of all levels and one for "nothing", K luxels, N frames, H rows,
W columns.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from limpet.training.navigation.appearance import Appearance, Photometry
from limpet.training.navigation.geometry import SceneGeometry, Sightings
from limpet.training.navigation.lighting import irradiance, lamp_places
from limpet.training.navigation.solids import ROLES
from limpet.training.navigation.surfaces import Float32, Int32
from limpet.training.navigation.textures import TILE

SKY_RADIANCE, LAMP_RADIANCE, LAMP_RADIUS_M = 1.6, 3.0, 0.16
FULL_SCALE = 4095
"""Radiance is looked up in a tone curve of so many steps."""
NOISE_VALUES = 1 << 20

Uint8 = NDArray[np.uint8]
Float16 = NDArray[np.float16]


class PaintedScene:
    """A scene in one appearance.

    Args:
        appearance: What it looks like.
        radiance: Of its texels (`radiance`). (X, 4)
    """

    def __init__(self, appearance: Appearance, radiance: Float16) -> None:
        self.appearance = appearance
        self._radiance = radiance
        self._develop = _Development(appearance.photometry)

    def photograph(self, seen: Sightings, rng: np.random.Generator | None = None) -> Uint8:
        """What the camera makes of what it sees.

        Args:
            seen: What `SceneGeometry.look` returned for this scene.
            rng: Source of the sensor's noise, None for none.

        Returns:
            sRGB-like images, RGB. uint8 (N, H, W, 3)
        """
        images = np.empty((*seen.texels.shape, 3), np.uint8)
        for frame, texels in enumerate(seen.texels):
            light = self._radiance.take(texels, axis=0)[..., :3].astype(np.float32)  # (H, W, 3)
            images[frame] = self._develop(light, rng)
        return images


class _Development:
    """Radiance to pixel values: blur, exposure, vignette, noise, tone curve."""

    def __init__(self, how: Photometry) -> None:
        self._how = how
        steps = np.linspace(0.0, 1.0, FULL_SCALE + 1)
        # Gamma with a shoulder: highlights roll off instead of clipping at once.
        curve = np.power(1 - np.exp(-2.2 * steps) * (1 - steps), 1.0 / how.gamma)
        self._curve = np.rint(255 * curve / curve[-1]).astype(np.uint8)
        self._balance = np.array(how.balance, np.float32) * np.float32(2.0**how.exposure_ev)
        self._vignettes: dict[tuple[int, int], Float32] = {}
        self._noise = _noise()

    def __call__(self, light: Float32, rng: np.random.Generator | None) -> Uint8:
        """One frame. (H, W, 3) → uint8 (H, W, 3)"""
        how = self._how
        mean = float(light.mean()) + 1e-3
        gain = np.float32(FULL_SCALE * 0.16 / 0.25 * (0.25 / mean) ** how.metering)
        x = light * (gain * self._balance)
        x *= self._vignette(light.shape[0], light.shape[1])
        if how.blur > 0:
            x = _blurred(x, np.float32(how.blur))
        if rng is not None:
            at = int(rng.integers(NOISE_VALUES - x.size))
            noise = self._noise[at : at + x.size].reshape(x.shape)
            read, shot = how.read_noise * FULL_SCALE, how.shot_noise**2 * FULL_SCALE
            x += noise * np.sqrt(np.float32(shot) * x + np.float32(read**2))
        np.clip(x, 0.0, FULL_SCALE, out=x)
        return np.asarray(self._curve.take(x.astype(np.uint16)))

    def _vignette(self, rows: int, columns: int) -> Float32:
        if (rows, columns) not in self._vignettes:
            y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
            dark = 1 - self._how.vignette * 0.5 * (x * x + y * y)
            self._vignettes[rows, columns] = dark[..., None].astype(np.float32)
        return self._vignettes[rows, columns]


@cache
def _noise() -> Float32:
    """Normal deviates that frames take stretches of: drawing them anew would take half a frame."""
    return np.random.default_rng(0).standard_normal(NOISE_VALUES, np.float32)


def _blurred(x: Float32, share: np.float32) -> Float32:
    """A pixel's light partly on its neighbours, down and across: kernel (s/2, 1 - s, s/2)."""
    for axis in (0, 1):
        out = x * (1 - share)
        half = x * (share / 2)
        one, other = [slice(None)] * 3, [slice(None)] * 3
        one[axis], other[axis] = slice(1, None), slice(None, -1)
        out[tuple(one)] += half[tuple(other)]
        out[tuple(other)] += half[tuple(one)]
        first, last = [slice(None)] * 3, [slice(None)] * 3
        first[axis], last[axis] = slice(0, 1), slice(-1, None)
        out[tuple(first)] += half[tuple(first)]
        out[tuple(last)] += half[tuple(last)]
        x = out
    return x


def radiance(geometry: SceneGeometry, appearance: Appearance) -> Float16:
    """Radiance of all texels of all levels, RGB and a fourth value for alignment. (X, 4)

    Half precision: 11 bits are more than a pixel has, and a scene takes 17 MB.
    """
    s = geometry.surfaces
    texture = _textures_of(geometry, appearance)
    mean_albedo = appearance.tiles.mean(axis=(1, 2))[texture]  # (P, 3)
    light = irradiance(geometry, appearance, mean_albedo[geometry.luxels[0]])
    finest = np.zeros((int(s.texels[0].start[-1]), 4), np.float32)
    patch, column, row = s.texels[0].points()
    u, v = _fraction(column, s.texels[0].columns[patch]), _fraction(row, s.texels[0].rows[patch])
    finest[:, :3] = _albedo(geometry, appearance, texture, patch, u, v)
    finest[:, :3] *= _interpolated(light, geometry, patch, u, v)
    _let_shine(geometry, appearance, texture, patch, u, v, finest)
    levels = [finest]
    for children in s.children:
        above = levels[-1]
        level = above.take(children[:, 0], axis=0)
        for i in range(1, 4):
            level += above.take(children[:, i], axis=0)
        levels.append(level * np.float32(0.25))
    nothing = np.zeros((1, 4), np.float32)
    return np.concatenate([*levels, nothing]).astype(np.float16)


def _fraction(index: Int32, count: Int32) -> Float32:
    """Place of a texel's centre along its patch, 0 to 1."""
    return np.asarray((index + np.float32(0.5)) / count, np.float32)


def _textures_of(geometry: SceneGeometry, appearance: Appearance) -> NDArray[np.intp]:
    """The texture that each patch shows. (P,)"""
    s = geometry.surfaces
    most = max(len(chosen) for chosen in appearance.materials.values())
    table = np.zeros((len(ROLES), most), np.intp)
    count = np.ones(len(ROLES), np.intp)
    for index, role in enumerate(ROLES):
        chosen = appearance.materials[role]
        table[index, : len(chosen)], count[index] = chosen, len(chosen)
    return np.asarray(table[s.role, s.slot % count[s.role]])


def _albedo(
    geometry: SceneGeometry,
    appearance: Appearance,
    texture: NDArray[np.intp],
    patch: Int32,
    u: Float32,
    v: Float32,
) -> Float32:
    """Albedo of texels at (u, v) of their patches. (n, 3)"""
    s = geometry.surfaces
    size = appearance.tile_m[texture]
    stretched = size == 0.0
    # Tiles per patch along each side, and where on the tile the patch begins.
    scale = np.where(stretched[:, None], 1.0, s.sides / np.where(stretched, 1.0, size)[:, None])
    begin = np.where(stretched[:, None], 0.0, s.texture_at / np.where(stretched, 1, size)[:, None])
    scale, begin = scale.astype(np.float32) * TILE, begin.astype(np.float32) * TILE
    column = (begin[patch, 0] + u * scale[patch, 0]).astype(np.int32) % TILE
    row = (begin[patch, 1] + v * scale[patch, 1]).astype(np.int32) % TILE
    index = (texture.astype(np.int32)[patch] * TILE + row) * TILE + column
    return np.asarray(appearance.tiles.reshape(-1, 3).take(index, axis=0))


def _interpolated(
    light: Float32, geometry: SceneGeometry, patch: Int32, u: Float32, v: Float32
) -> Float32:
    """Bilinear between luxels. (n, 3)"""
    charts = geometry.surfaces.luxels
    columns, start = charts.columns[patch], charts.start[patch]
    x, y = u * (columns - 1), v * (charts.rows[patch] - 1)
    x0, y0 = x.astype(np.int32), y.astype(np.int32)
    fx, fy = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
    first = start + y0 * columns + x0
    low = light.take(first, axis=0)
    low += (light.take(first + 1, axis=0) - low) * fx
    first += columns
    high = light.take(first, axis=0)
    high += (light.take(first + 1, axis=0) - high) * fx
    low += (high - low) * fy
    return low


def _let_shine(
    geometry: SceneGeometry,
    appearance: Appearance,
    texture: NDArray[np.intp],
    patch: Int32,
    u: Float32,
    v: Float32,
    radiance: Float32,
) -> None:
    """What gives light by itself: the view through windows, and lamps on the ceilings."""
    s, lighting = geometry.surfaces, appearance.lighting
    pane = np.flatnonzero(patch >= len(s.origin) - geometry.panes)
    seen = _albedo(geometry, appearance, texture, patch[pane], u[pane], v[pane])
    bright = SKY_RADIANCE * max(lighting.sky_power, 0.01)
    radiance[pane, :3] = seen * (np.array(lighting.sky_color, np.float32) * np.float32(bright))
    ceilings = np.flatnonzero(s.role == ROLES.index("ceiling"))  # one a room, in order
    glow = np.array(lighting.lamp_color, np.float32) * np.float32(
        LAMP_RADIANCE * lighting.lamp_power
    )
    charts = s.texels[0]
    for room, x, y in lamp_places(geometry, appearance):
        number = int(ceilings[room])
        begin, stop = charts.start[number], charts.start[number + 1]
        own = slice(int(begin), int(stop))
        at_x = s.origin[number, 0] + u[own] * s.sides[number, 0] - x
        at_y = s.origin[number, 1] + v[own] * s.sides[number, 1] - y
        lit = at_x * at_x + at_y * at_y < LAMP_RADIUS_M**2
        radiance[begin:stop, :3][lit] = glow
