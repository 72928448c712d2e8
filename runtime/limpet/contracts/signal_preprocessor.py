"""Causal preprocessing of multi-channel signals: one implementation for training and robot.

Dimension legend: b streams, n rows (samples in time), c channels, m frames (rows of model input),
f features of a frame, s numbers that a chain remembers of a stream.

A bundle's manifest carries the chain as data (`signal_steps`); `SignalPreprocessor` runs it.
Every step is causal, so any chunking of a recording gives the same numbers. A frame is a row, or
with `BandEnergies` what a stretch of fast rows comes to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from limpet.contracts.errors import TensorError
from limpet.contracts.signal_runners import BandFilter, Runner, runner_of
from limpet.contracts.signal_steps import (
    LEVEL_FRAMES,
    BandEnergies,
    HoldLast,
    LookBack,
    SignalStep,
    StreamBaseline,
    check_chain,
    features_of,
)
from limpet.contracts.signals import Flags, Float32, Float64, Prepared, RowState, States

_LARGEST = float(np.finfo(np.float32).max)
"""Largest magnitude that counts as measured: what follows is float32, and sums of squares."""
_LONG_AGO = -(2.0**52)
"""A row before all that a score can look back on."""
_NEW_STREAM = (0.0, 0.0, _LONG_AGO, _LONG_AGO)
"""Rows and frames seen, the latest row with a held value, the latest without a channel."""
_COUNTERS = len(_NEW_STREAM)


class SignalPreprocessor:
    """Runs a chain of steps over one stream, keeping what it remembers between chunks.

    Args:
        steps: The chain. It begins with its only `HoldLast`, `BandEnergies` may follow, and it ends
            with its only `LookBack`.
        channels: Number of channels c.

    Raises:
        TensorError: The chain is not of that form, a step has another number of features, or a
            setting is out of range.
    """

    def __init__(self, steps: Sequence[SignalStep], channels: int) -> None:
        check_chain(steps, channels)
        first, *middle, last = steps
        assert isinstance(first, HoldLast)
        assert isinstance(last, LookBack)
        self._hold, self._look_back, self.channels = first, last, channels
        self._bands: BandFilter | None = None
        if middle and isinstance(middle[0], BandEnergies):
            self._bands, middle = BandFilter(middle[0], channels), middle[1:]
        self._frame_rows = self._bands.step.frame_rows if self._bands else 1
        self._hop_rows = self._bands.step.hop_rows if self._bands else 1
        self.features = features_of(steps, channels)
        settling = [s.settling_frames for s in middle if isinstance(s, StreamBaseline)]
        self._first_scored = max([last.frames, *settling])
        """Frames of a stream up to its first score, that frame included."""
        # What is remembered is one vector: last value and missing rows of each channel, counters,
        # then what bands and runners remember.
        self._counters = slice(2 * channels, 2 * channels + _COUNTERS)
        size = self._counters.stop
        self._bands_memory = slice(size, size + (self._bands.size if self._bands else 0))
        size = self._bands_memory.stop
        self._runners: list[tuple[Runner, slice]] = []
        for runner in map(runner_of, middle):
            self._runners.append((runner, slice(size, size + runner.size)))
            size += runner.size
        self._memory: Float64 = np.empty(size)
        self.reset()

    @property
    def warm_up_rows(self) -> int:
        """Rows before the first score."""
        return self._rows_of(self._first_scored) - 1

    @property
    def look_back_frames(self) -> int:
        """Frames that a score depends on."""
        return self._look_back.frames

    @property
    def longest_fill_rows(self) -> int:
        """Longest run of missing rows that is filled rather than treated as a hole."""
        return self._hold.max_rows

    def _rows_of(self, frames: int) -> int:
        """Rows that so many frames span."""
        return self._frame_rows + (frames - 1) * self._hop_rows

    def reset(self) -> None:
        """Forgets the stream: the next row is the first."""
        self._memory[: self.channels] = 0.0
        self._memory[self.channels : 2 * self.channels] = self._hold.max_rows + 1  # never measured
        self._start_anew(self._memory[None])
        self._phase = (0, 0)

    def _start_anew(self, memory: Float64) -> None:
        """Begins new streams; what the channels last measured is kept. (b, s)"""
        memory[:, self._counters.start :] = 0.0
        memory[:, self._counters] = _NEW_STREAM

    def push(self, values: NDArray[np.floating]) -> Prepared:
        """Takes the next rows of the stream.

        Args:
            values: Rows in the channels' own units; NaN or infinite where missing. (n, c)

        Raises:
            TensorError: Not a two-dimensional floating array of c channels.
        """
        return prepare_together([self], [values])[0]

    def _check(self, values: NDArray[np.floating]) -> None:
        if values.ndim != 2 or values.shape[1] != self.channels or values.dtype.kind != "f":
            raise TensorError(
                f"signal is {values.dtype} {list(values.shape)}, "
                f"wanted floating [rows, {self.channels}]"
            )

    def _push(self, members: Sequence[SignalPreprocessor], x: Float64) -> list[Prepared]:
        """The next rows (b, n, c) of streams in the same phase, each with its own `members`."""
        memory = np.concatenate([each._memory for each in members]).reshape(len(members), -1)
        x, filled, present = self._fill(x, memory)
        alive: Flags = np.any(present, axis=2)
        whole = alive.all(axis=1) if x.shape[1] else np.zeros(len(x), bool)
        found: list[Prepared] = []
        if whole.all():
            found = self._run(x, filled, present, memory)
        else:  # each by itself: where a stream has holes, it may start anew several times
            for i, each in enumerate(members):
                one, of = memory[i : i + 1], slice(i, i + 1)
                found.append(self._run_stretches(x[of], filled[of], present[of], alive[i], one))
                each._memory[:] = one[0]
                each._phase = self._phase_of(one[0])
            return found
        phase = self._phase_of(memory[0])
        for each, remembered in zip(members, memory, strict=True):
            each._memory[:] = remembered
            each._phase = phase
        return found

    def _phase_of(self, memory: Float64) -> tuple[int, int]:
        """Streams of one phase and chunks of one length have their frames at the same rows, and
        their levels move at the same frames: rows that wait for a frame, frames modulo a block.
        """
        rows, frames = int(memory[self._counters.start]), int(memory[self._counters.start + 1])
        return (rows - frames * self._hop_rows if self._bands else 0), frames % LEVEL_FRAMES

    def _fill(self, x: Float64, memory: Float64) -> tuple[Float64, Flags, Flags]:
        """Holds the last finite value; returns rows, rows with a held value, present values."""
        last, missing_rows = memory[:, : self.channels], memory[:, self.channels :]
        missing_rows = missing_rows[:, : self.channels]
        finite: Flags = np.asarray(np.abs(x) <= _LARGEST)  # False for NaN
        if finite.all():
            if x.shape[1]:
                last[:], missing_rows[:] = x[:, -1], 0.0
            return x, np.zeros(x.shape[:2], bool), finite
        rows = np.arange(x.shape[1])[:, None]
        latest = np.maximum.accumulate(np.where(finite, rows, -1), axis=1)  # (b, n, c)
        held = np.where(latest >= 0, np.take_along_axis(x, np.maximum(latest, 0), 1), last[:, None])
        missing = np.where(latest >= 0, rows - latest, missing_rows[:, None] + rows + 1)
        last[:], missing_rows[:] = held[:, -1], missing[:, -1]
        filled: Flags = ~np.all(finite, axis=2)
        return held, filled, missing <= self._hold.max_rows

    def _run_stretches(
        self, x: Float64, filled: Flags, present: Flags, alive: Flags, memory: Float64
    ) -> Prepared:
        """One stream, which starts anew after each hole. (1, n, c), alive (n,)"""
        states = np.full(len(alive), RowState.HOLE, np.uint8)
        parts = []
        edges = np.flatnonzero(np.diff(alive, prepend=False, append=False)).tolist()
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            if start > 0:
                self._start_anew(memory)
            here = slice(start, stop)
            (part,) = self._run(x[:, here], filled[:, here], present[:, here], memory)
            states[here] = part.states
            parts.append(replace(part, ends=part.ends + start))
        if len(alive) and not alive[-1]:
            self._start_anew(memory)
        if len(parts) == 1:
            return replace(parts[0], states=states)
        frames = np.zeros((0, self.features), np.float32)
        flags = np.zeros(0, bool)
        return Prepared(
            states,
            np.concatenate([frames, *(part.frames for part in parts)]),
            np.concatenate([frames, *(part.present for part in parts)]),
            np.concatenate([np.zeros(0, np.intp), *(part.ends for part in parts)]),
            np.concatenate([flags, *(part.begins for part in parts)]),
            np.concatenate([flags, *(part.scored for part in parts)]),
        )

    def _run(self, x: Float64, filled: Flags, present: Flags, memory: Float64) -> list[Prepared]:
        """Rows without holes, at least one, of streams in the same phase. (b, n, c)"""
        waiting, seen = self._phase_of(memory[0])
        frames_before = memory[:, self._counters.start + 1].astype(np.int64)  # (b,)
        states = self._states(filled, present, memory)
        ends = np.arange(x.shape[1])
        if self._bands:
            x, present, ends = self._bands(x, present, memory[:, self._bands_memory], waiting)
        for runner, part in self._runners:
            x = runner(x, present, memory[:, part], seen)
        memory[:, self._counters.start + 1] += x.shape[1]
        if present.all():
            frames, measured = x.astype(np.float32), np.ones(x.shape, np.float32)
        else:
            frames = np.where(present, x, 0.0).astype(np.float32)
            measured = present.astype(np.float32)
        number = frames_before[:, None] + np.arange(x.shape[1])  # (b, m)
        begins, scored = number == 0, number + 1 >= self._first_scored
        return [
            Prepared(*of_one)
            for of_one in zip(
                states, frames, measured, [ends] * len(x), begins, scored, strict=True
            )
        ]

    def _states(self, filled: Flags, present: Flags, memory: Float64) -> States:
        """States of rows without holes. (b, n)"""
        counters = memory[:, self._counters]
        seen, _, filled_before, partial_before = counters.astype(np.int64).T[:, :, None]  # (b, 1)
        rows = seen + np.arange(filled.shape[1])  # of the stream: (b, n)
        newest = rows - (rows + 1 - self._frame_rows) % self._hop_rows  # last row of newest frame
        oldest = newest + 1 - self._rows_of(self._look_back.frames)
        filled_row = _latest(rows, filled, filled_before)
        partial: Flags = ~np.all(present, axis=2)
        partial_row = _latest(rows, partial, partial_before)
        states = np.where(filled_row >= oldest, RowState.FILLED, RowState.SCORED).astype(np.uint8)
        states[partial_row > newest - self._frame_rows] = RowState.PARTIAL
        states[rows < self.warm_up_rows] = RowState.WARMING_UP
        counters[:, 2], counters[:, 3] = filled_row[:, -1], partial_row[:, -1]
        counters[:, 0] += filled.shape[1]
        return states


def _latest(rows: NDArray[np.int64], flags: Flags, before: NDArray[np.int64]) -> NDArray[np.int64]:
    """The latest row, up to each of `rows`, whose flag is set. (b, n), before (b, 1)"""
    if not flags.any():
        return np.broadcast_to(before, rows.shape)
    return np.maximum.accumulate(np.where(flags, rows, before), axis=1)


def prepare_together(
    preprocessors: Sequence[SignalPreprocessor], values: Sequence[NDArray[np.floating]]
) -> list[Prepared]:
    """Takes the next rows of several streams, with the same results as one after another.

    Arrays of many streams cost little more than those of one. Those that come out are views of
    what the streams share.

    Args:
        preprocessors: Different ones, of one chain.
        values: As `SignalPreprocessor.push` takes them, for each. (n, c)

    Raises:
        TensorError: As there; nothing has changed.
    """
    groups: dict[tuple[int, tuple[int, int]], list[int]] = {}
    for i, (each, rows) in enumerate(zip(preprocessors, values, strict=True)):
        each._check(rows)
        groups.setdefault((len(rows), each._phase), []).append(i)
    found: list[Prepared | None] = [None] * len(values)
    for (count, _), indices in groups.items():
        first = preprocessors[indices[0]]
        x = np.empty((len(indices), count, first.channels))  # (b, n, c)
        for place, i in enumerate(indices):
            x[place] = values[i]
        prepared = first._push([preprocessors[i] for i in indices], x)
        for i, each_prepared in zip(indices, prepared, strict=True):
            found[i] = each_prepared
    return [each for each in found if each is not None]


def prepare_stretches(steps: Sequence[SignalStep], rows: NDArray[np.floating]) -> Float32:
    """Prepares separate stretches of rows, each as if it were a stream up to its first score.

    Args:
        steps: The chain, which looks back on l frames.
        rows: In the channels' own units, all finite; n is `warm_up_rows` + 1. (b, n, c)

    Returns:
        Model input: the last l frames of each. (b, l, f)

    Raises:
        TensorError: Another shape than the chain's, or a value that is not finite.
    """
    if rows.ndim != 3:
        raise TensorError(f"rows have shape {list(rows.shape)}, wanted [stretches, rows, channels]")
    preprocessor = SignalPreprocessor(steps, rows.shape[2])
    if rows.shape[1] != preprocessor.warm_up_rows + 1:
        raise TensorError(
            f"{rows.shape[1]} rows, wanted the {preprocessor.warm_up_rows + 1} up to a first score"
        )
    if not (np.abs(rows) <= _LARGEST).all():
        raise TensorError("NaN or infinite values among the rows, which no score may hide")
    look_back = preprocessor.look_back_frames
    frames = np.empty((len(rows), look_back, preprocessor.features), np.float32)
    streams = [SignalPreprocessor(steps, rows.shape[2]) for _ in rows]
    for index, prepared in enumerate(prepare_together(streams, list(rows))):
        frames[index] = prepared.frames[-look_back:]
    return frames
