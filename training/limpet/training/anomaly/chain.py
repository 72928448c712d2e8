"""The preprocessing chain of an anomaly encoder, with the statistics of normal rows.

Dimension legend: n rows, c channels, m frames, f features.

What a configuration calls `auto` is decided here, by the training rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import DataError, TensorError
from limpet.contracts.signal_preprocessor import SignalPreprocessor
from limpet.contracts.signal_steps import (
    BandEnergies,
    Clip,
    HoldLast,
    LookBack,
    SignalStep,
    Standardize,
    StreamBaseline,
)
from limpet.contracts.signals import Float64, Prepared
from limpet.training.anomaly.config import AnomalyConfig, look_back_frames

VIBRATION_HZ = 4000.0
"""From this rate on, `front_end = "auto"` takes band energies."""
LOCAL_FRAMES = 256
"""Frames over which a feature's spread counts as local: without slow changes of its level."""
SHORT_FRAMES = 512
"""Segments shorter than this have no slow level of their own."""
MOST_BLOCKS = 6
LOOK_BACKS_TO_FIT = 4
"""Frames to fit, in look-backs: fewer show too few independent windows to know how moments of a
window vary and go together."""
LEAST_FIT_FRAMES, LEAST_HELD_OUT_FRAMES = 64, 16
"""Scored frames that it takes to learn from and to calibrate on."""
LEAST_SETTLED = 32
"""Fewer values of a feature behind a stream's settling say nothing about its spread there."""
FEW_VALUES = 10
"""A channel with no more values than this, on one row in a hundred or fewer, is discrete."""


@dataclass(frozen=True)
class Piece:
    """One segment of a recording.

    Attributes:
        values: Raw rows, NaN where not measured. (n, c)
        cut: Rows before it are for fitting, the others are held out.
        first_row: Number of its first row, counted over all recordings.
    """

    values: Float64
    cut: int
    first_row: int


@dataclass(frozen=True)
class Choices:
    """What was chosen for these rows.

    Attributes:
        blocks: Residual blocks of the encoder.
        bands: Whether frames are band energies.
        adapts: Whether streams have a slow level of their own.
    """

    blocks: int
    bands: bool
    adapts: bool


def choose(pieces: Sequence[Piece], rate_hz: float, config: AnomalyConfig) -> Choices:
    """Applies the rules behind `auto`.

    A score may look back on two thirds of what there is to fit in a typical segment: the rest is
    for training. It looks back on less where too few frames would have a score, or all frames to
    fit together are less than `LOOK_BACKS_TO_FIT` times as many.
    """
    bands = config.front_end == "bands" or (config.front_end == "auto" and rate_hz >= VIBRATION_HZ)
    typical = float(np.median([len(piece.values) for piece in pieces]))
    longest_fit = max(piece.cut for piece in pieces)
    rows = min(typical, longest_fit) if longest_fit else typical
    frames = (rows - config.frame_rows) // config.hop_rows + 1 if bands else rows
    blocks = config.blocks
    if not blocks:
        blocks = 1
        while (
            blocks < MOST_BLOCKS
            and (wider := look_back_frames(blocks + 1)) <= 2 * frames / 3
            and _are_enough(pieces, wider, config if bands else None)
        ):
            blocks += 1
    many_short = len(pieces) > 1 and frames < SHORT_FRAMES
    adapts = config.baseline == "stream" or (config.baseline == "auto" and not many_short)
    return Choices(blocks, bands, adapts)


def _are_enough(pieces: Sequence[Piece], look_back: int, frames: AnomalyConfig | None) -> bool:
    """Whether there are enough frames, and enough of them with a score, were no value missing; a
    frame is a row without bands.
    """

    def count(rows: int, look_back: int) -> int:
        if frames is not None:
            rows = (rows - frames.frame_rows) // frames.hop_rows + 1
        return max(0, rows - look_back + 1)

    fit = sum(count(piece.cut, look_back) for piece in pieces)
    held_out = sum(count(len(piece.values), look_back) for piece in pieces) - fit
    return (
        fit >= LEAST_FIT_FRAMES
        and held_out >= LEAST_HELD_OUT_FRAMES
        and sum(count(piece.cut, 1) for piece in pieces) >= LOOK_BACKS_TO_FIT * look_back
    )


def front_end(config: AnomalyConfig, choices: Choices) -> list[SignalStep]:
    """The steps before anything is fitted."""
    steps: list[SignalStep] = [HoldLast(max_rows=config.hold_rows)]
    if choices.bands:
        steps.append(
            BandEnergies(frame_rows=config.frame_rows, hop_rows=config.hop_rows, bands=config.bands)
        )
    return steps


def fit_chain(pieces: Sequence[Piece], config: AnomalyConfig, choices: Choices) -> list[SignalStep]:
    """Builds the chain, with statistics of the rows to fit alone.

    Args:
        pieces: Segments.
        config: The configuration.
        choices: What `choose` chose.

    Raises:
        DataError: Values so large or so small that no scale fits them, or no whole frame.
    """
    steps = front_end(config, choices)
    raw = np.concatenate(_raw_frames(pieces, steps, choices))  # (m, f)
    _check_measured(raw, config, pieces[0].values.shape[1])
    fixed = is_constant(raw) | is_discrete(raw)
    mean, scale = _level_and_scale(raw)
    steps.append(Standardize(mean=_listed(mean), scale=_listed(scale)))
    if choices.adapts and not fixed.all():
        fitted = [_measured(prepared) for prepared in prepare_pieces(pieces, steps, fit_only=True)]
        overall = np.nanstd(np.concatenate(fitted), axis=0)
        # A feature that mostly stands still has no local spread at all: hence half the overall.
        spread = np.maximum(_local_spread(fitted), 0.5 * overall)
        steps.append(
            StreamBaseline(
                time_constant_frames=config.baseline_frames,
                scale=_listed(np.where(spread > 0, spread, 1.0)),
                adapts=[not x for x in fixed],
                settling_frames=config.baseline_settling_frames,
                influence=config.baseline_influence,
            )
        )
        relative = np.concatenate(
            [
                _measured(prepared)[config.baseline_settling_frames :]
                for prepared in prepare_pieces(pieces, steps, fit_only=True)
            ]
        )
        known = np.isfinite(relative).sum(axis=0) >= LEAST_SETTLED
        if known.any():
            relative = np.where(known, relative, 0.0)
            mean, scale = np.nanmean(relative, axis=0), np.nanstd(relative, axis=0)
            kept = fixed | ~known | ~(scale > 0)
            mean, scale = np.where(kept, 0.0, mean), np.where(kept, 1.0, scale)
            steps.append(Standardize(mean=_listed(mean), scale=_listed(scale)))
    return [*steps, Clip(limit=config.clip), LookBack(frames=look_back_frames(choices.blocks))]


def _raw_frames(
    pieces: Sequence[Piece], steps: Sequence[SignalStep], choices: Choices
) -> list[Float64]:
    """Frames to fit before any scaling, NaN where unmeasured. (m, f) each

    Rows are taken as they are and not through the preprocessor, whose float32 is too coarse for
    values that are large beside their spread.
    """
    if choices.bands:
        return [_measured(prepared) for prepared in prepare_pieces(pieces, steps, fit_only=True)]
    return [piece.values[: piece.cut] for piece in pieces]


def _check_measured(frames: Float64, config: AnomalyConfig, channels: int) -> None:
    """Whether each feature is measured in some frame; with rows, that was seen before."""
    lacking = np.flatnonzero(~np.isfinite(frames).any(axis=0)) * channels // frames.shape[1]
    if len(lacking):
        numbers = ", ".join(str(number + 1) for number in np.unique(lacking))
        raise DataError(
            f"no frame of {config.frame_rows} rows to fit is measured throughout in channel "
            f"{numbers} of {channels}",
            'give longer segments, or a smaller frame_rows or front_end = "rows" by --config; '
            "--ignore leaves a channel out",
        )


def _level_and_scale(frames: Float64) -> tuple[Float64, Float64]:
    """Level and unit of each feature. (f,), (f,)

    A rare event of a discrete channel is no large deviation: its range is two units at least. Of a
    constant nothing is known about spread; a tenth of it is a guess at what matters, and 1 where it
    is 0.
    """
    mean, scale = np.nanmean(frames, axis=0), np.nanstd(frames, axis=0)
    low, high = np.nanmin(frames, axis=0), np.nanmax(frames, axis=0)
    scale = np.where(is_discrete(frames), np.maximum(scale, 0.5 * (high - low)), scale)
    size = np.maximum(np.abs(low), np.abs(high))
    constant = is_constant(frames) | (scale <= 0)
    scale = np.where(constant, np.where(size > 0, 0.1 * size, 1.0), scale)
    return np.asarray(mean, np.float64), np.asarray(scale, np.float64)


def is_discrete(frames: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which features take few values and are not constant. (m, f) → (f,)"""
    most = max(2, min(FEW_VALUES, len(frames) // 100))
    return np.array([2 <= len(np.unique(x[np.isfinite(x)])) <= most for x in frames.T], bool)


def is_constant(rows: Float64) -> NDArray[np.bool_]:
    """Which channels have one value throughout; each has at least one. (n, c) → (c,)"""
    low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
    return np.asarray(high - low <= 1e-9 * np.maximum(np.abs(low), np.abs(high)))


def _listed(values: Float64) -> list[float]:
    return [float(x) for x in values]


def _measured(prepared: Prepared) -> Float64:
    """Frames with NaN where absent. (m, f)"""
    return np.where(prepared.present > 0, prepared.frames.astype(np.float64), np.nan)


def _local_spread(fitted: Sequence[Float64]) -> Float64:
    """Median over blocks of `LOCAL_FRAMES` frames of each feature's standard deviation. (f,)"""
    spreads = []
    for frames in fitted:
        for start in range(0, max(1, len(frames) - LOCAL_FRAMES // 2), LOCAL_FRAMES):
            block = frames[start : start + LOCAL_FRAMES]
            if len(block) >= 2 and np.isfinite(block).any(axis=0).all():
                spreads.append(np.nanstd(block, axis=0))
    if not spreads:
        return np.zeros(fitted[0].shape[1])
    return np.asarray(np.median(spreads, axis=0))


def prepare_pieces(
    pieces: Sequence[Piece], steps: Sequence[SignalStep], *, fit_only: bool = False
) -> Iterator[Prepared]:
    """Runs the chain over each piece as over a stream of its own.

    Args:
        pieces: Segments.
        steps: The chain; without a `LookBack` at its end, it looks back on one frame.
        fit_only: Leave out the held-out rows.

    Raises:
        DataError: Values so large or so small that no scale fits them.
    """
    whole = [*steps] if isinstance(steps[-1], LookBack) else [*steps, LookBack(frames=1)]
    try:
        preprocessor = SignalPreprocessor(whole, pieces[0].values.shape[1])
    except TensorError as error:
        raise DataError(f"no preprocessing fits these rows: {error.message}") from error
    for piece in pieces:
        preprocessor.reset()
        yield preprocessor.push(piece.values[: piece.cut] if fit_only else piece.values)
