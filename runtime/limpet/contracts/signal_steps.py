"""The steps of a signal chain: as data, which a manifest carries, and as what runs.

Dimension legend: n rows (samples in time), c channels, m frames, f features of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import TensorError

Float64 = NDArray[np.float64]


class HoldLast(msgspec.Struct, frozen=True, kw_only=True, tag="hold_last"):
    """Replaces missing values (NaN, infinite, or beyond float32) by the channel's last one.

    Attributes:
        max_rows: Longest run of missing rows that is filled, per channel. After a longer one the
            channel counts as absent until it is measured again: it is 0 and the model is told.
            Where all channels are absent there is a hole: its rows are not scored and the stream
            starts anew after it.
    """

    max_rows: int


class BandEnergies(msgspec.Struct, frozen=True, kw_only=True, tag="band_energies"):
    """Turns fast rows, such as vibration, into frames of log10 energies in frequency bands.

    Each frame of `frame_rows` rows is weighted by a Hann window and transformed; its power is
    summed within bands whose edges are spaced logarithmically from two cycles a frame to half the
    sampling rate. Features are ordered by channel, within it by frequency.

    Attributes:
        frame_rows: Rows of a frame.
        hop_rows: Rows from one frame to the next.
        bands: Bands of each channel.
    """

    frame_rows: int
    hop_rows: int
    bands: int


class StreamBaseline(msgspec.Struct, frozen=True, kw_only=True, tag="stream_baseline"):
    """Expresses each value relative to its stream's own slow level, in units of a fixed spread.

    The level is an exponential moving mean of what came before, bias-corrected while young, so
    that a machine that runs at another operating point than in training, or drifts, is not an
    anomaly by itself. The spread is training's, so that a louder stream is one. A value's influence
    is limited, so that a fault is not soon taken for the new normal (winsorised updates, as in
    Huber's robust statistics). The level moves every `LEVEL_FRAMES` frames.

    Attributes:
        time_constant_frames: Frames after which a level's weight has fallen to 1/e.
        scale: Spread of each feature, in its unit. (f,)
        adapts: Whether a feature has a level of its own; others pass unchanged. (f,)
        settling_frames: Measured frames of a stream that teach its level in full.
        influence: Largest deviation, in spreads, that a later value counts with.
    """

    time_constant_frames: float
    scale: list[float]
    adapts: list[bool]
    settling_frames: int
    influence: float


LEVEL_FRAMES = 8
"""Frames from one move of a `StreamBaseline`'s level to the next."""


class Standardize(msgspec.Struct, frozen=True, kw_only=True, tag="standardize"):
    """(x - mean) / scale per feature, with the statistics of the training rows."""

    mean: list[float]
    scale: list[float]


class Clip(msgspec.Struct, frozen=True, kw_only=True, tag="clip"):
    """Limits values to [-limit, limit]."""

    limit: float


class LookBack(msgspec.Struct, frozen=True, kw_only=True, tag="look_back"):
    """How many frames the model's score depends on, the newest included."""

    frames: int


SignalStep = HoldLast | BandEnergies | StreamBaseline | Standardize | Clip | LookBack


def features_of(steps: Sequence[SignalStep], channels: int) -> int:
    """Features of a frame."""
    bands = [step.bands for step in steps if isinstance(step, BandEnergies)]
    return channels * (bands[0] if bands else 1)


def check_chain(steps: Sequence[SignalStep], channels: int) -> None:
    """Refuses a chain that `SignalPreprocessor` cannot run; raises as it does."""
    if not steps or not isinstance(steps[-1], LookBack) or steps[-1].frames < 1:
        raise TensorError("a signal chain must end with a look_back of at least one frame")
    if not isinstance(steps[0], HoldLast):
        raise TensorError("a signal chain must begin with hold_last")
    if channels < 1 or steps[0].max_rows < 0:
        raise TensorError("a signal chain needs at least one channel and hold_last.max_rows >= 0")
    features = features_of(steps, channels)
    for place, step in enumerate(steps[1:-1], 1):
        if isinstance(step, BandEnergies) and place == 1:
            most = step.frame_rows // 2 - 2
            if not 1 <= step.hop_rows <= step.frame_rows or not 1 <= step.bands <= most:
                raise TensorError(
                    f"band_energies has hop_rows {step.hop_rows} and {step.bands} bands of frames "
                    f"of {step.frame_rows} rows, wanted a hop of 1 to {step.frame_rows} rows and "
                    f"1 to {most} bands"
                )
        elif isinstance(step, Clip):
            if not step.limit > 0:
                raise TensorError(f"clip.limit is {step.limit:g}, wanted > 0")
        elif isinstance(step, (StreamBaseline, Standardize)):
            others = step.adapts if isinstance(step, StreamBaseline) else step.mean
            fits = {len(step.scale), len(others)} == {features}
            if not fits or not all(0 < scale < inf for scale in step.scale):
                raise TensorError(
                    f"{type(step).__name__} needs {features} positive scales, one a feature"
                )
            if isinstance(step, StreamBaseline) and not (
                step.time_constant_frames > 0 and step.influence > 0
            ):
                raise TensorError(
                    f"stream_baseline has time_constant_frames {step.time_constant_frames:g} and "
                    f"influence {step.influence:g}, wanted > 0"
                )
        else:
            raise TensorError(f"{type(step).__name__} stands in the wrong place of the chain")


class BandFilter:
    """Cuts rows into frames and transforms them. (n, c) → (m, c · bands)"""

    def __init__(self, step: BandEnergies, channels: int) -> None:
        self.step, self._channels = step, channels
        self._window = np.hanning(step.frame_rows + 1)[:-1, None]  # periodic
        bins = step.frame_rows // 2 + 1
        edges = np.geomspace(2, bins, step.bands + 1).round().astype(int)
        # A band of its own for each bin where they would share one.
        edges = np.maximum(edges, 2 + np.arange(step.bands + 1))
        self._edges = np.minimum(edges, bins - step.bands + np.arange(step.bands + 1))
        self.reset()

    def reset(self) -> None:
        """Begins a stream anew."""
        self._rows: Float64 = np.empty((0, self._channels))
        self._present: NDArray[np.bool_] = np.empty((0, self._channels), bool)

    def __call__(
        self, x: Float64, present: NDArray[np.bool_]
    ) -> tuple[Float64, NDArray[np.bool_], NDArray[np.intp]]:
        """Features, which of them are present, and the row that each frame ends with."""
        step, before = self.step, len(self._rows)
        rows = np.concatenate([self._rows, x])
        measured = np.concatenate([self._present, present])
        count = max(0, (len(rows) - step.frame_rows) // step.hop_rows + 1)
        features = np.empty((count, self._channels * step.bands))
        whole = np.empty((count, self._channels * step.bands), bool)
        for frame in range(count):
            part = slice(frame * step.hop_rows, frame * step.hop_rows + step.frame_rows)
            power = np.square(np.abs(np.fft.rfft(rows[part] * self._window, axis=0)))  # (bins, c)
            power = np.add.reduceat(power, self._edges[:-1], axis=0)  # the last band to the end
            features[frame] = np.log10(power / step.frame_rows + _LEAST_POWER).T.ravel()
            whole[frame] = np.repeat(measured[part].all(axis=0), step.bands)
        ends = np.arange(count) * step.hop_rows + step.frame_rows - 1 - before
        self._rows, self._present = rows[count * step.hop_rows :], measured[count * step.hop_rows :]
        return features, whole, ends


_LEAST_POWER = 1e-12
"""Added to a band's power: silence has a logarithm too."""


class Affine:
    """Runs `Standardize`. (m, f)"""

    def __init__(self, step: Standardize) -> None:
        self._mean, self._scale = np.array(step.mean), np.array(step.scale)

    def reset(self) -> None:
        """Nothing is remembered."""

    def __call__(self, x: Float64, _: NDArray[np.bool_]) -> Float64:
        """Takes the next frames."""
        return np.asarray((x - self._mean) / self._scale)


class Limit:
    """Runs `Clip`. (m, f)"""

    def __init__(self, step: Clip) -> None:
        self._limit = step.limit

    def reset(self) -> None:
        """Nothing is remembered."""

    def __call__(self, x: Float64, _: NDArray[np.bool_]) -> Float64:
        """Takes the next frames."""
        return np.clip(x, -self._limit, self._limit)


class Baseline:
    """Winsorised exponential moving mean, moved block by block. (m, f)"""

    def __init__(self, step: StreamBaseline) -> None:
        self._decay = float(np.exp(-1.0 / step.time_constant_frames))
        self._scale, self._adapts = np.array(step.scale), np.array(step.adapts, bool)
        self._divide = np.where(self._adapts, self._scale, 1.0)
        self._settling, self._most = step.settling_frames, step.influence * self._scale
        self.reset()

    def reset(self) -> None:
        """Begins a stream anew."""
        features = len(self._scale)
        self._level, self._weight = np.zeros(features), np.zeros(features)
        self._has_level = ~self._adapts
        self._measured = np.zeros(features)  # frames measured before this block
        self._deltas = np.zeros((LEVEL_FRAMES, features))  # of this block, summed in one order
        self._count = np.zeros(features)
        self._in_block = 0

    def __call__(self, x: Float64, present: NDArray[np.bool_]) -> Float64:
        """Takes the next frames, of which some values may be absent."""
        relative = np.empty_like(x)
        start = 0
        while start < len(x):
            stop = min(len(x), start + LEVEL_FRAMES - self._in_block)
            block, measured = x[start:stop], present[start:stop]
            if not self._has_level.all():
                self._begin_levels(block, measured)
            delta = np.where(measured, block - self._level, 0.0)
            relative[start:stop] = delta / self._divide
            limited = np.minimum(np.maximum(delta, -self._most), self._most)
            delta = np.where(self._measured >= self._settling, limited, delta)
            self._deltas[self._in_block : self._in_block + stop - start] = delta
            self._count += measured.sum(axis=0)
            self._in_block += stop - start
            if self._in_block == LEVEL_FRAMES:
                self._move()
            start = stop
        return relative

    def _begin_levels(self, block: Float64, measured: NDArray[np.bool_]) -> None:
        """A feature's first value is its first level."""
        new = ~self._has_level & measured.any(axis=0)
        first = measured.argmax(axis=0)
        self._level[new] = block[first, np.arange(len(new))][new]
        self._has_level |= new

    def _move(self) -> None:
        self._weight = self._decay**LEVEL_FRAMES * self._weight + self._count
        moves = self._adapts & (self._weight > 0)
        self._level[moves] += self._deltas.sum(axis=0)[moves] / self._weight[moves]
        self._measured += self._count
        self._count[:] = 0.0
        self._in_block = 0


def runner_of(step: SignalStep) -> Affine | Limit | Baseline:
    """What runs a step that takes each frame by itself or with those before it."""
    if isinstance(step, Standardize):
        return Affine(step)
    if isinstance(step, Clip):
        return Limit(step)
    assert isinstance(step, StreamBaseline)  # `check_chain` refuses others here
    return Baseline(step)
