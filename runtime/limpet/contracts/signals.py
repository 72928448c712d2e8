"""Causal preprocessing of multi-channel signals: one implementation for training and robot.

Dimension legend: n rows (samples in time), c channels, m frames (rows of model input), f features
of a frame.

A bundle's manifest carries the chain as data (`signal_steps`); `SignalPreprocessor` runs it.
Every step is causal, so any chunking of a recording gives the same numbers. A frame is a row, or
with `BandEnergies` what a stretch of fast rows comes to.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import TensorError
from limpet.contracts.signal_steps import (
    BandEnergies,
    BandFilter,
    HoldLast,
    LookBack,
    SignalStep,
    StreamBaseline,
    check_chain,
    features_of,
    runner_of,
)

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
States = NDArray[np.uint8]


_LARGEST = float(np.finfo(np.float32).max)
"""Largest magnitude that counts as measured: what follows is float32, and sums of squares."""
_LONG_AGO = -(2**62)
"""A row before all that a score can look back on."""


class RowState(enum.IntEnum):
    """What became of one row of a stream. Only the first three carry a score."""

    SCORED = 0
    """Every value that the score looks back on was measured."""
    FILLED = 1
    """Scored, though a value that it looks back on was missing: held from before, or absent."""
    PARTIAL = 2
    """Scored without a channel that has been missing longer than it may be held."""
    WARMING_UP = 3
    """Not scored: the model has not seen enough rows yet."""
    HOLE = 4
    """Not scored: every channel has been missing longer than it may be held."""
    REPEATED = 5
    """Not scored: this row was acknowledged before."""
    LATE = 6
    """Not scored: it arrived after rows that follow it."""


LAST_SCORED = RowState.PARTIAL
"""States up to this one carry a score."""


@dataclass(frozen=True)
class Prepared:
    """What a chunk of rows became.

    Attributes:
        states: One `RowState` per row: `SCORED` to `HOLE`. (n,)
        frames: Model input, 0 where a feature is absent. (m, f)
        present: 1 where a feature was measured or held, 0 where it is absent. (m, f)
        ends: Index in the chunk of each frame's last row, ascending. (m,)
        begins: Whether a frame is the first of a stream, for which the model forgets. (m,)
        scored: Whether a frame has all before it that its score looks back on. (m,)
    """

    states: States
    frames: Float32
    present: Float32
    ends: NDArray[np.intp]
    begins: NDArray[np.bool_]
    scored: NDArray[np.bool_]

    def row_scores(self, frame_scores: Float32, held: float) -> Float32:
        """One score a row: the newest frame's, NaN where the row is not scored.

        Args:
            frame_scores: Score of each frame. (m,)
            held: The score before this chunk, which holds until the first frame here.

        Returns:
            Scores, float32 (n,).
        """
        newest = np.searchsorted(self.ends, np.arange(len(self.states)), side="right")
        scores = np.concatenate([[np.float32(held)], frame_scores])[newest].astype(np.float32)
        scores[self.states > LAST_SCORED] = np.nan
        return scores


class SignalPreprocessor:
    """Runs a chain of steps over one stream, keeping the state between chunks.

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
        self._pointwise = [runner_of(step) for step in middle]
        settling = [s.settling_frames for s in middle if isinstance(s, StreamBaseline)]
        self._first_scored = max([last.frames, *settling])
        """Frames of a stream up to its first score, that frame included."""
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
        self._last: Float64 = np.zeros(self.channels)
        self._missing_rows = np.full(self.channels, self._hold.max_rows + 1)  # never measured
        self._start_anew()

    def _start_anew(self) -> None:
        """Begins a new stream; what the channels last measured is kept."""
        self._rows_seen = self._frames_seen = 0
        self._filled_row = self._partial_row = _LONG_AGO
        if self._bands:
            self._bands.reset()
        for step in self._pointwise:
            step.reset()

    def push(self, values: NDArray[np.floating]) -> Prepared:
        """Takes the next rows of the stream.

        Args:
            values: Rows in the channels' own units; NaN or infinite where missing. (n, c)

        Raises:
            TensorError: Not a two-dimensional floating array of c channels.
        """
        if values.ndim != 2 or values.shape[1] != self.channels or values.dtype.kind != "f":
            raise TensorError(
                f"signal is {values.dtype} {list(values.shape)}, "
                f"wanted floating [rows, {self.channels}]"
            )
        x, filled, present = self._fill(values.astype(np.float64))
        alive: NDArray[np.bool_] = np.any(present, axis=1)
        states = np.full(len(x), RowState.HOLE, np.uint8)
        parts = []
        edges = np.flatnonzero(np.diff(alive, prepend=False, append=False))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            if start > 0:
                self._start_anew()
            here = slice(start, stop)
            states[here] = self._state_of(filled[here], present[here])
            parts.append((start, *self._frame(x[here], present[here])))
        if len(alive) and not alive[-1]:
            self._start_anew()
        return self._join(states, parts)

    def _fill(self, x: Float64) -> tuple[Float64, NDArray[np.bool_], NDArray[np.bool_]]:
        """Holds the last finite value; returns rows, rows with a held value, present values."""
        finite = np.abs(x) <= _LARGEST  # False for NaN
        rows = np.arange(len(x))[:, None]
        latest = np.maximum.accumulate(np.where(finite, rows, -1), axis=0)  # (n, c)
        held = np.where(latest >= 0, np.take_along_axis(x, np.maximum(latest, 0), 0), self._last)
        missing: NDArray[np.intp] = np.where(
            latest >= 0, rows - latest, self._missing_rows + rows + 1
        )
        if len(x):
            self._last, self._missing_rows = held[-1], missing[-1]
        filled: NDArray[np.bool_] = np.any(~finite, axis=1)
        return held, filled, missing <= self._hold.max_rows

    def _state_of(self, filled: NDArray[np.bool_], present: NDArray[np.bool_]) -> States:
        """States of rows of one stream. (n,)"""
        rows = self._rows_seen + np.arange(len(filled))  # of the stream
        newest = rows - (rows + 1 - self._frame_rows) % self._hop_rows  # last row of newest frame
        oldest = newest + 1 - self._rows_of(self._look_back.frames)
        filled_row = _latest(rows, filled, self._filled_row)
        partial: NDArray[np.bool_] = ~np.all(present, axis=1)
        partial_row = _latest(rows, partial, self._partial_row)
        states = np.where(filled_row >= oldest, RowState.FILLED, RowState.SCORED).astype(np.uint8)
        states[partial_row > newest - self._frame_rows] = RowState.PARTIAL
        states[: max(0, self.warm_up_rows - self._rows_seen)] = RowState.WARMING_UP
        self._filled_row, self._partial_row = int(filled_row[-1]), int(partial_row[-1])
        self._rows_seen += len(filled)
        return states

    def _frame(
        self, x: Float64, present: NDArray[np.bool_]
    ) -> tuple[Float64, NDArray[np.bool_], NDArray[np.intp], int]:
        """Frames, present features, their last rows, and how many frames came before."""
        ends = np.arange(len(x))
        if self._bands:
            x, present, ends = self._bands(x, present)
        for step in self._pointwise:
            x = step(x, present)
        before, self._frames_seen = self._frames_seen, self._frames_seen + len(x)
        return x, present, ends, before

    def _join(
        self,
        states: States,
        parts: Sequence[tuple[int, Float64, NDArray[np.bool_], NDArray[np.intp], int]],
    ) -> Prepared:
        total = sum(len(part[3]) for part in parts)
        frames = np.zeros((total, self.features), np.float32)
        present = np.zeros((total, self.features), np.float32)
        ends, number = np.zeros(total, np.intp), np.zeros(total, np.intp)
        at = 0
        for start, x, measured, last_rows, before in parts:
            here = slice(at, at + len(x))
            frames[here], present[here] = np.where(measured, x, 0.0), measured
            ends[here] = last_rows + start
            number[here] = before + np.arange(len(x))
            at += len(x)
        return Prepared(
            states, frames, present, ends, number == 0, number + 1 >= self._first_scored
        )


def _latest(rows: NDArray[np.intp], flags: NDArray[np.bool_], before: int) -> NDArray[np.intp]:
    """The latest row, up to each of `rows`, whose flag is set. (n,)"""
    return np.maximum.accumulate(np.where(flags, rows, before))


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
    for index, stretch in enumerate(rows):
        preprocessor.reset()
        frames[index] = preprocessor.push(stretch).frames[-look_back:]
    return frames
