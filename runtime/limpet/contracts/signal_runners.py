"""What runs the steps of a signal chain, over streams side by side.

Dimension legend: b streams, n rows (samples in time), c channels, m frames, f features of a frame.

A runner has constants only. What it remembers of each stream is a row of a `memory` (b, `size`),
which it changes in place, so that streams that meet in one call may have met others before. Every
number depends on its own stream alone, bit for bit: sums go in the order of time.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.signal_steps import (
    LEVEL_FRAMES,
    BandEnergies,
    Clip,
    SignalStep,
    Standardize,
    StreamBaseline,
)
from limpet.contracts.signals import Flags, Float64

_LEAST_POWER = 1e-12
"""Added to a band's power: silence has a logarithm too."""


class BandFilter:
    """Cuts rows into frames and transforms them. (b, n, c) → (b, m, c · bands)"""

    def __init__(self, step: BandEnergies, channels: int) -> None:
        self.step, self._channels = step, channels
        self._window = np.hanning(step.frame_rows + 1)[:-1, None]  # periodic
        bins = step.frame_rows // 2 + 1
        edges = np.geomspace(2, bins, step.bands + 1).round().astype(int)
        # A band of its own for each bin where they would share one.
        edges = np.maximum(edges, 2 + np.arange(step.bands + 1))
        self._edges = np.minimum(edges, bins - step.bands + np.arange(step.bands + 1))
        self._kept = (step.frame_rows - 1) * channels
        self.size = 2 * self._kept  # rows that no frame has passed yet, and which were present

    def __call__(
        self, x: Float64, present: Flags, memory: Float64, waiting: int
    ) -> tuple[Float64, Flags, NDArray[np.intp]]:
        """Features, which of them are present, and the row that each frame ends with.

        Args:
            x: The next rows. (b, n, c)
            present: Which values are. (b, n, c)
            memory: (b, `size`)
            waiting: Rows in the memory.
        """
        step, shape = self.step, (len(x), self.step.frame_rows - 1, self._channels)
        kept_x = memory[:, : self._kept].reshape(shape)
        kept_present = memory[:, self._kept :].reshape(shape)
        rows = np.concatenate([kept_x[:, :waiting], x], axis=1)
        measured = np.concatenate([kept_present[:, :waiting] > 0, present], axis=1)
        count = max(0, (rows.shape[1] - step.frame_rows) // step.hop_rows + 1)
        features = np.empty((len(x), count, self._channels * step.bands))
        whole = np.empty(features.shape, bool)
        for frame in range(count):
            part = slice(frame * step.hop_rows, frame * step.hop_rows + step.frame_rows)
            spectrum = np.fft.rfft(rows[:, part] * self._window, axis=1)  # (b, bins, c)
            power = np.square(np.abs(spectrum))
            power = np.add.reduceat(power, self._edges[:-1], axis=1)  # the last band to the end
            power = np.log10(power / step.frame_rows + _LEAST_POWER)  # (b, bands, c)
            features[:, frame] = power.transpose(0, 2, 1).reshape(len(x), -1)
            whole[:, frame] = np.repeat(measured[:, part].all(axis=1), step.bands, axis=1)
        ends = np.arange(count) * step.hop_rows + step.frame_rows - 1 - waiting
        left = rows.shape[1] - count * step.hop_rows
        kept_x[:, :left] = rows[:, count * step.hop_rows :]
        kept_present[:, :left] = measured[:, count * step.hop_rows :]
        return features, whole, ends


class Runner(Protocol):
    """Runs a step that takes each frame by itself or with those before it.

    Attributes:
        size: Numbers that it remembers of a stream; all are 0 where one begins.
    """

    size: int

    def __call__(self, x: Float64, present: Flags, memory: Float64, seen: int, /) -> Float64:
        """Takes the next frames, of which some values may be absent.

        Args:
            x: (b, m, f)
            present: (b, m, f)
            memory: (b, `size`)
            seen: Frames before these, modulo `LEVEL_FRAMES`.
        """
        ...


class Affine:
    """Runs `Standardize`."""

    size = 0

    def __init__(self, step: Standardize) -> None:
        self._mean, self._scale = np.array(step.mean), np.array(step.scale)

    def __call__(self, x: Float64, _: Flags, __: Float64, ___: int, /) -> Float64:
        """See `Runner`."""
        return np.asarray((x - self._mean) / self._scale)


class Limit:
    """Runs `Clip`."""

    size = 0

    def __init__(self, step: Clip) -> None:
        self._limit = step.limit

    def __call__(self, x: Float64, _: Flags, __: Float64, ___: int, /) -> Float64:
        """See `Runner`."""
        return np.minimum(np.maximum(x, -self._limit), self._limit)  # np.clip takes 10 µs more


class Baseline:
    """Runs `StreamBaseline`: a winsorised exponential moving mean, moved block by block."""

    def __init__(self, step: StreamBaseline) -> None:
        self._decay = float(np.exp(-1.0 / step.time_constant_frames)) ** LEVEL_FRAMES
        self._scale, self._adapts = np.array(step.scale), np.array(step.adapts, bool)
        self._divide = np.where(self._adapts, self._scale, 1.0)
        self._settling, self._most = step.settling_frames, step.influence * self._scale
        self._features = len(step.scale)
        self.size = (5 + LEVEL_FRAMES) * self._features

    def __call__(self, x: Float64, present: Flags, memory: Float64, seen: int, /) -> Float64:
        """See `Runner`."""
        # Views, (b, f) each.
        parts = memory.reshape(len(x), 5 + LEVEL_FRAMES, self._features).swapaxes(0, 1)
        level, has_level, measured, weight, count = parts[:5]
        deltas = parts[5:]  # (8, b, f)
        relative = np.empty_like(x)
        start, stop = 0, LEVEL_FRAMES - seen
        while start < x.shape[1]:
            block, here = x[:, start:stop], present[:, start:stop]
            self._begin_levels(block, here, level, has_level)
            delta = block - level[:, None]
            if not here.all():
                delta[~here] = 0.0
            np.divide(delta, self._divide, out=relative[:, start:stop])
            settled = measured >= self._settling  # (b, f)
            if settled.any():
                limited = np.minimum(np.maximum(delta, -self._most), self._most)
                delta = np.where(settled[:, None], limited, delta)
            in_block = block.shape[1]
            deltas[seen : seen + in_block] = delta.swapaxes(0, 1)
            count += here.sum(axis=1)
            if seen + in_block == LEVEL_FRAMES:
                self._move(level, measured, weight, count, deltas)
            seen = 0
            start, stop = stop, stop + LEVEL_FRAMES
        return relative

    def _begin_levels(
        self, block: Float64, present: Flags, level: Float64, has_level: Float64
    ) -> None:
        """A feature's first value is its first level."""
        lacks = self._adapts & (has_level == 0.0)
        if not lacks.any():
            return
        new = lacks & present.any(axis=1)
        first = np.take_along_axis(block, present.argmax(axis=1)[:, None], 1)[:, 0]
        level[new], has_level[new] = first[new], 1.0

    def _move(
        self,
        level: Float64,
        measured: Float64,
        weight: Float64,
        count: Float64,
        deltas: Float64,
    ) -> None:
        weight *= self._decay
        weight += count
        total = np.add.accumulate(deltas)[-1]  # one after another, whatever the shape: (b, f)
        moves = self._adapts & (weight > 0.0)
        level += np.divide(total, weight, out=np.zeros_like(total), where=moves)
        measured += count
        count[:] = 0.0


def runner_of(step: SignalStep) -> Runner:
    """What runs a step that takes each frame by itself or with those before it."""
    if isinstance(step, Standardize):
        return Affine(step)
    if isinstance(step, Clip):
        return Limit(step)
    assert isinstance(step, StreamBaseline)  # `check_chain` refuses others here
    return Baseline(step)
