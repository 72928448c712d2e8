"""What families of furniture draw: a piece, standing with its back at the origin.

Local frame: x along the wall, y away from it (the piece lies in 0 ≤ y ≤ depth, |x| ≤ width / 2),
z up. A piece that stands in the middle of a room has the same frame. What a robot would touch
reaches through the LiDAR's plane, so that what it cannot pass it can see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from limpet.training.navigation.solids import Box, Label, Role, Solid, Surface

Rng = np.random.Generator


@dataclass(frozen=True)
class Piece:
    """A piece of furniture and the floor it takes (for placing, not for collisions), m."""

    solids: tuple[Solid, ...]
    width: float
    depth: float


def box(
    x: float, y: float, z0: float, size: tuple[float, float, float], role: Role, label: Label,
    slot: int = 0, yaw: float = 0.0,
) -> Box:  # fmt: skip
    """A box centred at (x, y) with its bottom at z0, m; `size` along its own axes, yaw in rad."""
    return Box((x, y, z0 + size[2] / 2), size, Surface(role, slot), label, yaw)


def legs(
    w: float, d: float, height: float, thick: float, role: Role, label: Label, slot: int
) -> list[Solid]:
    """Four legs, `thick` square, at the corners of a w × d top whose middle is at (0, d / 2); m."""
    half = thick / 2
    return [
        box(x, y, 0.0, (thick, thick, height), role, label, slot)
        for x in (-w / 2 + half, w / 2 - half)
        for y in (half, d - half)
    ]
