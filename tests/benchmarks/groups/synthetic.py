"""A machine of six channels, and eight faults of it. Dimension legend: n rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_MIX = np.array(
    [
        [1.0, 0.3, 0.8, 0.2], [0.2, 1.0, 0.5, 0.5], [0.7, 0.1, 0.1, 1.0],
        [0.1, 0.6, -0.6, 0.4], [0.5, -0.5, 0.3, -0.7], [0.0, 0.9, -0.2, -0.9],
    ]
)  # fmt: skip


def machine(rng: np.random.Generator, n: int) -> Values:
    """Two rhythms and two slow random causes, mixed into six channels at their own level. (n, 6)"""
    t = np.arange(n)
    rhythms = [np.sin(2 * np.pi * (t / period + rng.random())) for period in (37, 11)]
    slow = np.zeros((n, 2))
    for i in range(1, n):
        slow[i] = 0.97 * slow[i - 1] + 0.25 * rng.normal(size=2)
    mixed = np.column_stack([*rhythms, slow]) @ _MIX.T
    return np.asarray(mixed + rng.normal(0.0, 1.0, 6) + 0.25 * rng.normal(size=(n, 6)))


def _moved(channels: list[int], by: float) -> Callable[..., Values]:
    def change(x: Values, gain: float, rng: np.random.Generator) -> Values:
        x[:, channels] += by * gain
        return x

    return change


def _noisy(x: Values, gain: float, rng: np.random.Generator) -> Values:
    x[:, 1] += 2.0 * gain * rng.normal(size=len(x))
    return x


def _drifting(x: Values, gain: float, rng: np.random.Generator) -> Values:
    x[:, 2:4] += np.minimum(1.0, np.arange(len(x)) / 40)[:, None] * [4.0 * gain, -4.0 * gain]
    return x


def _reversed(x: Values, gain: float, rng: np.random.Generator) -> Values:
    x[:, 4] = x[:, 4].mean() - gain * (x[:, 4] - x[:, 4].mean()) + 1.5 * gain
    return x


def _whistling(x: Values, gain: float, rng: np.random.Generator) -> Values:
    x[:, 4] += 2.5 * gain * np.sin(2 * np.pi * np.arange(len(x)) / 5)
    return x


def _stuck(x: Values, gain: float, rng: np.random.Generator) -> Values:
    x[:, 5] = x[0, 5]
    return x


def _amplified(x: Values, gain: float, rng: np.random.Generator) -> Values:
    x[:, 3] = x[:, 3].mean() + (1.0 + 2.0 * gain) * (x[:, 3] - x[:, 3].mean())
    return x


FAULTS: dict[str, Callable[..., Values]] = {
    "offset": _moved([0], 3.0), "supply": _moved([0, 1, 2], -2.5), "noise": _noisy,
    "drift": _drifting, "reversed": _reversed, "whistle": _whistling, "stuck": _stuck,
    "amplified": _amplified,
}  # fmt: skip
"""What each does to the rows (n, 6) from its beginning on, by its gain."""
