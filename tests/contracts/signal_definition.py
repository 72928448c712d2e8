"""What a signal chain means, one row at a time: slow, and not like the implementation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.signal_steps import (
    LEVEL_FRAMES,
    BandEnergies,
    Clip,
    HoldLast,
    LookBack,
    SignalStep,
    Standardize,
    StreamBaseline,
)
from limpet.contracts.signals import RowState


class Level:
    """A feature's level from its definition: a weighted mean of all values that counted."""

    def __init__(self, step: StreamBaseline, feature: int) -> None:
        self._scale, self._step = step.scale[feature], step
        self._first = 0.0
        self._counted: list[tuple[int, float]] = []  # block and value

    def relative(self, value: float, frame: int) -> float:
        """A measured value relative to the level of its block, then it counts."""
        block = frame // LEVEL_FRAMES
        before = [(b, v) for b, v in self._counted if b < block]
        if not self._counted:
            self._first = value
        if before:
            ages = [LEVEL_FRAMES * (block - 1 - b) for b, _ in before]
            weights = [math.exp(-age / self._step.time_constant_frames) for age in ages]
            level = sum(w * v for w, (_, v) in zip(weights, before, strict=True)) / sum(weights)
        else:
            level = self._first
        delta, most = value - level, self._step.influence * self._scale
        settled = len(before) >= self._step.settling_frames
        self._counted.append((block, level + min(max(delta, -most), most) if settled else value))
        return delta / self._scale


def band_edges(step: BandEnergies) -> list[int]:
    """First bin of each band and the bin after the last: each band has one bin at least."""
    bins = step.frame_rows // 2 + 1
    edges = [2]
    for band in range(1, step.bands + 1):
        ideal = round(2 * (bins / 2) ** (band / step.bands))
        edges.append(min(max(ideal, edges[-1] + 1, 2 + band), bins - (step.bands - band)))
    return edges


def band_energies(step: BandEnergies, values: Sequence[float]) -> list[float]:
    """Of one channel's frame, by the sums that define the Fourier transform."""
    n = step.frame_rows
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * i / n) for i in range(n)]
    weighted = [w * v for w, v in zip(hann, values, strict=True)]
    power = []
    for k in range(n // 2 + 1):
        angles = [2 * math.pi * k * i / n for i in range(n)]
        real = sum(v * math.cos(a) for v, a in zip(weighted, angles, strict=True))
        imaginary = sum(v * math.sin(a) for v, a in zip(weighted, angles, strict=True))
        power.append(real * real + imaginary * imaginary)
    edges = band_edges(step)
    return [math.log10(sum(power[a:b]) / n + 1e-12) for a, b in itertools.pairwise(edges)]


class Naive:
    """A chain run over one stream."""

    def __init__(self, chain: Sequence[SignalStep], channels: int) -> None:
        hold, self.steps, look_back = chain[0], list(chain[1:-1]), chain[-1]
        assert isinstance(hold, HoldLast)
        assert isinstance(look_back, LookBack)
        self.max_rows, self.look_back = hold.max_rows, look_back.frames
        self.bands = None
        if self.steps and isinstance(self.steps[0], BandEnergies):
            self.bands = self.steps.pop(0)
        self.frame_rows = self.bands.frame_rows if self.bands else 1
        self.hop_rows = self.bands.hop_rows if self.bands else 1
        settling = [s.settling_frames for s in self.steps if isinstance(s, StreamBaseline)]
        self.first_scored = max([self.look_back, *settling])
        self.channels = channels
        self.last = [0.0] * channels
        self.missing = [math.inf] * channels
        self.states: list[RowState] = []
        self.frames: list[tuple[list[float], list[bool], int, bool, bool]] = []
        self.begin()

    def begin(self) -> None:
        """A stream of its own begins."""
        self.rows: list[tuple[list[float], list[bool], bool]] = []  # values, present, any filled
        self.spans: list[int] = []  # first row of each frame of this stream
        features = self.channels * (self.bands.bands if self.bands else 1)
        baselines = [s for s in self.steps if isinstance(s, StreamBaseline)]
        self.levels = [[Level(step, i) for i in range(features)] for step in baselines]

    def take(self, index: int, row: NDArray[np.float64]) -> None:
        measured = [bool(abs(value) < 1e39) for value in row]
        for i, value in enumerate(row):
            self.last[i] = float(value) if measured[i] else self.last[i]
            self.missing[i] = 0 if measured[i] else self.missing[i] + 1
        present = [missing <= self.max_rows for missing in self.missing]
        if not any(present):
            self.states.append(RowState.HOLE)
            self.begin()
            return
        self.rows.append((list(self.last), present, not all(measured)))
        start = len(self.rows) - self.frame_rows
        if start >= 0 and start % self.hop_rows == 0:
            self.make_frame(start, index)
        self.states.append(self.state())

    def make_frame(self, start: int, index: int) -> None:
        rows = self.rows[start:]
        x, present = [], []
        for i in range(self.channels):
            values = [values[i] for values, _, _ in rows]
            whole = all(flags[i] for _, flags, _ in rows)
            energies = band_energies(self.bands, values) if self.bands else values
            x += energies
            present += [whole] * len(energies)
        number, levels = len(self.spans), iter(self.levels)
        for step in self.steps:
            if isinstance(step, Clip):
                x = [min(max(value, -step.limit), step.limit) for value in x]
            elif isinstance(step, Standardize):
                x = [(v - m) / s for v, m, s in zip(x, step.mean, step.scale, strict=True)]
            else:
                assert isinstance(step, StreamBaseline)
                for i, level in enumerate(next(levels)):
                    if present[i] and step.adapts[i]:
                        x[i] = level.relative(x[i], number)
        self.spans.append(start)
        x = [value if here else 0.0 for value, here in zip(x, present, strict=True)]
        self.frames.append((x, present, index, number == 0, number + 1 >= self.first_scored))

    def state(self) -> RowState:
        if len(self.spans) < self.first_scored:
            return RowState.WARMING_UP
        if not all(all(present) for _, present, _ in self.rows[self.spans[-1] :]):
            return RowState.PARTIAL
        looked_back_on = self.rows[self.spans[-self.look_back] :]
        filled = any(filled for _, _, filled in looked_back_on)
        return RowState.FILLED if filled else RowState.SCORED
