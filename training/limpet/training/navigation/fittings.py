"""Plants, lamps and what a bathroom has."""

from __future__ import annotations

import numpy as np

from limpet.training.navigation.pieces import Piece, Rng, box
from limpet.training.navigation.solids import Cylinder, Solid, Surface


def plant(rng: Rng) -> Piece:
    """A plant in a pot."""
    r, tall = rng.uniform(0.14, 0.2), rng.uniform(0.7, 1.5)
    at, pot = (0.0, 0.25), rng.uniform(0.3, 0.45)
    out: list[Solid] = [
        Cylinder(at, 0.0, pot, r, Surface("ceramic", int(rng.integers(9))), "plant", 10)
    ]
    for i in range(int(rng.integers(5, 9))):
        angle, away = i * 2.4, rng.uniform(0.02, 0.14)
        z = pot + rng.uniform(0.1, 0.9) * (tall - pot)
        size = rng.uniform(0.16, 0.3)
        x, y = away * np.cos(angle), 0.25 + away * np.sin(angle)
        leaf = (size, size * 0.7, size * rng.uniform(0.5, 1.0))
        out.append(box(x, y, max(0.41, z - leaf[2] / 2), leaf, "foliage", "plant", i, angle))
    out.append(Cylinder(at, pot, tall * 0.8, 0.02, Surface("foliage", 0), "plant", 5))
    return Piece(tuple(out), 0.5, 0.5)


def floor_lamp(rng: Rng) -> Piece:
    """A lamp on a pole."""
    at, tall, metal = (0.0, 0.2), rng.uniform(1.4, 1.7), Surface("metal", int(rng.integers(9)))
    shade = Surface("paper", int(rng.integers(9)))
    return Piece(
        (
            Cylinder(at, 0.0, 0.03, 0.15, metal, "lamp", 10),
            Cylinder(at, 0.03, tall, 0.025, metal, "lamp", 6),
            Cylinder(at, tall - 0.05, tall + 0.25, 0.18, shade, "lamp", 12),
        ),
        0.4,
        0.4,
    )


def toilet(rng: Rng) -> Piece:
    """A toilet."""
    white = Surface("ceramic", 0)
    return Piece(
        (
            box(0.0, 0.1, 0.4, (0.4, 0.18, 0.4), "ceramic", "sanitary", 0),
            box(0.0, 0.15, 0.0, (0.22, 0.3, 0.4), "ceramic", "sanitary", 0),
            Cylinder((0.0, 0.42), 0.0, 0.4, 0.16, white, "sanitary", 12),
            Cylinder((0.0, 0.42), 0.4, 0.45, 0.2, white, "sanitary", 14),
        ),
        0.55,
        0.65,
    )


def basin(rng: Rng) -> Piece:
    """A basin on a cabinet, with a mirror-like panel."""
    w, slot = rng.uniform(0.5, 0.9), int(rng.integers(9))
    return Piece(
        (
            box(0.0, 0.22, 0.1, (w, 0.44, 0.68), "wood", "cabinet", slot),
            box(0.0, 0.22, 0.0, (w - 0.1, 0.36, 0.1), "metal", "cabinet", 0),
            box(0.0, 0.24, 0.78, (w + 0.04, 0.48, 0.09), "ceramic", "sanitary", 0),
            box(0.0, 0.01, 1.1, (w, 0.02, 0.7), "sky", "picture", slot),
        ),
        w + 0.05,
        0.5,
    )


def bathtub(rng: Rng) -> Piece:
    """A bathtub along the wall."""
    w, d, thick, h = rng.uniform(1.5, 1.75), 0.75, 0.06, 0.56
    out: list[Solid] = [box(0.0, d / 2, 0.0, (w, d, 0.3), "ceramic", "sanitary", 0)]
    for y in (thick / 2, d - thick / 2):
        out.append(box(0.0, y, 0.3, (w, thick, h - 0.3), "ceramic", "sanitary", 0))
    for x in (-(w - thick) / 2, (w - thick) / 2):
        out.append(box(x, d / 2, 0.3, (thick, d, h - 0.3), "ceramic", "sanitary", 0))
    return Piece(tuple(out), w, d)
