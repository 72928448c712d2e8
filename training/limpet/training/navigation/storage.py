"""Pieces that hold things."""

from __future__ import annotations

from limpet.training.navigation.pieces import Piece, Rng, box, legs
from limpet.training.navigation.solids import Cylinder, Role, Solid, Surface


def wardrobe(rng: Rng) -> Piece:
    """A tall cupboard with doors and handles."""
    doors = int(rng.integers(2, 4))
    w, d, h = doors * rng.uniform(0.45, 0.55), rng.uniform(0.5, 0.6), rng.uniform(1.8, 2.15)
    return _cupboard(rng, w, d, h, doors)


def sideboard(rng: Rng) -> Piece:
    """A low cupboard, with something on it."""
    doors = int(rng.integers(2, 5))
    w, d, h = doors * rng.uniform(0.4, 0.5), rng.uniform(0.38, 0.48), rng.uniform(0.6, 0.95)
    piece = _cupboard(rng, w, d, h, doors)
    on_top: list[Solid] = []
    if rng.random() < 0.5:
        screen = rng.uniform(0.8, min(1.3, w))
        on_top.append(box(0.0, d / 2, h + 0.06, (screen, 0.05, screen * 0.58), "screen", "screen"))
        on_top.append(box(0.0, d / 2, h, (0.3, 0.18, 0.06), "metal", "screen"))
    else:
        x = rng.uniform(-w / 3, w / 3)
        on_top.append(Cylinder((x, d / 2), h, h + 0.25, 0.07, Surface("ceramic", 1), "cabinet"))
    return Piece((*piece.solids, *on_top), piece.width, piece.depth)


def _cupboard(rng: Rng, w: float, d: float, h: float, doors: int) -> Piece:
    slot = int(rng.integers(9))
    out: list[Solid] = [
        box(0.0, d / 2 - 0.02, 0.0, (w - 0.04, d - 0.06, 0.07), "metal", "cabinet", 0),
        box(0.0, d / 2, 0.07, (w, d - 0.04, h - 0.07), "wood", "cabinet", slot),
    ]
    wide = w / doors
    for i in range(doors):
        x = -w / 2 + wide * (i + 0.5)
        front = (wide - 0.012, 0.02, h - 0.1)
        out.append(box(x, d - 0.01, 0.085, front, "wood", "cabinet", slot + 1))
        handle = x + (wide / 2 - 0.05) * (1 if i % 2 == 0 else -1)
        out.append(box(handle, d + 0.01, h * 0.45, (0.02, 0.025, 0.16), "metal", "cabinet", 1))
    return Piece(tuple(out), w, d + 0.03)


def bookshelf(rng: Rng) -> Piece:
    """Boards with books on them, above a closed base."""
    w, d, h = rng.uniform(0.7, 1.3), rng.uniform(0.28, 0.34), rng.uniform(1.5, 2.1)
    slot, thick, base = int(rng.integers(9)), 0.025, 0.4
    out: list[Solid] = [
        box(0.0, 0.01, base, (w, 0.02, h - base), "wood", "shelf", slot),
        box(0.0, d / 2, 0.0, (w, d, base), "wood", "shelf", slot),
    ]
    for side in (-1, 1):
        out.append(box(side * (w - thick) / 2, d / 2, 0.0, (thick, d, h), "wood", "shelf", slot))
    levels = int((h - base) / rng.uniform(0.32, 0.4))
    for i in range(levels + 1):
        z = base + i * (h - base - thick) / levels
        out.append(box(0.0, d / 2, z, (w, d, thick), "wood", "shelf", slot))
        x, room = -w / 2 + 0.04, (h - base - thick) / levels - 0.04
        while i < levels and x < w / 2 - 0.2:
            many = rng.uniform(0.1, 0.35)
            many = min(many, w / 2 - 0.04 - x)
            tall, deep = rng.uniform(0.6, 0.95) * room, rng.uniform(0.6, 0.85) * d
            books = (many, deep, tall)
            kind = int(rng.integers(9))
            out.append(box(x + many / 2, deep / 2 + 0.02, z + thick, books, "paper", "shelf",
                            kind))  # fmt: skip
            x += many + (rng.uniform(0.05, 0.3) if rng.random() < 0.4 else 0.004)
    return Piece(tuple(out), w, d)


def counter(rng: Rng) -> Piece:
    """A kitchen counter with cupboards below, a worktop, and wall cupboards above."""
    units = int(rng.integers(3, 6))
    w, d, slot = units * 0.6, 0.6, int(rng.integers(9))
    out: list[Solid] = [
        box(0.0, d / 2 - 0.03, 0.0, (w, d - 0.06, 0.1), "metal", "counter", 0),
        box(0.0, d / 2 - 0.01, 0.1, (w, d - 0.02, 0.76), "wood", "counter", slot),
        box(0.0, d / 2 + 0.01, 0.86, (w, d + 0.02, 0.04), "ceramic", "counter", 2),
    ]
    for i in range(units):
        x = -w / 2 + 0.6 * (i + 0.5)
        oven = i == units // 2
        role: Role = "screen" if oven else "wood"
        out.append(box(x, d - 0.01, 0.12, (0.585, 0.02, 0.72), role, "counter", slot + 1))
        out.append(box(x, d + 0.01, 0.74, (0.3, 0.025, 0.02), "metal", "counter", 1))
    if rng.random() < 0.7:
        out.append(box(0.0, 0.17, 1.45, (w, 0.34, 0.6), "wood", "counter", slot + 1))
    if rng.random() < 0.6:
        x = w / 2 + 0.33
        out.append(box(x, 0.31, 0.0, (0.6, 0.62, rng.uniform(1.5, 1.9)), "ceramic", "counter", 1))
        return Piece(tuple(part.moved(-0.33, 0.0, 0.0) for part in out), w + 0.66, 0.65)
    return Piece(tuple(out), w, 0.65)


def cartons(rng: Rng) -> Piece:
    """Boxes, some on others."""
    out: list[Solid] = []
    for x in (-0.3, 0.25):
        z, w, d = 0.0, rng.uniform(0.35, 0.5), rng.uniform(0.3, 0.45)
        for _ in range(int(rng.integers(1, 4))):
            size = (w, d, rng.uniform(0.25, 0.4))
            w, d = w * rng.uniform(0.8, 1.0), d * rng.uniform(0.8, 1.0)
            slot, yaw = int(rng.integers(9)), rng.normal(0.0, 0.1)
            out.append(box(x, 0.28, z, size, "paper", "carton", slot, yaw))
            z += size[2]
    return Piece(tuple(out), 1.15, 0.6)


def rack(rng: Rng) -> Piece:
    """Metal shelves with boxes."""
    w, d, h = rng.uniform(0.9, 1.4), 0.45, rng.uniform(1.7, 2.0)
    out: list[Solid] = legs(w, d, h, 0.05, "metal", "shelf", 0)
    for i in range(4):
        z = 0.2 + i * (h - 0.25) / 3
        out.append(box(0.0, d / 2, z, (w, d, 0.04), "metal", "shelf", 1))
        for x in (-w / 4, w / 4):
            if i < 3 and rng.random() < 0.75:
                size = (w * rng.uniform(0.25, 0.42), d * 0.8, rng.uniform(0.2, 0.36))
                kind = int(rng.integers(9))
                out.append(box(x, d / 2, z + 0.04, size, "paper", "carton", kind))
    return Piece(tuple(out), w, d)
