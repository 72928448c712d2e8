"""Families of objects seen in training: vessels, packages, fruit, parts.

A family draws an instance from a random generator; what it draws stands about upright.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from limpet.training.grasp.scenes.shapes import (
    Solid,
    arc,
    box,
    polygon,
    prism,
    ring,
    rod,
    solid,
    tube,
    vessel,
)

Rng = np.random.Generator


def carton(rng: Rng) -> list[Solid]:
    """A box, as of tea or crackers."""
    size = (rng.uniform(0.03, 0.065), rng.uniform(0.06, 0.11), rng.uniform(0.09, 0.17))
    return [box((0, 0, 0), size)]


def can(rng: Rng) -> list[Solid]:
    """A tin with rims."""
    r, h = rng.uniform(0.024, 0.038), rng.uniform(0.06, 0.13)
    return [solid([(r, 0), (r, 0.004), (r - 0.002, 0.006), (r - 0.002, h - 0.006), (r, h - 0.004),
                   (r, h)])]  # fmt: skip


def bottle(rng: Rng) -> list[Solid]:
    """A full bottle with shoulder, neck and cap."""
    r, h = rng.uniform(0.024, 0.036), rng.uniform(0.12, 0.2)
    neck, at = rng.uniform(0.009, 0.014), rng.uniform(0.5, 0.7) * h
    shoulder = at + rng.uniform(0.15, 0.3) * h
    return [solid([(r * 0.9, 0), (r, 0.006), (r, at), (r * 0.85, (at + shoulder) / 2),
                   (neck, shoulder), (neck, h - 0.02), (neck + 0.003, h - 0.018),
                   (neck + 0.003, h)])]  # fmt: skip


def cup(rng: Rng) -> list[Solid]:
    """A beaker without a handle."""
    low, high = rng.uniform(0.022, 0.03), rng.uniform(0.03, 0.042)
    h = rng.uniform(0.07, 0.11)
    middle = (low + high) / 2 + rng.uniform(-0.002, 0.003)
    return [vessel([(low, 0), (middle, h / 2), (high, h)], 0.0042, 0.006)]


def bowl(rng: Rng) -> list[Solid]:
    """A wide, low vessel."""
    r, h = rng.uniform(0.05, 0.07), rng.uniform(0.04, 0.06)
    return [
        vessel([(0.45 * r, 0), (0.72 * r, 0.25 * h), (0.92 * r, 0.6 * h), (r, h)], 0.005, 0.006)
    ]


def mug(rng: Rng) -> list[Solid]:
    """A mug with its handle."""
    r, h = rng.uniform(0.032, 0.042), rng.uniform(0.075, 0.105)
    thick, reach = rng.uniform(0.0045, 0.0065), rng.uniform(0.022, 0.03)
    low, high = 0.22 * h, 0.8 * h
    inside = r - 0.002
    handle = tube(
        [(inside, 0, low), (r + 0.7 * reach, 0, low), (r + reach, 0, low + 0.25 * (high - low)),
         (r + reach, 0, high - 0.25 * (high - low)), (r + 0.7 * reach, 0, high), (inside, 0, high)],
        thick,
    )  # fmt: skip
    return [vessel([(r, 0), (r, 0.5 * h), (r, h)], 0.0045, 0.006), *handle]


def vase(rng: Rng) -> list[Solid]:
    """A full body with a belly and a narrower neck."""
    belly, h = rng.uniform(0.032, 0.044), rng.uniform(0.1, 0.16)
    foot, neck = rng.uniform(0.5, 0.8) * belly, rng.uniform(0.35, 0.6) * belly
    z = np.linspace(0, 1, 10)
    bulge = np.interp(z, [0, 0.4, 0.8, 1.0], [foot, belly, neck, neck * 1.25])
    smooth = np.convolve(np.pad(bulge, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    return [solid([(float(r), float(h * at)) for r, at in zip(smooth, z, strict=True)])]


def knob(rng: Rng) -> list[Solid]:
    """A door's knob: plate, stem, head."""
    head, h = rng.uniform(0.022, 0.034), rng.uniform(0.045, 0.07)
    plate = rng.uniform(0.02, 0.032)
    stem = rng.uniform(0.007, 0.012)
    return [solid([(plate, 0), (plate, 0.006), (stem, 0.009), (stem, 0.4 * h),
                   (0.75 * head, 0.5 * h), (head, 0.7 * h), (0.8 * head, 0.92 * h),
                   (0.4 * head, h)])]  # fmt: skip


def egg(rng: Rng) -> list[Solid]:
    """Fruit: a ball or an ellipsoid."""
    r, long = rng.uniform(0.024, 0.04), rng.uniform(0.9, 1.5)
    t = np.linspace(-1, 1, 15)
    radius = r * np.sqrt(np.maximum(1 - t**2, 0.0)) * (1 + 0.12 * rng.uniform(-1, 1) * t)
    radius[[0, -1]] = 0.12 * r
    return [solid([(float(a), float(r * long * b)) for a, b in zip(radius, t, strict=True)])]


def banana(rng: Rng) -> list[Solid]:
    """A bent rod, thinner at the ends."""
    bend, spread = rng.uniform(0.07, 0.11), rng.uniform(70, 110)
    thick = rng.uniform(0.014, 0.019)
    line = arc((0, 0, 0), bend, -spread / 2, spread / 2, 9, "xy")
    out: list[Solid] = []
    for k, (a, b) in enumerate(itertools.pairwise(line)):
        share = abs(k - 3.5) / 3.5
        out += tube([a, b], thick * (1.0 - 0.45 * share**2))
    return out


def cone(rng: Rng) -> list[Solid]:
    """A cone or a pyramid without its tip."""
    low, high = rng.uniform(0.028, 0.042), rng.uniform(0.008, 0.016)
    h, sides = rng.uniform(0.06, 0.12), int(rng.choice([4, 6, 32]))
    if sides == 32:
        return [solid([(low, 0), (high, h)])]
    foot, head = prism(polygon(sides, low), 0, 0.001), prism(polygon(sides, high), h - 0.001, h)
    return [type(foot)(np.concatenate([foot.vertices, head.vertices]))]


def nut(rng: Rng) -> list[Solid]:
    """A thick hexagonal bolt: head and shank."""
    wide, thick = rng.uniform(0.018, 0.028), rng.uniform(0.012, 0.02)
    shank, long = rng.uniform(0.45, 0.6) * wide, rng.uniform(0.04, 0.1)
    return [prism(polygon(6, wide), 0, thick), rod((0, 0, thick / 2), (0, 0, thick + long), shank)]


def torus(rng: Rng) -> list[Solid]:
    """A ring with a round section."""
    thick = rng.uniform(0.007, 0.013)
    r = rng.uniform(0.025, 0.045)
    angles = np.arange(12) * (2 * math.pi / 12)
    return [ring([(float(r + thick * math.cos(a)), float(thick * math.sin(a))) for a in angles])]


def brick(rng: Rng) -> list[Solid]:
    """A toy brick with studs."""
    pitch = rng.uniform(0.018, 0.024)
    nx, ny = int(rng.integers(1, 3)), int(rng.integers(2, 5))
    h, stud = rng.uniform(0.02, 0.035), 0.3 * pitch
    out: list[Solid] = [box((0, 0, h / 2), (nx * pitch, ny * pitch, h))]
    for i in range(nx):
        for j in range(ny):
            x, y = (i - (nx - 1) / 2) * pitch, (j - (ny - 1) / 2) * pitch
            out.append(rod((x, y, h - 0.002), (x, y, h + 0.005), stud))
    return out


def tee(rng: Rng) -> list[Solid]:
    """A pipe's T piece, with collars."""
    r, long = rng.uniform(0.011, 0.017), rng.uniform(0.08, 0.12)
    branch, collar = rng.uniform(0.045, 0.065), r + 0.004
    out: list[Solid] = [
        rod((-long / 2, 0, 0), (long / 2, 0, 0), r),
        rod((0, 0, 0), (0, 0, branch), r),
    ]
    for x in (-long / 2, long / 2 - 0.016):
        out.append(rod((x, 0, 0), (x + 0.016, 0, 0), collar))
    out.append(rod((0, 0, branch - 0.016), (0, 0, branch), collar))
    return out


def bracket(rng: Rng) -> list[Solid]:
    """An angle: two plates."""
    wide, thick = rng.uniform(0.03, 0.06), rng.uniform(0.006, 0.014)
    a, b = rng.uniform(0.05, 0.1), rng.uniform(0.05, 0.09)
    return [
        box((a / 2, 0, thick / 2), (a, wide, thick)),
        box((thick / 2, 0, b / 2), (thick, wide, b)),
    ]


def profile(rng: Rng) -> list[Solid]:
    """A length of T section."""
    long, thick = rng.uniform(0.08, 0.15), rng.uniform(0.008, 0.014)
    flange, web = rng.uniform(0.04, 0.06), rng.uniform(0.03, 0.05)
    return [
        box((0, 0, thick / 2), (long, flange, thick)),
        box((0, 0, thick / 2 + web / 2), (long, thick, web)),
    ]
