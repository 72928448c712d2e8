"""Pieces to sit, lie and work at, and the rugs below them."""

from __future__ import annotations

import numpy as np

from limpet.training.navigation.pieces import Piece, Rng, box, legs
from limpet.training.navigation.solids import Cylinder, Role, Solid, Surface


def table(rng: Rng) -> Piece:
    """A table with chairs around it."""
    slot, w, d, top = int(rng.integers(9)), rng.uniform(1.1, 1.8), rng.uniform(0.75, 1.0), 0.74
    out: list[Solid] = []
    room = 0.45
    if rng.random() < 0.35:
        d = w = rng.uniform(0.9, 1.25)
        surface = Surface("wood", slot)
        out.append(Cylinder((0.0, room + d / 2), top - 0.04, top, d / 2, surface, "table", 16))
        out.append(Cylinder((0.0, room + d / 2), 0.04, top - 0.04, 0.05, surface, "table", 8))
        out.append(Cylinder((0.0, room + d / 2), 0.0, 0.04, 0.25, surface, "table", 12))
    else:
        out.append(box(0.0, room + d / 2, top - 0.04, (w, d, 0.04), "wood", "table", slot))
        out += [leg.moved(0.0, room, 0.0) for leg in legs(w, d, top - 0.04, 0.06, "wood",
                                                             "table", slot)]  # fmt: skip
    seat = int(rng.integers(9))
    for side in (-1, 1):
        for x in np.linspace(-w / 4, w / 4, 2) if w > 1.2 else [0.0]:
            if rng.random() < 0.8:
                # Seen from the table's middle: a chair faces it, a little askew.
                yaw = (np.pi if side < 0 else 0.0) + rng.normal(0.0, 0.12)
                away = d / 2 + rng.uniform(-0.12, 0.15)
                x0, y0 = float(x), room + d / 2 + side * away
                out += [part.moved(x0, y0, yaw) for part in _chair(rng, seat)]
    return Piece(tuple(out), w + 0.1, d + 2 * room)


def _chair(rng: Rng, slot: int) -> list[Solid]:
    """A chair whose back is away from y = 0."""
    w, d, seat = 0.42, 0.42, 0.45
    role: Role = "fabric" if slot % 2 else "wood"
    out: list[Solid] = [box(0.0, d / 2, seat - 0.05, (w, d, 0.05), role, "chair", slot)]
    out += legs(w, d, seat - 0.05, 0.04, "wood", "chair", slot)
    out.append(box(0.0, d - 0.02, seat, (w, 0.04, 0.42), role, "chair", slot))
    return out


def armchair(rng: Rng) -> Piece:
    """One wide seat."""
    return _seat(rng, rng.uniform(0.75, 0.9))


def sofa(rng: Rng) -> Piece:
    """A sofa of two or three seats."""
    return _seat(rng, rng.uniform(1.5, 2.2))


def _seat(rng: Rng, w: float) -> Piece:
    d, slot, arm = rng.uniform(0.8, 0.95), int(rng.integers(9)), 0.16
    out: list[Solid] = [
        box(0.0, d / 2, 0.04, (w, d, 0.24), "fabric", "sofa", slot),
        box(0.0, 0.12, 0.28, (w, 0.24, rng.uniform(0.45, 0.6)), "fabric", "sofa", slot),
    ]
    for side in (-1, 1):
        out.append(box(side * (w - arm) / 2, d / 2 + 0.05, 0.28, (arm, d - 0.1, 0.3), "fabric",
                        "sofa", slot))  # fmt: skip
    inside = w - 2 * arm
    seats = max(1, round(inside / 0.65))
    for i in range(seats):
        x = -inside / 2 + inside * (i + 0.5) / seats
        out.append(box(x, d / 2 + 0.12, 0.28, (inside / seats - 0.02, d - 0.26, 0.15), "fabric",
                        "sofa", slot + 1))  # fmt: skip
    return Piece(tuple(out), w, d)


def coffee_table(rng: Rng) -> Piece:
    """A low table with a shelf-like foot."""
    w, d, slot = rng.uniform(0.8, 1.2), rng.uniform(0.5, 0.65), int(rng.integers(9))
    foot = box(0.0, d / 2, 0.0, (w * 0.75, d * 0.7, 0.41), "wood", "table", slot + 1)
    return Piece((box(0.0, d / 2, 0.41, (w, d, 0.05), "wood", "table", slot), foot), w, d)


def desk(rng: Rng) -> Piece:
    """A desk with panels, a screen on it and an office chair before it."""
    w, d, slot = rng.uniform(1.1, 1.6), rng.uniform(0.6, 0.75), int(rng.integers(9))
    out: list[Solid] = [box(0.0, d / 2, 0.7, (w, d, 0.035), "wood", "table", slot)]
    for side in (-1, 1):
        out.append(box(side * (w / 2 - 0.02), d / 2, 0.0, (0.03, d - 0.06, 0.7), "wood",
                        "table", slot))  # fmt: skip
    drawers = int(rng.choice([-1, 1]))
    out.append(box(drawers * (w / 2 - 0.25), d / 2, 0.0, (0.4, d - 0.1, 0.6), "wood", "cabinet",
                    slot + 1))  # fmt: skip
    out.append(box(0.0, 0.22, 0.735, (0.22, 0.15, 0.02), "metal", "screen", 0))
    out.append(box(0.0, 0.2, 0.8, (0.55, 0.03, 0.33), "screen", "screen", 1))
    chair = int(rng.integers(9))
    x, y = -drawers * 0.15, d + rng.uniform(0.0, 0.2)
    metal = Surface("metal", 0)
    swivel: list[Solid] = [
        Cylinder((0.0, 0.0), 0.0, 0.05, 0.28, metal, "chair", 5),
        Cylinder((0.0, 0.0), 0.05, 0.42, 0.05, metal, "chair", 6),
        box(0.0, 0.0, 0.42, (0.46, 0.46, 0.08), "fabric", "chair", chair),
        box(0.0, 0.22, 0.6, (0.42, 0.06, 0.5), "fabric", "chair", chair),
    ]
    out += [part.moved(x, y, rng.normal(0.0, 0.5)) for part in swivel]
    return Piece(tuple(out), w, d + 0.5)


def bed(rng: Rng) -> Piece:
    """A bed with its head at the wall, blanket and pillows, perhaps with a bedside table."""
    w, d, slot = rng.choice([0.95, 1.4, 1.7]), rng.uniform(1.95, 2.1), int(rng.integers(9))
    out: list[Solid] = [
        box(0.0, d / 2, 0.0, (w, d, 0.3), "wood", "bed", slot),
        box(0.0, d / 2, 0.3, (w - 0.04, d - 0.04, 0.2), "ceramic", "bed", 0),
        box(0.0, d / 2 + 0.3, 0.5, (w, d - 0.6, 0.03), "fabric", "bed", slot),
        box(0.0, 0.03, 0.3, (w, 0.06, rng.uniform(0.5, 0.8)), "wood", "bed", slot),
    ]
    for x in (-w / 4, w / 4) if w > 1.2 else (0.0,):
        out.append(box(x, 0.3, 0.5, (0.55, 0.36, 0.1), "fabric", "bed", slot + 2))
    wide = w
    if rng.random() < 0.6:
        wide = w + 0.9
        for side in (-1, 1):
            x = side * (w / 2 + 0.24)
            out.append(box(x, 0.22, 0.0, (0.4, 0.4, 0.48), "wood", "cabinet", slot))
            out.append(Cylinder((x, 0.22), 0.48, 0.62, 0.05, Surface("metal", 1), "lamp", 8))
            out.append(Cylinder((x, 0.22), 0.62, 0.82, 0.12, Surface("paper", 2), "lamp", 10))
    return Piece(tuple(out), wide, d)


def rug(rng: Rng) -> Piece:
    """A rug: to be seen, not to be run into."""
    w, d = rng.uniform(1.5, 2.4), rng.uniform(1.1, 1.7)
    solid = box(0.0, d / 2, 0.0, (w, d, 0.008), "fabric", "rug", int(rng.integers(9)))
    return Piece((solid,), w, d)
