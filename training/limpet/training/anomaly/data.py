"""From recordings to what an encoder learns on: chain, frames to fit, frames held out.

Dimension legend: n rows, c channels, m frames, f features.

The last part of each recording is held out before anything is fitted: neither the statistics of
the chain nor the encoder nor its bank see a row of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.bundle import files_sha256
from limpet.contracts.errors import DataError
from limpet.contracts.manifest import DataDigest, SignalPreprocessing
from limpet.contracts.recordings import Recording
from limpet.contracts.signal_preprocessor import SignalPreprocessor
from limpet.contracts.signal_steps import SignalStep
from limpet.contracts.signals import Float32, Float64
from limpet.training.anomaly.chain import (
    LEAST_FIT_FRAMES,
    LEAST_HELD_OUT_FRAMES,
    Choices,
    Piece,
    choose,
    fit_chain,
    is_constant,
    is_discrete,
    prepare_pieces,
)
from limpet.training.anomaly.config import AnomalyConfig

LARGEST = float(np.finfo(np.float32).max)
"""Largest magnitude that counts as measured, as on a stream."""


@dataclass(frozen=True)
class Stretch:
    """Frames of one uninterrupted stream, in order of time.

    Attributes:
        samples: Model input. (m, f)
        present: 1 where measured, else 0. (m, f)
        scored: Frames that have all before them that a score looks back on. (m,)
        fit: Frames to learn from; the others, which follow them, are held out. (m,)
    """

    samples: Float32
    present: Float32
    scored: NDArray[np.bool_]
    fit: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class TrainingData:
    """What training needs to know about the recordings.

    Attributes:
        name: Name of the file or folder they come from.
        preprocessing: Channels, rate and chain.
        choices: What `auto` came to.
        stretches: Frames to learn from and to calibrate on.
        discrete: Values that each feature takes where it takes few, by its number; prepared.
        sample_rows: Raw held-out rows with an anomaly in the last quarter. (n, c)
        digests: Files and the rows used of each.
        left_out: Columns that are no channels, each with the reason.
        warnings: What was odd.
    """

    name: str
    preprocessing: SignalPreprocessing
    choices: Choices
    stretches: list[Stretch]
    discrete: dict[int, Float32]
    sample_rows: Float64
    digests: list[DataDigest]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare_training(
    recordings: Sequence[Recording],
    name: str,
    config: AnomalyConfig,
    train_rows: int | None = None,
) -> TrainingData:
    """Splits recordings by time and prepares both parts.

    Args:
        recordings: Of the same channels.
        name: What to call them.
        config: The configuration.
        train_rows: Uses only so many rows, from the first one on.

    Raises:
        DataError: Too few rows, or a channel without any value or all channels constant.
    """
    used, warnings = _first_rows(recordings, train_rows)
    pieces = list(_pieces(used, config))
    channels = list(used[0].channels)
    fit_rows = np.concatenate([piece.values[: piece.cut] for piece in pieces])
    warnings += _check_channels(name, channels, fit_rows)
    warnings += _odd_rows(used)
    choices = choose(pieces, used[0].rate_hz, config)
    steps = fit_chain(pieces, config, choices)
    stretches = _stretches(pieces, steps)
    _check_frames(name, pieces, steps, stretches)
    return TrainingData(
        name=name,
        preprocessing=SignalPreprocessing(channels=channels, rate_hz=used[0].rate_hz, steps=steps),
        choices=choices,
        stretches=stretches,
        discrete=discrete_values(stretches),
        sample_rows=_sample(pieces, steps),
        digests=[
            DataDigest(name=r.path.name, sha256=files_sha256(r.files), rows=len(r)) for r in used
        ],
        left_out=tuple(dict.fromkeys(column for r in used for column in r.left_out)),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _first_rows(
    recordings: Sequence[Recording], train_rows: int | None
) -> tuple[list[Recording], list[str]]:
    warnings = [warning for recording in recordings for warning in recording.warnings]
    total = sum(map(len, recordings))
    if train_rows is None or train_rows >= total:
        if train_rows is not None and train_rows > total:
            warnings.append(f"--train-rows {train_rows} asks for more than there is: {total} rows")
        return [recording for recording in recordings if len(recording)], warnings
    used, left = [], train_rows
    for recording in recordings:
        used.append(recording.rows(0, min(left, len(recording))))
        left -= len(used[-1])
    return [recording for recording in used if len(recording)], warnings


def _pieces(recordings: Sequence[Recording], config: AnomalyConfig) -> Iterator[Piece]:
    before = 0
    for recording in recordings:
        cut = len(recording) - math.ceil(round(config.held_out * len(recording), 9))
        edges = [*recording.segments, len(recording)]
        for start, stop in itertools.pairwise(edges):
            values = recording.values[start:stop]
            measured = np.abs(values) <= LARGEST  # False for NaN
            if not measured.all():
                values = np.where(measured, values, np.nan)
            yield Piece(values, min(max(cut - start, 0), stop - start), before + start)
        before += len(recording)


def _stretches(pieces: Sequence[Piece], steps: Sequence[SignalStep]) -> list[Stretch]:
    """One pass over both parts: on a robot, too, a row is judged by the rows before it."""
    stretches = []
    for piece, prepared in zip(pieces, prepare_pieces(pieces, steps), strict=True):
        edges = [*np.flatnonzero(prepared.begins).tolist(), len(prepared.frames)]
        for start, stop in itertools.pairwise(edges):
            here = slice(start, stop)
            stretches.append(
                Stretch(
                    prepared.frames[here],
                    prepared.present[here],
                    prepared.scored[here],
                    prepared.ends[here] < piece.cut,
                )
            )
    return stretches


def discrete_values(stretches: Sequence[Stretch]) -> dict[int, Float32]:
    """Values of the features that take few, over the frames to fit in which they are present.

    Returns:
        By feature, ascending, in prepared units. (k,) each
    """
    samples = np.concatenate([np.where(s.present > 0, s.samples, np.nan)[s.fit] for s in stretches])
    values = {}
    for feature in np.flatnonzero(is_discrete(samples)).tolist():
        values[feature] = np.unique(samples[np.isfinite(samples[:, feature]), feature])
    return values


def _check_frames(
    name: str,
    pieces: Sequence[Piece],
    steps: Sequence[SignalStep],
    stretches: Sequence[Stretch],
) -> None:
    """Whether there is enough to learn from and to calibrate on."""
    preprocessor = SignalPreprocessor(steps, pieces[0].values.shape[1])
    rows = preprocessor.warm_up_rows + 1
    fit = sum(int((s.fit & s.scored).sum()) for s in stretches)
    held_out = sum(int((~s.fit & s.scored).sum()) for s in stretches)
    for found, least, what in (
        (fit, LEAST_FIT_FRAMES, "to fit"),
        (held_out, LEAST_HELD_OUT_FRAMES, "held out"),
    ):
        if found < least:
            total = sum(len(piece.values) for piece in pieces)
            longest = max(len(piece.values) for piece in pieces)
            raise DataError(
                f"{name}: {found} scored frames {what}, wanted at least {least}; found {total} "
                f"rows, the longest segment of {longest}, and a first score takes {rows}",
                "give more rows, a smaller `blocks` by --config, or a larger hold_rows where gaps "
                "abound",
            )


def _check_channels(name: str, channels: Sequence[str], fit_rows: Float64) -> list[str]:
    if not len(fit_rows):
        raise DataError(f"{name}: too few rows to fit on", "give more rows")
    measured = np.any(np.isfinite(fit_rows), axis=0)
    empty = [c for c, any_value in zip(channels, measured, strict=True) if not any_value]
    if empty:
        raise DataError(
            f"{name}: channel {', '.join(map(repr, empty))} has no value in the rows to fit",
            "leave it out: " + " ".join(f"--ignore {channel!r}" for channel in empty),
        )
    constant = [c for c, flat in zip(channels, is_constant(fit_rows), strict=True) if flat]
    if len(constant) == len(channels):
        raise DataError(
            f"{name}: every channel is constant in the rows to fit ({', '.join(constant)})",
            "an encoder of normal operation needs a signal that moves; give other rows",
        )
    return [
        f"channel {channel!r} is constant in the rows to fit: any change of a tenth of its value "
        "will count as one standard deviation; --ignore leaves it out"
        for channel in constant
    ]


def _odd_rows(recordings: Sequence[Recording]) -> list[str]:
    warnings = []
    labelled = [int(r.labels.sum()) for r in recordings if r.labels is not None]
    if sum(labelled):
        warnings.append(
            f"{sum(labelled)} of the {sum(map(len, recordings))} training rows are labelled "
            "anomalous: labels are ignored and all rows taken as normal; --train-rows can stop "
            "before the first one"
        )
    return warnings


def _sample(pieces: Sequence[Piece], steps: Sequence[SignalStep]) -> Float64:
    """Raw held-out rows, gaps bridged, with a lasting displacement in the last quarter. (n, c)

    Where less is held out than the sample takes, rows from before the cut precede it.
    """
    first_score = SignalPreprocessor(steps, pieces[0].values.shape[1]).warm_up_rows + 1
    wanted = max(2 * first_score + 64, 256)
    longest = max(pieces, key=lambda piece: len(piece.values) - piece.cut)
    rows = longest.values[longest.cut :]
    if len(rows) < wanted:
        rows = longest.values
    if len(rows) < wanted:
        rows = np.concatenate([piece.values for piece in pieces])
    rows = rows[-wanted:].copy()
    index = np.arange(len(rows))[:, None]
    finite = np.isfinite(rows)
    latest = np.maximum.accumulate(np.where(finite, index, -1), axis=0)
    latest = np.where(latest >= 0, latest, finite.argmax(axis=0))
    rows = np.nan_to_num(np.take_along_axis(rows, latest, 0), posinf=0.0, neginf=0.0)
    spread = rows.std(axis=0)
    step = np.where(spread > 0, 6.0 * spread, 0.1 * np.maximum(np.abs(rows).max(axis=0), 1.0))
    displaced = np.arange(rows.shape[1]) % 2 == 0
    rows[len(rows) - len(rows) // 4 :] += step * displaced
    return np.asarray(rows, np.float64)
