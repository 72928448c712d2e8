"""The steps of a signal chain as data, which a manifest carries; `signal_runners` runs them.

Dimension legend: c channels, f features of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

from limpet.contracts.errors import TensorError


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
