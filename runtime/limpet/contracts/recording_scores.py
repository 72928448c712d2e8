"""Scores of whole recordings, offline: channels matched to a model, segments scored one by one.

Dimension legend: n rows (samples in time), c channels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from limpet.contracts.errors import DataError
from limpet.contracts.manifest import SignalPreprocessing
from limpet.contracts.recordings import ARRAY_SUFFIXES, Recording
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signals import Float32, States

CHUNK_ROWS = 4096
"""Rows scored at a time, which bounds the memory that they take."""

RATE_TOLERANCE = 1.2
"""A recording's rate may differ from the model's by this factor before a warning."""


@dataclass(frozen=True, eq=False)
class RecordingScores:
    """What a model says of a recording.

    Attributes:
        scores: One a row, NaN where its state is not a scored one. (n,)
        states: `signals.RowState` of each row. (n,)
    """

    scores: Float32
    states: States


def match_recording(recording: Recording, signal: SignalPreprocessing) -> Recording:
    """The recording with the model's channels, and a warning where its rate is another.

    Raises:
        DataError: A channel is missing.
    """
    rate_hz = signal.rate_hz
    factor = recording.rate_hz / rate_hz
    if not 1 / RATE_TOLERANCE <= factor <= RATE_TOLERANCE:
        warning = f"rate is {recording.rate_hz:g} Hz, the model was trained at {rate_hz:g} Hz"
        recording = replace(recording, warnings=(*recording.warnings, warning))
    return match_channels(recording, signal.channels)


def match_channels(recording: Recording, channels: Sequence[str]) -> Recording:
    """The recording with these channels, by name; by position where it or they have none.

    Raises:
        DataError: A channel is missing.
    """
    is_array = recording.path.suffix.lower() in ARRAY_SUFFIXES
    has_no_names = _are_numbered(recording.channels)
    model_has_none = _are_numbered(channels) and len(channels) == len(recording.channels)
    by_position = is_array and (has_no_names or model_has_none)
    if not by_position or set(channels) <= set(recording.channels):
        return recording.select(channels)
    if len(channels) != len(recording.channels):
        raise DataError(
            f"{recording.path} has {len(recording.channels)} columns without names, the model "
            f"takes {len(channels)} channels",
            f"wanted: {', '.join(channels)}; leave columns out with --ignore c0, c1, …",
        )
    warning = f"columns have no names and are taken in order: {', '.join(channels)}"
    if not has_no_names:
        found = ", ".join(recording.channels)
        warning = f"the model's channels have no names, columns are taken in order: {found}"
    return replace(recording, channels=tuple(channels), warnings=(*recording.warnings, warning))


def _are_numbered(channels: Sequence[str]) -> bool:
    """Whether these are the names that the reader gives to the columns of an array."""
    return all(re.fullmatch(r"c\d+", name) for name in channels)


def score_recording(scorer: SignalScorer, recording: Recording) -> RecordingScores:
    """Scores every row; each segment starts anew.

    Args:
        scorer: Of the model; what it saw before is forgotten.
        recording: With the model's channels, as from `match_recording`.

    Raises:
        EngineError: The engine failed.
    """
    found = RecordingScores(
        scores=np.empty(len(recording), np.float32), states=np.empty(len(recording), np.uint8)
    )
    stops = (*recording.segments[1:], len(recording))
    for segment, stop in zip(recording.segments, stops, strict=True):
        scorer.reset()
        for start in range(segment, stop, CHUNK_ROWS):
            rows = slice(start, min(start + CHUNK_ROWS, stop))
            chunk = scorer.push(recording.values[rows])
            found.scores[rows], found.states[rows] = chunk.scores, chunk.states
    return found
