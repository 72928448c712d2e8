"""Light on every luxel of a scene in one appearance: lamps, windows, sun, and what bounces.

Radiosity's terms, first bounce approximated: direct light with shadow rays to sampled points of
each light, plus light from the room's own mean brightness, darkened where the surroundings are
near (ambient occlusion). The unit is arbitrary: a surface of albedo 1 at irradiance 1 has
radiance 1.

Dimension legend: K luxels, S = SAMPLES points of a light.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.training.navigation.appearance import Appearance
from limpet.training.navigation.geometry import SceneGeometry
from limpet.training.navigation.surfaces import Float32

LAMP_POWER, SKY_POWER = 4.0, 1.2
"""Irradiance at 1 m of a lamp, and radiance of the sky, where an appearance's powers are 1."""
SAMPLES = 4
"""Points of a lamp or a window that shadow rays go to."""
LEAST = 0.01
"""Irradiance below which a light is not followed."""
BOUNCE = 1.1
"""How much of a room's mean radiance comes back, repeated bounces included."""


@dataclass(frozen=True)
class _Light:
    """Points that shine, and the room that they are in."""

    points: Float32  # (S, 3)
    normal: Float32 | None  # the direction that it shines in, None for all around
    color: Float32
    power: float
    room: int


def lamp_places(geometry: SceneGeometry, appearance: Appearance) -> list[tuple[int, float, float]]:
    """Room, x and y (m) of every lamp of a scene."""
    places = []
    for index, room in enumerate(geometry.layout.plan.rooms):
        x0, y0, x1, y1 = room.inner
        for along_x, along_y in appearance.lamps_of(index):
            places.append((index, x0 + along_x * (x1 - x0), y0 + along_y * (y1 - y0)))
    return places


def irradiance(geometry: SceneGeometry, appearance: Appearance, albedo_K3: Float32) -> Float32:
    """Irradiance of every luxel, linear RGB. (K, 3)

    Args:
        geometry: The scene.
        appearance: What shines.
        albedo_K3: Mean albedo of the patch of each luxel, for the light that bounces.
    """
    _, place, normal = geometry.luxels
    rooms = _rooms_of(geometry)
    near = _neighbours(geometry)
    rng = np.random.default_rng([appearance.seed, geometry.layout.seed])
    direct = np.zeros((len(place), 3), np.float32)
    for light in _lights(geometry, appearance):
        chosen = np.flatnonzero(np.isin(rooms, list(near[light.room])))
        _shine(geometry, light, chosen, place[chosen], normal[chosen], rng, direct)
    _sunshine(geometry, appearance, place, normal, rng, direct)
    return direct + _bounced(geometry, direct, albedo_K3, rooms, normal)


def _lights(geometry: SceneGeometry, appearance: Appearance) -> Iterator[_Light]:
    lighting, plan = appearance.lighting, geometry.layout.plan
    down = np.array([0.0, 0.0, -1.0], np.float32)
    lamps = lamp_places(geometry, appearance)
    number = np.bincount([room for room, _, _ in lamps])
    for room, x, y in lamps:
        z = plan.height - (0.55 if lighting.pendant else 0.03)
        ring = 0.15 * np.array([[1, 0, 0], [-0.5, 0.87, 0], [-0.5, -0.87, 0], [0, 0, -0.2]])
        # A room's lamps share what its floor needs.
        width, depth = plan.rooms[room].size
        power = LAMP_POWER * lighting.lamp_power * (width * depth / 14.0) / number[room]
        if lighting.pendant:
            power *= 0.45
        points = (np.array([x, y, z]) + ring).astype(np.float32)
        color = np.array(lighting.lamp_color, np.float32)
        yield _Light(points, None if lighting.pendant else down, color, power, room)
    surfaces = geometry.surfaces
    sky = np.array(lighting.sky_color, np.float32)
    windows = [hole for hole in plan.openings if hole.kind == "window"]
    corners = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    for patch, hole in enumerate(windows, len(surfaces.origin) - geometry.panes):
        points = surfaces.origin[patch] + corners @ np.stack([surfaces.u[patch], surfaces.v[patch]])
        area = float(surfaces.sides[patch].prod())
        inward = surfaces.normal[patch].astype(np.float32)
        power = SKY_POWER * lighting.sky_power * area
        yield _Light(points.astype(np.float32), inward, sky, power, hole.rooms[0])


def _shine(
    geometry: SceneGeometry,
    light: _Light,
    chosen: NDArray[np.intp],
    place: Float32,
    normal: Float32,
    rng: np.random.Generator,
    direct: Float32,
) -> None:
    """Adds one light to the luxels `chosen`, whose places and normals are given."""
    center = light.points.mean(axis=0)
    towards = center - place
    squared = np.einsum("ki,ki->k", towards, towards)
    # Those that face the light and are near enough; a light has some width, hence the slack.
    facing = np.einsum("ki,ki->k", towards, normal) > -0.3
    kept = np.flatnonzero(facing & (squared < light.power / LEAST))
    chosen, place, normal = chosen[kept], place[kept], normal[kept]
    # Each luxel looks at points of its own near the samples: noise rather than bands.
    spread = np.float32(0.06) * rng.standard_normal((len(place), 3), np.float32)
    if light.normal is not None:
        spread -= (spread @ light.normal)[:, None] * light.normal
    for point in light.points:
        towards = (point - place) + spread
        squared = np.einsum("ki,ki->k", towards, towards) + np.float32(0.01)
        cosine = np.einsum("ki,ki->k", towards, normal)
        power = np.maximum(cosine, 0.0) * np.float32(light.power / SAMPLES) / squared**1.5
        if light.normal is not None:
            power *= np.maximum(-(towards @ light.normal), 0.0) / np.sqrt(squared)
        bright = np.flatnonzero(power > LEAST / SAMPLES)
        hidden = geometry.blocked(place[bright], towards[bright], 0.99)
        lit = bright[~hidden]
        direct[chosen[lit]] += power[lit, None] * light.color


def _sunshine(
    geometry: SceneGeometry,
    appearance: Appearance,
    place: Float32,
    normal: Float32,
    rng: np.random.Generator,
    direct: Float32,
) -> None:
    lighting = appearance.lighting
    if lighting.sun_power <= 0.0:
        return
    sun = np.array(lighting.sun, np.float32)
    cosine = normal @ sun
    facing = np.flatnonzero(cosine > 0.02)
    color = np.array([1.0, 0.9, 0.72], np.float32) * lighting.sun_power
    for _ in range(2):
        rays = (sun + rng.normal(0.0, 0.01, (len(facing), 3))).astype(np.float32)
        lit = facing[~geometry.blocked(place[facing], rays, 100.0)]
        direct[lit] += (0.5 * cosine[lit])[:, None] * color


def _bounced(
    geometry: SceneGeometry,
    direct: Float32,
    albedo: Float32,
    rooms: NDArray[np.intp],
    normal: Float32,
) -> Float32:
    """Light from the room: what looks up sees ceiling and walls, what looks down the floor."""
    number = len(geometry.layout.plan.rooms)
    radiosity = direct * albedo
    up = 0.5 + 0.5 * normal[:, 2]
    means = []
    for weight in (1.0 - up, up):  # surfaces that face down, then those that face up
        weight = weight + 0.15
        total = np.bincount(rooms, weight, number)
        means.append(
            np.stack(
                [np.bincount(rooms, weight * radiosity[:, c], number) / total for c in range(3)],
                axis=1,
            )
        )
    seen = up[:, None] * means[0][rooms] + (1 - up[:, None]) * means[1][rooms]
    return (BOUNCE * (seen + 0.006) * geometry.openness[:, None] ** 0.8).astype(np.float32)


def _rooms_of(geometry: SceneGeometry) -> NDArray[np.intp]:
    """The room of each luxel, by where its patch's middle is. (K,)"""
    s = geometry.surfaces
    middle = s.origin + 0.5 * (s.u + s.v) + 0.1 * s.normal
    rooms = np.zeros(len(middle), np.intp)
    for index, room in enumerate(geometry.layout.plan.rooms):
        x, y = middle[:, 0], middle[:, 1]
        rooms[(x >= room.x0) & (x < room.x1) & (y >= room.y0) & (y < room.y1)] = index
    return rooms[geometry.luxels[0]]


def _neighbours(geometry: SceneGeometry) -> list[set[int]]:
    """Rooms that a room's light gets to: itself, and those an opening leads to."""
    plan = geometry.layout.plan
    near = [{index} for index in range(len(plan.rooms))]
    for hole in plan.openings:
        if hole.kind != "window":
            a, b = hole.rooms
            near[a].add(b)
            near[b].add(a)
    return near
