"""The preprocessing chain of an anomaly encoder, with the statistics of normal rows.

Dimension legend: n rows, w rows of a window, c channels, m windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import DataError, TensorError
from limpet.contracts.signals import (
    Clip,
    Float32,
    Float64,
    HoldLast,
    SignalPreprocessor,
    SignalStep,
    Standardize,
    StreamBaseline,
    Window,
)
from limpet.training.anomaly.config import AnomalyConfig

LOCAL_ROWS = 256
"""Rows over which a channel's spread counts as local: without slow changes of its level."""


@dataclass(frozen=True)
class Piece:
    """One segment of a recording.

    Attributes:
        values: Raw rows. (n, c)
        cut: Rows before it are for fitting, the others are held out.
        first_row: Number of its first row, counted over all recordings.
    """

    values: Float64
    cut: int
    first_row: int


def fit_chain(
    pieces: Sequence[Piece], fit_rows: Float64, config: AnomalyConfig
) -> list[SignalStep]:
    """Builds the chain, with statistics of the rows to fit alone.

    Args:
        pieces: Segments.
        fit_rows: Their rows before the cut. (n, c)
        config: The configuration.

    Raises:
        DataError: Values so large or so small that no scale fits them.
    """
    measured = np.where(np.isfinite(fit_rows), fit_rows, np.nan)
    constant = is_constant(fit_rows)
    # Of a constant nothing is known about spread; a tenth of it is a guess at what matters.
    size = np.nanmax(np.abs(measured), axis=0)
    guess = 0.1 * np.where(size > 0, size, 1.0)
    steps: list[SignalStep] = [HoldLast(max_rows=config.hold_rows)]
    if config.baseline == "stream":
        spread = _local_spread(pieces)
        overall = np.nanstd(measured, axis=0)
        # A channel that mostly stands still has no local spread at all: hence half the overall.
        smallest = config.baseline_floor * np.maximum(spread, 0.5 * overall)
        smallest = np.where(constant, guess, smallest)
        steps.append(
            StreamBaseline(
                time_constant_rows=config.baseline_rows,
                min_scale=[float(x) for x in smallest],
                settling_rows=config.baseline_settling_rows,
                influence=config.baseline_influence,
            )
        )
    prepared = _pointwise(pieces, steps)
    if not len(prepared):
        return [*steps, *_standard(np.zeros_like(guess), guess, config)]
    mean, scale = prepared.mean(axis=0), prepared.std(axis=0)
    unmoved = constant | (scale <= 1e-9 * np.abs(mean))
    unit = guess if config.baseline == "training" else np.ones_like(guess)
    return [*steps, *_standard(mean, np.where(unmoved | (scale <= 0), unit, scale), config)]


def _standard(mean: Float64, scale: Float64, config: AnomalyConfig) -> list[SignalStep]:
    return [
        Standardize(mean=[float(x) for x in mean], scale=[float(x) for x in scale]),
        Clip(limit=config.clip),
        Window(rows=config.window_rows),
    ]


def _local_spread(pieces: Sequence[Piece]) -> Float64:
    """Median over blocks of `LOCAL_ROWS` rows of each channel's standard deviation. (c,)"""
    spreads, rows = [], LOCAL_ROWS
    for piece in pieces:
        values = piece.values[: piece.cut]
        for start in range(0, max(1, len(values) - rows // 2), rows):
            block = values[start : start + rows]
            measured = np.isfinite(block)
            if len(block) >= 2 and measured.any(axis=0).all():
                spreads.append(np.nanstd(np.where(measured, block, np.nan), axis=0))
    if not spreads:
        return np.zeros(pieces[0].values.shape[1])
    return np.asarray(np.median(spreads, axis=0))


def _pointwise(pieces: Sequence[Piece], steps: list[SignalStep]) -> Float64:
    """Rows to fit after the steps so far, without those that a stream does not score. (n, c)"""
    rows = [
        windows[:, 0]
        for _, windows, _ in prepare_pieces(pieces, [*steps, Window(rows=1)], fit_only=True)
    ]
    return np.concatenate(rows).astype(np.float64)


def prepare_pieces(
    pieces: Sequence[Piece], steps: Sequence[SignalStep], *, fit_only: bool = False
) -> Iterator[tuple[Piece, Float32, NDArray[np.intp]]]:
    """Runs the chain over each piece as over a stream of its own.

    Args:
        pieces: Segments.
        steps: The chain, with its window.
        fit_only: Leave out the held-out rows.

    Yields:
        The piece, its windows (m, w, c), and the row in the piece that each ends with (m,).

    Raises:
        DataError: Values so large or so small that no scale fits them.
    """
    try:
        preprocessor = SignalPreprocessor(steps, pieces[0].values.shape[1])
    except TensorError as error:
        raise DataError(f"no preprocessing fits these rows: {error.message}") from error
    for piece in pieces:
        preprocessor.reset()
        prepared = preprocessor.push(piece.values[: piece.cut] if fit_only else piece.values)
        yield piece, prepared.windows, prepared.ends


def is_constant(rows: Float64) -> NDArray[np.bool_]:
    """Which channels have one value throughout; each has at least one. (n, c) → (c,)"""
    masked = np.where(np.isfinite(rows), rows, np.nan)
    low, high = np.nanmin(masked, axis=0), np.nanmax(masked, axis=0)
    return np.asarray(high - low <= 1e-9 * np.maximum(np.abs(low), np.abs(high)))
