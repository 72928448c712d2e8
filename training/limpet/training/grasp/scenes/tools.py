"""Families of tools seen in training, and the families kept from it: "novel".

A family draws an instance from a random generator; tools lie along x.
"""

from __future__ import annotations

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
    turn,
    vessel,
)

Rng = np.random.Generator


def hammer(rng: Rng) -> list[Solid]:
    """A handle and a head across it."""
    long, r = rng.uniform(0.13, 0.19), rng.uniform(0.009, 0.013)
    head, thick = rng.uniform(0.06, 0.085), rng.uniform(0.02, 0.028)
    return [
        rod((0, 0, 0), (long, 0, 0), r, 0.8 * r),
        box((long, 0.1 * head, 0), (thick, 0.7 * head, thick)),
        rod((long, -0.2 * head, 0), (long, -0.55 * head, 0), 0.6 * thick),
    ]


def screwdriver(rng: Rng) -> list[Solid]:
    """A thick ribbed handle and a thin blade."""
    grip, r = rng.uniform(0.08, 0.1), rng.uniform(0.013, 0.018)
    blade, thin = rng.uniform(0.06, 0.1), rng.uniform(0.003, 0.0045)
    handle = solid(
        [(0.7 * r, 0), (r, 0.012), (r, 0.55 * grip), (0.68 * r, 0.75 * grip), (0.85 * r, grip)],
        (0, 0, 0),
        (1, 0, 0),
    )
    return [handle, rod((grip - 0.005, 0, 0), (grip + blade, 0, 0), thin)]


def spoon(rng: Rng) -> list[Solid]:
    """A cooking spoon: a stick and a thick oval."""
    long, wide = rng.uniform(0.11, 0.15), rng.uniform(0.018, 0.026)
    thick = rng.uniform(0.005, 0.007)
    a, t = 1.5 * wide, np.linspace(0, 2 * math.pi, 24, endpoint=False)
    oval = np.stack([long + 0.8 * a + a * np.cos(t), wide * np.sin(t)], axis=1)
    return [prism(oval, -thick, thick), *tube([(0, 0, 0), (long + 0.4 * a, 0, 0)], thick)]


def dumbbell(rng: Rng) -> list[Solid]:
    """Two weights on a bar."""
    r, wide = rng.uniform(0.022, 0.034), rng.uniform(0.018, 0.03)
    bar, gap = rng.uniform(0.009, 0.013), rng.uniform(0.05, 0.08)
    sides = int(rng.choice([6, 32]))
    out: list[Solid] = [rod((0, 0, -gap / 2 - wide / 2), (0, 0, gap / 2 + wide / 2), bar)]
    for low in (-gap / 2 - wide, gap / 2):
        out.append(prism(polygon(sides, r), low, low + wide))
    return out


def wrench(rng: Rng) -> list[Solid]:
    """A flat bar with open jaws at both ends."""
    long, thick = rng.uniform(0.1, 0.15), rng.uniform(0.01, 0.015)
    wide, jaw = rng.uniform(0.016, 0.022), rng.uniform(0.012, 0.016)
    out: list[Solid] = [box((0, 0, 0), (long, wide, thick))]
    for side in (-1, 1):
        x = side * long / 2
        out.append(box((x, 0, 0), (0.014, wide + 1.6 * jaw, thick)))
        for y in (-1, 1):
            at = (x + side * 0.012, y * (wide / 2 + 0.35 * jaw), 0)
            out.append(box(at, (0.026, 0.9 * jaw, thick), turn("z", -side * y * 12)))
    return out


def brush(rng: Rng) -> list[Solid]:
    """A block of bristles with a handle."""
    long, wide, tall = rng.uniform(0.05, 0.08), rng.uniform(0.025, 0.04), rng.uniform(0.025, 0.04)
    handle = rng.uniform(0.07, 0.11)
    return [
        box((0, 0, 0), (long, wide, tall)),
        box((0, 0, tall / 2 + 0.006), (long + 0.01, wide + 0.008, 0.014)),
        *tube(
            [(long / 2 - 0.01, 0, tall / 2 + 0.006), (long / 2 + handle, 0, tall / 2 + 0.012)],
            0.009,
        ),
    ]


def marker(rng: Rng) -> list[Solid]:
    """A thick pen with a cap."""
    r, long = rng.uniform(0.008, 0.013), rng.uniform(0.1, 0.14)
    cap = rng.uniform(0.3, 0.42) * long
    return [solid([(0.9 * r, 0), (r, 0.004), (r, long - cap), (1.18 * r, long - cap + 0.002),
                   (1.12 * r, long - 0.004), (0.7 * r, long)], (0, 0, 0), (1, 0, 0))]  # fmt: skip


def wine_glass(rng: Rng) -> list[Solid]:
    """Foot, stem and a hollow cup."""
    r, cup = rng.uniform(0.03, 0.038), rng.uniform(0.06, 0.08)
    stem, foot = rng.uniform(0.05, 0.07), rng.uniform(0.028, 0.034)
    base = solid([(foot, 0), (foot, 0.004), (0.006, 0.012), (0.005, stem), (0.014, stem + 0.006)])
    shape = [(0.012, 0), (0.8 * r, 0.25 * cup), (r, 0.55 * cup), (0.9 * r, cup)]
    return [base, vessel(shape, 0.0042, 0.008, (0, 0, stem))]


def pliers(rng: Rng) -> list[Solid]:
    """Two crossed levers with jaws."""
    grip, spread = rng.uniform(0.09, 0.11), rng.uniform(0.018, 0.026)
    out: list[Solid] = [rod((0, 0, -0.008), (0, 0, 0.008), 0.013)]
    for side in (-1.0, 1.0):
        out += tube(
            [(0, 0, 0), (-0.35 * grip, side * spread, 0), (-grip, 0.8 * side * spread, 0)], 0.007
        )
        out.append(box((0.028, side * 0.006, 0), (0.05, 0.011, 0.013), turn("z", side * 2)))
    return out


def key(rng: Rng) -> list[Solid]:
    """A large key: bow, shaft, bits."""
    r, long = rng.uniform(0.02, 0.027), rng.uniform(0.06, 0.09)
    thick = rng.uniform(0.004, 0.006)
    bow = ring([(r - 0.009, -thick), (r, -thick), (r, thick), (r - 0.009, thick)])
    out: list[Solid] = [bow, rod((r - 0.004, 0, 0), (r + long, 0, 0), thick)]
    for share in (0.75, 0.93):
        out.append(box((r + share * long, 0.009, 0), (0.009, 0.018, 2 * thick)))
    return out


def channel(rng: Rng) -> list[Solid]:
    """A length of U section."""
    long, wide = rng.uniform(0.08, 0.13), rng.uniform(0.04, 0.06)
    tall, thick = rng.uniform(0.03, 0.045), rng.uniform(0.006, 0.01)
    out: list[Solid] = [box((0, 0, thick / 2), (long, wide, thick))]
    for side in (-1, 1):
        out.append(box((0, side * (wide - thick) / 2, tall / 2), (long, thick, tall)))
    return out


def cross(rng: Rng) -> list[Solid]:
    """Three bars through one point, like a jack."""
    long, thick = rng.uniform(0.06, 0.085), rng.uniform(0.012, 0.02)
    return [
        box((0, 0, 0), tuple(long if axis == k else thick for axis in range(3)))  # type: ignore[arg-type]
        for k in range(3)
    ]


def drill(rng: Rng) -> list[Solid]:
    """A pistol-shaped tool."""
    r, long = rng.uniform(0.02, 0.026), rng.uniform(0.09, 0.12)
    grip = rng.uniform(0.07, 0.09)
    lean = turn("y", 12)
    return [
        rod((0, 0, 0), (long, 0, 0), r, 0.8 * r),
        rod((long - 0.01, 0, 0), (long + 0.035, 0, 0), 0.5 * r, 0.3 * r),
        box((0.025, 0, -grip / 2), (0.03, 0.026, grip), lean),
        box((0.02, 0, -grip), (0.06, 0.036, 0.022)),
    ]


def reel(rng: Rng) -> list[Solid]:
    """A spool: two flanges, a core, a bore."""
    r, tall = rng.uniform(0.026, 0.038), rng.uniform(0.045, 0.07)
    bore, core = rng.uniform(0.008, 0.012), rng.uniform(0.5, 0.65) * r
    out: list[Solid] = [
        ring([(bore, 0.002), (core, 0.002), (core, tall - 0.002), (bore, tall - 0.002)])
    ]
    for low in (0.0, tall - 0.008):
        out.append(ring([(bore, low), (r, low), (r, low + 0.008), (bore, low + 0.008)]))
    return out


def gear(rng: Rng) -> list[Solid]:
    """A toothed wheel on a hub."""
    r, thick = rng.uniform(0.025, 0.036), rng.uniform(0.012, 0.02)
    teeth = int(rng.integers(7, 11))
    out: list[Solid] = [
        rod((0, 0, 0), (0, 0, thick), r),
        rod((0, 0, 0), (0, 0, 2.2 * thick), 0.4 * r),
    ]
    for k in range(teeth):
        spin = turn("z", 360 * k / teeth)
        at = spin @ np.array([r + 0.003, 0, thick / 2])
        out.append(box((at[0], at[1], at[2]), (0.014, 0.009, thick), spin))
    return out


def stool(rng: Rng) -> list[Solid]:
    """A toy's table: a plate on four legs."""
    wide, deep = rng.uniform(0.05, 0.075), rng.uniform(0.04, 0.06)
    tall, leg = rng.uniform(0.05, 0.075), rng.uniform(0.009, 0.012)
    out: list[Solid] = [box((0, 0, tall), (wide, deep, 0.01))]
    for x in (-1, 1):
        for y in (-1, 1):
            at = (x * (wide - leg) / 2, y * (deep - leg) / 2, tall / 2)
            out.append(box(at, (leg, leg, tall)))
    return out


def padlock(rng: Rng) -> list[Solid]:
    """A block with a shackle."""
    wide, tall = rng.uniform(0.04, 0.055), rng.uniform(0.035, 0.05)
    deep, r = rng.uniform(0.018, 0.024), rng.uniform(0.0045, 0.006)
    reach = 0.3 * wide
    top = tall + rng.uniform(0.012, 0.02)
    shackle = [
        (-reach, 0.0, tall - 0.005),
        *arc((0, 0, top), reach, 180, 0, 7),
        (reach, 0.0, tall - 0.005),
    ]
    return [box((0, 0, tall / 2), (wide, deep, tall)), *tube(shackle, r)]


def bulb(rng: Rng) -> list[Solid]:
    """A light bulb."""
    r, neck = rng.uniform(0.026, 0.034), rng.uniform(0.011, 0.014)
    shape = [(0.5 * neck, 0), (neck, 0.005), (neck, 0.03), (1.3 * neck, 0.038)]
    middle = 0.038 + 1.1 * r
    for angle in (-35, -10, 15, 40, 60, 78):
        a = math.radians(angle)
        shape.append((r * math.cos(a), middle + r * math.sin(a)))
    return [solid(shape)]


def duck(rng: Rng) -> list[Solid]:
    """A bath toy: body, head, beak, tail."""
    r, head = rng.uniform(0.026, 0.034), rng.uniform(0.016, 0.021)
    up = 0.8 * r + 0.7 * head
    return [
        *tube([(-0.35 * r, 0, 0), (0.35 * r, 0, 0)], r),
        *tube([(0.6 * r, 0, up), (0.62 * r, 0, up)], head),
        rod((0.6 * r + 0.7 * head, 0, up), (0.6 * r + 1.5 * head, 0, up - 0.2 * head), 0.4 * head,
            0.2 * head),
        *tube([(-1.0 * r, 0, 0.3 * r), (-1.5 * r, 0, 0.75 * r)], 0.3 * r),
    ]  # fmt: skip
