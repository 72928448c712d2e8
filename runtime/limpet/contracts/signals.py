"""What rows of a multi-channel signal become: states, and frames for a model.

Dimension legend: n rows (samples in time), m frames (rows of model input), f features of a frame.
"""

from __future__ import annotations

import enum

import msgspec
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Flags = NDArray[np.bool_]
States = NDArray[np.uint8]


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


LAST_SCORED = int(RowState.PARTIAL)
"""States up to this one carry a score. A plain number: NumPy takes much longer over an enum."""

_SCORED = bytes([RowState.SCORED])


class Prepared(msgspec.Struct, frozen=True):
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
    begins: Flags
    scored: Flags

    def newest_frame(self, row: int) -> int:
        """The frame whose score holds at a row; -1 is the newest one before this chunk."""
        return int(np.searchsorted(self.ends, row, side="right")) - 1

    def row_scores(self, frame_scores: Float32, held: float) -> Float32:
        """One score a row: the newest frame's, NaN where the row is not scored.

        Args:
            frame_scores: Score of each frame. (m,)
            held: The score before this chunk, which holds until the first frame here.

        Returns:
            Scores, float32 (n,).
        """
        if len(frame_scores) == len(self.states):  # each row is a frame
            scores = frame_scores
        else:
            newest = np.searchsorted(self.ends, np.arange(len(self.states)), side="right")
            scores = np.concatenate([np.array([held], np.float32), frame_scores])[newest]
        if self.states.tobytes().count(_SCORED) == len(self.states):  # nearly always, much quicker
            own: Float32 = scores.copy()  # else it would keep what all streams of a call share
            return own
        row_scores: Float32 = np.where(self.states <= LAST_SCORED, scores, np.float32(np.nan))
        return row_scores
