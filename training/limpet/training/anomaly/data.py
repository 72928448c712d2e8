"""From recordings to what an encoder learns on: chain, windows to fit, windows held out.

Dimension legend: n rows, w rows of a window, c channels, m windows.

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
from limpet.contracts.signals import Float32, Float64, SignalStep
from limpet.training.anomaly.chain import Piece, fit_chain, is_constant, prepare_pieces
from limpet.training.anomaly.config import AnomalyConfig

LEAST_FIT_WINDOWS = 64
LEAST_HELD_OUT_WINDOWS = 16


@dataclass(frozen=True)
class Windows:
    """Prepared windows in order of time.

    Attributes:
        values: Model input. (m, w, c)
        ends: Row of each window's last row, counted over all recordings. (m,)
        stretch: Number of the uninterrupted stretch that each belongs to. (m,)
    """

    values: Float32
    ends: NDArray[np.intp]
    stretch: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class TrainingData:
    """What training needs to know about the recordings.

    Attributes:
        name: Name of the file or folder they come from.
        preprocessing: Channels, rate and chain.
        fit: Windows to learn from.
        held_out: Windows to calibrate on.
        sample_rows: Raw held-out rows with an anomaly in the last quarter. (n, c)
        digests: Files and the rows used of each.
        left_out: Columns that are no channels, each with the reason.
        warnings: What was odd.
    """

    name: str
    preprocessing: SignalPreprocessing
    fit: Windows
    held_out: Windows
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
    _check_size(name, pieces, config)
    warnings += _check_channels(name, channels, fit_rows)
    warnings += _odd_rows(used, pieces, config)
    steps = fit_chain(pieces, fit_rows, config)
    fit, held_out = _cut_windows(pieces, steps, config.window_rows)
    for windows, least, what in (
        (fit, LEAST_FIT_WINDOWS, "to fit"),
        (held_out, LEAST_HELD_OUT_WINDOWS, "held out"),
    ):
        if len(windows) < least:
            raise DataError(
                f"{name}: {len(windows)} whole windows of {config.window_rows} rows {what}, wanted "
                f"at least {least}: {_rows_needed(config)} rows without gaps suffice",
                "give more rows, a smaller window_rows, or a larger hold_rows where gaps abound",
            )
    return TrainingData(
        name=name,
        preprocessing=SignalPreprocessing(channels=channels, rate_hz=used[0].rate_hz, steps=steps),
        fit=fit,
        held_out=held_out,
        sample_rows=_sample(pieces, config.window_rows),
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
        if config.baseline == "stream":
            edges = _split_evenly(edges, config.baseline_restart_rows)
        for start, stop in itertools.pairwise(edges):
            values = recording.values[start:stop]
            yield Piece(values, min(max(cut - start, 0), stop - start), before + start)
        before += len(recording)


def _split_evenly(edges: Sequence[int], rows: int) -> list[int]:
    """Edges of segments, with further ones that cut each into equal parts of about `rows`."""
    finer = [edges[0]]
    for start, stop in itertools.pairwise(edges):
        parts = max(1, round((stop - start) / rows))
        finer += np.linspace(start, stop, parts + 1).round().astype(int)[1:].tolist()
    return finer


def _rows_needed(config: AnomalyConfig) -> int:
    """Rows that suffice in one recording without gaps."""
    fit = LEAST_FIT_WINDOWS + config.first_score_rows - 1
    held_out = LEAST_HELD_OUT_WINDOWS + config.window_rows - 1
    return max(math.ceil(fit / (1.0 - config.held_out)), math.ceil(held_out / config.held_out))


def _check_size(name: str, pieces: Sequence[Piece], config: AnomalyConfig) -> None:
    rows = sum(len(piece.values) for piece in pieces)
    if rows < _rows_needed(config):
        raise DataError(
            f"{name}: {rows} rows, wanted at least {_rows_needed(config)} for windows of "
            f"{config.window_rows} rows with {config.held_out:.0%} held out",
            "give more rows, or a smaller window_rows by --config",
        )
    longest = max(len(piece.values) for piece in pieces)
    if longest < config.first_score_rows:
        raise DataError(
            f"{name}: the longest segment has {longest} rows, wanted at least the "
            f"{config.first_score_rows} up to a first score",
            f'set baseline = "training" and window_rows = {min(longest, config.window_rows)} or '
            "smaller by --config"
            if longest >= 8
            else "",
        )


def _check_channels(name: str, channels: Sequence[str], fit_rows: Float64) -> list[str]:
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


def _odd_rows(
    recordings: Sequence[Recording], pieces: Sequence[Piece], config: AnomalyConfig
) -> list[str]:
    warnings = []
    labelled = [int(r.labels.sum()) for r in recordings if r.labels is not None]
    if sum(labelled):
        warnings.append(
            f"{sum(labelled)} of the {sum(map(len, recordings))} training rows are labelled "
            "anomalous: labels are ignored and all rows taken as normal; --train-rows can stop "
            "before the first one"
        )
    typical = float(np.median([len(piece.values) for piece in pieces]))
    if config.baseline == "stream" and typical < 4 * config.first_score_rows:
        warnings.append(
            f"of segments of {typical:.0f} rows, each spends {config.first_score_rows - 1} on "
            'learning its baseline: consider baseline = "training"'
        )
    return warnings


def _cut_windows(
    pieces: Sequence[Piece], steps: list[SignalStep], w: int
) -> tuple[Windows, Windows]:
    """Windows that lie whole before the cut, and whole behind it."""
    parts: tuple[list[tuple[Float32, NDArray[np.intp]]], ...] = ([], [])
    # One pass over both parts: on a robot, too, a row's baseline comes from the rows before it.
    for piece, values, ends in prepare_pieces(pieces, steps):
        for part, chosen in zip(parts, (ends < piece.cut, ends - w + 1 >= piece.cut), strict=True):
            part.append((values[chosen], ends[chosen] + piece.first_row))
    fit, held_out = (_join(part, pieces, w) for part in parts)
    return fit, held_out


def _join(
    part: Sequence[tuple[Float32, NDArray[np.intp]]], pieces: Sequence[Piece], w: int
) -> Windows:
    values = np.concatenate([values for values, _ in part])
    ends = np.concatenate([ends for _, ends in part])
    starts = np.array([piece.first_row for piece in pieces])
    piece_of = np.searchsorted(starts, ends, side="right")
    breaks = (np.diff(ends) != 1) | (np.diff(piece_of) != 0)
    stretch = np.concatenate([[0], np.cumsum(breaks)])[: len(ends)].astype(np.intp)
    return Windows(values, ends, stretch)


def _sample(pieces: Sequence[Piece], w: int) -> Float64:
    """Raw held-out rows, gaps bridged, with a lasting displacement in the last quarter. (n, c)

    Where less is held out than the sample takes, rows from before the cut precede it.
    """
    wanted = max(2 * w + 64, 256)
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
