"""Anomalies injected into normal windows, the negatives of the contrastive loss.

Dimension legend: b windows, w rows, c channels.

Every anomaly reaches the window's last row, as on a stream the newest row is the one in question,
and touches a random subset of the channels. All kinds are computed for all windows and one is
picked each: the work is small beside the encoder's, and a loop over windows is ten times slower.
"""

from __future__ import annotations

import enum

import numpy as np

from limpet.contracts.signals import Float32, Float64


class Injection(enum.IntEnum):
    """Kinds of anomaly."""

    SPIKE = 0
    """One to three rows displaced."""
    LEVEL_SHIFT = 1
    """A stretch displaced."""
    DRIFT = 2
    """A displacement that grows row by row."""
    NOISE = 3
    """White noise on top."""
    FREEZE = 4
    """A value that stands still."""
    SCALE = 5
    """Deviations from the stretch's mean grown or shrunk, 1.5 to 6 times."""
    FOREIGN = 6
    """A stretch of another time, channels exchanged, sometimes reversed."""
    FREQUENCY = 7
    """Time running 1.5 to 3 times faster or slower."""


SHORTEST_STRETCH_ROWS = 4


def inject(
    windows: Float32,
    pool: Float32,
    rng: np.random.Generator,
    *,
    weakest: float,
    strongest: float,
    kinds: tuple[Injection, ...] = tuple(Injection),
) -> Float32:
    """Puts one anomaly into each window.

    Args:
        windows: Prepared normal windows, about unit variance a channel. (b, w, c)
        pool: Prepared normal windows to take foreign stretches from. (m, w, c)
        rng: All randomness comes from here.
        weakest: Smallest displacement, in standard deviations; drawn log-uniformly.
        strongest: Largest displacement.
        kinds: Kinds to choose from.

    Returns:
        New windows. (b, w, c)
    """
    b, w, c = windows.shape
    kind = rng.choice(np.array(kinds), b)
    rows, starts = _stretches(kind, b, w, rng)
    channels = _channel_subsets(b, c, rng)
    row = np.arange(w)[None, :, None]  # (1, w, 1)
    start = starts[:, None, None]  # (b, 1, 1)
    magnitude = np.exp(rng.uniform(np.log(weakest), np.log(strongest), (b, 1, c)))
    displacement = magnitude * rng.choice([-1.0, 1.0], (b, 1, c))
    ramp = (row - start + 1) / rows[:, None, None]  # (b, w, 1), 1 at the last row
    noise = 0.7 * magnitude * rng.standard_normal((b, w, c))
    first = np.take_along_axis(windows, np.broadcast_to(start, (b, 1, c)), 1)  # (b, 1, c)
    changed = {
        Injection.SPIKE: windows + displacement,
        Injection.LEVEL_SHIFT: windows + displacement,
        Injection.DRIFT: windows + displacement * ramp,
        Injection.NOISE: windows + noise,
        Injection.FREEZE: np.broadcast_to(first, (b, w, c)),
        Injection.SCALE: _scaled(windows, row >= start, rng),
        Injection.FOREIGN: _foreign(pool, b, rng),
        Injection.FREQUENCY: _resampled(windows, rng),
    }
    anomalous = np.asarray(windows, np.float64)
    for candidate in kinds:
        here = (kind == candidate)[:, None, None] & (row >= start) & channels
        anomalous = np.where(here, changed[candidate], anomalous)
    return anomalous.astype(np.float32)


def _stretches(
    kind: np.ndarray[tuple[int], np.dtype[np.int64]], b: int, w: int, rng: np.random.Generator
) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Number of rows and first row of each anomaly. (b,), (b,)"""
    shortest = min(SHORTEST_STRETCH_ROWS, w)
    rows = np.exp(rng.uniform(np.log(shortest), np.log(w + 0.99), b)).astype(np.intp)
    rows = np.where(kind == Injection.SPIKE, rng.integers(1, min(4, w + 1), b), rows)
    rows = np.clip(rows, 1, w)
    return rows, w - rows


def _channel_subsets(
    b: int, c: int, rng: np.random.Generator
) -> np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]:
    """Between one and all channels of each window. (b, 1, c)"""
    count = rng.integers(1, c + 1, b)
    rank = rng.random((b, c)).argsort(axis=1).argsort(axis=1)
    subsets: np.ndarray[tuple[int, int, int], np.dtype[np.bool_]] = (rank < count[:, None])[:, None]
    return subsets


def _scaled(
    windows: Float32,
    stretch: np.ndarray[tuple[int, int, int], np.dtype[np.bool_]],
    rng: np.random.Generator,
) -> Float64:
    b = len(windows)
    gain = np.exp(rng.choice([-1.0, 1.0], (b, 1, 1)) * rng.uniform(0.4, 1.8, (b, 1, 1)))
    mean = (windows * stretch).sum(1, keepdims=True) / stretch.sum(1, keepdims=True)
    return np.asarray(mean + gain * (windows - mean))


def _foreign(pool: Float32, b: int, rng: np.random.Generator) -> Float32:
    other = pool[rng.integers(0, len(pool), b)]  # (b, w, c)
    order = rng.random((b, other.shape[2])).argsort(axis=1)[:, None, :]
    other = np.take_along_axis(other, np.broadcast_to(order, other.shape), 2)
    reverse = (rng.random(b) < 0.3)[:, None, None]
    return np.where(reverse, other[:, ::-1], other)


def _resampled(windows: Float32, rng: np.random.Generator) -> Float64:
    """The past before the last row, replayed faster (standing still where it ends) or slower."""
    b, w, _ = windows.shape
    speed = np.exp(rng.choice([-1.0, 1.0], b) * rng.uniform(0.4, 1.1, b))
    position = np.clip(w - 1 - (w - 1 - np.arange(w)) * speed[:, None], 0, w - 1)  # (b, w)
    below = np.floor(position).astype(np.intp)
    above = np.minimum(below + 1, w - 1)
    weight = (position - below)[:, :, None]
    at_below = np.take_along_axis(windows, below[:, :, None], 1)
    at_above = np.take_along_axis(windows, above[:, :, None], 1)
    return np.asarray(at_below * (1 - weight) + at_above * weight)
