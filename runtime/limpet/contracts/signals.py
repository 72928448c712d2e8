"""Causal preprocessing of multi-channel signals: one implementation for training and robot.

Dimension legend: n rows (samples in time), c channels, w rows of a window, m windows.

A bundle's manifest carries the chain as data (`SignalStep`s); `SignalPreprocessor` runs it.
Every step is causal and steps row by row, so any chunking of a recording gives the same numbers.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from limpet.contracts.errors import TensorError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
States = NDArray[np.uint8]


_LARGEST = float(np.finfo(np.float32).max)
"""Largest magnitude that counts as measured: what follows is float32, and sums of squares."""


class RowState(enum.IntEnum):
    """What became of one row of a stream. Only the first two carry a score."""

    SCORED = 0
    """Every value was measured."""
    FILLED = 1
    """Scored, though its window holds a value that was missing and held from before."""
    WARMING_UP = 2
    """Not scored: the window is not full yet."""
    HOLE = 3
    """Not scored: a channel has been missing longer than it may be held."""
    REPEATED = 4
    """Not scored: this row was acknowledged before."""
    LATE = 5
    """Not scored: it arrived after rows that follow it."""


class HoldLast(msgspec.Struct, frozen=True, kw_only=True, tag="hold_last"):
    """Replaces missing values (NaN, infinite, or beyond float32) by the channel's last one.

    Attributes:
        max_rows: Longest run of missing rows that is filled, per channel. A longer one is a
            hole: its rows are not scored and the window starts anew after it.
    """

    max_rows: int


class StreamBaseline(msgspec.Struct, frozen=True, kw_only=True, tag="stream_baseline"):
    """Expresses each value relative to its stream's own recent level and spread.

    Exponential moving mean and variance of the rows *before* this one, bias-corrected while
    young, so that a machine running at another operating point than in training is not an
    anomaly by itself. A row's influence is limited, so that a fault is not soon taken for the new
    normal (winsorised updates, as in Huber's robust statistics).

    Attributes:
        time_constant_rows: Rows after which a level's weight has fallen to 1/e.
        min_scale: Smallest spread to divide by, per channel, in the channel's unit. (c,)
        settling_rows: Rows of a stream that teach its baseline before any is scored.
        influence: Largest deviation, in spreads, that a later row counts with.
    """

    time_constant_rows: float
    min_scale: list[float]
    settling_rows: int
    influence: float


class Standardize(msgspec.Struct, frozen=True, kw_only=True, tag="standardize"):
    """(x - mean) / scale per channel, with the statistics of the training rows."""

    mean: list[float]
    scale: list[float]


class Clip(msgspec.Struct, frozen=True, kw_only=True, tag="clip"):
    """Limits values to [-limit, limit]."""

    limit: float


class Window(msgspec.Struct, frozen=True, kw_only=True, tag="window"):
    """Cuts the stream into windows of the last `rows` rows, one every `hop` rows."""

    rows: int
    hop: int = 1


SignalStep = HoldLast | StreamBaseline | Standardize | Clip | Window


@dataclass(frozen=True)
class Prepared:
    """What a chunk of rows became.

    Attributes:
        states: One `RowState` per row: `SCORED`, `FILLED`, `WARMING_UP` or `HOLE`. (n,)
        windows: Model input, oldest row first. (m, w, c)
        ends: Index in the chunk of each window's last row, ascending. (m,)
    """

    states: States
    windows: Float32
    ends: NDArray[np.intp]

    def row_scores(self, window_scores: Float32, held: float) -> Float32:
        """One score a row: the newest window's, NaN where the row is not scored.

        Args:
            window_scores: Score of each window. (m,)
            held: The score before this chunk, which holds until the first window here.

        Returns:
            Scores, float32 (n,).
        """
        newest = np.searchsorted(self.ends, np.arange(len(self.states)), side="right")
        scores = np.concatenate([[np.float32(held)], window_scores])[newest].astype(np.float32)
        scores[self.states > RowState.FILLED] = np.nan
        return scores


class SignalPreprocessor:
    """Runs a chain of steps over one stream, keeping the state between chunks.

    Args:
        steps: The chain. It ends with its only `Window`; `HoldLast` comes first.
        channels: Number of channels c.

    Raises:
        TensorError: The chain is not of that form, a step has another number of channels, or a
            setting is out of range.
    """

    def __init__(self, steps: Sequence[SignalStep], channels: int) -> None:
        pointwise, window = steps[:-1], steps[-1] if steps else None
        if not isinstance(window, Window) or window.rows < 1 or window.hop < 1:
            raise TensorError("a signal chain must end with a window of at least one row and hop")
        if not pointwise or not isinstance(pointwise[0], HoldLast):
            raise TensorError("a signal chain must begin with hold_last")
        if channels < 1 or pointwise[0].max_rows < 0:
            raise TensorError(
                "a signal chain needs at least one channel and hold_last.max_rows >= 0"
            )
        self._hold, self._window, self.channels = pointwise[0], window, channels
        self._first_score = window.rows
        """Rows of a stream up to its first score, that row included."""
        self._pointwise: list[_Baseline | _Affine | Clip] = []
        for step in pointwise[1:]:
            if isinstance(step, Clip):
                if not step.limit > 0:
                    raise TensorError(f"clip.limit is {step.limit:g}, wanted > 0")
                self._pointwise.append(step)
                continue
            if not isinstance(step, (StreamBaseline, Standardize)):
                raise TensorError(f"{type(step).__name__} stands in the wrong place of the chain")
            per_channel = step.min_scale if isinstance(step, StreamBaseline) else step.scale
            offsets = per_channel if isinstance(step, StreamBaseline) else step.mean
            if {len(per_channel), len(offsets)} != {channels} or min(per_channel) <= 0:
                raise TensorError(
                    f"{type(step).__name__} needs {channels} positive scales, one a channel"
                )
            if isinstance(step, StreamBaseline):
                if not (step.time_constant_rows > 0 and step.influence > 0):
                    raise TensorError(
                        f"stream_baseline has time_constant_rows {step.time_constant_rows:g} and "
                        f"influence {step.influence:g}, wanted > 0"
                    )
                self._first_score = max(self._first_score, step.settling_rows)
            self._pointwise.append(
                _Baseline(step) if isinstance(step, StreamBaseline) else _Affine(step)
            )
        self.reset()

    @property
    def warm_up_rows(self) -> int:
        """Rows before the first score."""
        return self._first_score - 1

    @property
    def longest_fill_rows(self) -> int:
        """Longest run of missing rows that is filled rather than treated as a hole."""
        return self._hold.max_rows

    def reset(self) -> None:
        """Forgets the stream: the next row is the first."""
        self._last: Float64 = np.zeros(self.channels)
        self._missing_rows = np.full(self.channels, self._hold.max_rows + 1)  # never measured
        self._start_anew()

    def _start_anew(self) -> None:
        """Begins a new window; what the channels last measured is kept."""
        self._tail: Float32 = np.empty((0, self.channels), np.float32)
        self._rows_seen = 0
        self._rows_since_fill = self._window.rows
        for step in self._pointwise:
            if isinstance(step, _Baseline):
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
        x, filled, hole = self._fill(values.astype(np.float64))
        states = np.full(len(x), RowState.HOLE, np.uint8)
        windows, ends = [], []
        edges = np.flatnonzero(np.diff(hole, prepend=True, append=True))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            if start > 0:
                self._start_anew()
            block_windows, block_ends = self._cut(
                x[start:stop], filled[start:stop], states[start:stop]
            )
            windows.append(block_windows)
            ends.append(block_ends + start)
        if len(hole) and hole[-1]:
            self._start_anew()
        if len(windows) == 1:
            return Prepared(states, windows[0], ends[0])
        nothing = np.empty((0, self._window.rows, self.channels), np.float32)
        return Prepared(
            states,
            np.concatenate([nothing, *windows]),
            np.concatenate([np.empty(0, np.intp), *ends]),
        )

    def run_pointwise(self, x: Float64) -> Float64:
        """Runs the steps between `HoldLast` and `Window` over finite rows. (n, …, c)"""
        for step in self._pointwise:
            x = np.clip(x, -step.limit, step.limit) if isinstance(step, Clip) else step(x)
        return x

    def _fill(self, x: Float64) -> tuple[Float64, NDArray[np.bool_], NDArray[np.bool_]]:
        """Holds the last finite value; returns rows, rows with a held value, rows in a hole."""
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
        hole: NDArray[np.bool_] = np.any(missing > self._hold.max_rows, axis=1)
        return held, filled, hole

    def _cut(
        self, x: Float64, filled: NDArray[np.bool_], states: States
    ) -> tuple[Float32, NDArray[np.intp]]:
        """Runs the pointwise steps and the window over rows without a hole; writes `states`."""
        x = self.run_pointwise(x)
        w, n = self._window.rows, len(x)
        position = np.arange(n)
        latest_fill = np.maximum.accumulate(np.where(filled, position, -1))
        since_fill = np.where(
            latest_fill >= 0, position - latest_fill, self._rows_since_fill + position + 1
        )
        states[:] = np.where(since_fill < w, RowState.FILLED, RowState.SCORED)
        states[: max(0, self.warm_up_rows - self._rows_seen)] = RowState.WARMING_UP
        rows = np.concatenate([self._tail, x.astype(np.float32)])
        count = self._rows_seen + position + 1  # rows since the window began, at each row
        after_first = count - self._first_score
        ends = np.flatnonzero((after_first >= 0) & (after_first % self._window.hop == 0))
        windows = np.empty((0, w, self.channels), np.float32)
        if len(ends):
            views = sliding_window_view(rows, w, axis=0)  # (rows - w + 1, c, w)
            windows = views[ends + len(self._tail) - w + 1].transpose(0, 2, 1)
        self._tail = rows[max(0, len(rows) - (w - 1)) :].copy() if w > 1 else rows[:0]
        self._rows_seen += n
        self._rows_since_fill = int(since_fill[-1])
        return windows, ends


def prepare_windows(steps: Sequence[SignalStep], rows: NDArray[np.floating]) -> Float32:
    """Prepares separate stretches of rows, each as if it were a stream up to its first score.

    Args:
        steps: The chain, ending with a `Window` of w rows.
        rows: In the channels' own units, all finite; n is `warm_up_rows` + 1. (m, n, c)

    Returns:
        Model input: the last w rows of each. (m, w, c)

    Raises:
        TensorError: Another shape than the chain's, or a value that is not finite.
    """
    if rows.ndim != 3:
        raise TensorError(f"rows have shape {list(rows.shape)}, wanted [m, rows, channels]")
    preprocessor, window = SignalPreprocessor(steps, rows.shape[2]), steps[-1]
    assert isinstance(window, Window)  # or the preprocessor would have refused the chain
    if rows.shape[1] != preprocessor.warm_up_rows + 1:
        raise TensorError(
            f"{rows.shape[1]} rows, wanted the {preprocessor.warm_up_rows + 1} up to a first score"
        )
    if not (np.abs(rows) <= _LARGEST).all():
        raise TensorError("NaN or infinite values among the rows, which no score may hide")
    x = rows.astype(np.float64).swapaxes(0, 1)  # (n, m, c): steps run along the first axis
    x = preprocessor.run_pointwise(x)[-window.rows :]
    return np.ascontiguousarray(x.swapaxes(0, 1), np.float32)


class _Affine:
    def __init__(self, step: Standardize) -> None:
        self._mean, self._scale = np.array(step.mean), np.array(step.scale)

    def __call__(self, x: Float64) -> Float64:
        return np.asarray((x - self._mean) / self._scale)


class _Baseline:
    """Exponentially weighted mean and variance, updated row by row (West 1979). (n, …, c)"""

    def __init__(self, step: StreamBaseline) -> None:
        self._decay = float(np.exp(-1.0 / step.time_constant_rows))
        self._min_scale = np.array(step.min_scale)
        self._settling_rows, self._influence = step.settling_rows, step.influence
        self.reset()

    def reset(self) -> None:
        self._rows, self._weight = 0, 0.0
        self._mean = np.zeros_like(self._min_scale)
        self._spread = np.zeros_like(self._min_scale)  # weighted sum of squared deviations

    def __call__(self, x: Float64) -> Float64:
        relative = np.zeros_like(x)
        for row, value in enumerate(x):
            delta = value - self._mean
            if self._weight > 0.0:
                scale = np.maximum(np.sqrt(self._spread / self._weight), self._min_scale)
                relative[row] = delta / scale
                if self._rows >= self._settling_rows:
                    most = self._influence * scale
                    delta = np.minimum(np.maximum(delta, -most), most)
            self._rows += 1
            self._weight = self._decay * self._weight + 1.0
            self._mean = self._mean + delta / self._weight
            self._spread = self._decay * self._spread + delta * delta * (1.0 - 1.0 / self._weight)
        return relative
