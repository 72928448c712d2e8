"""What an incident looks like to its model when it opens, to compare incidents of several streams.

Dimension legend: k calm frames that are kept, e embedding.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from limpet.contracts.scoring import RowScores
from limpet.contracts.signals import Float32

CALM_FRAMES = 128
"""Newest calm frames of a stream that say what is normal for it."""
LEAST_CALM_FRAMES = 16
"""Fewer say too little."""
LEAST_SPREAD = 0.1
"""A dimension spreads at least by this share of what all do on average: one that never moves in
normal operation must not outweigh all others at its first twitch."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """An incident at its opening.

    Attributes:
        look_back_s: Seconds that a score looks back on: an onset is known to within them.
        direction: Deviation of the embedding from the stream's own calm frames, each dimension in
            its own spread, scaled to length 1: which way the stream left normal, not how far.
            None where too few calm frames are known. (e,)
    """

    look_back_s: float
    direction: Float32 | None


class Fingerprinter:
    """Remembers the calm frames of one stream and compares later ones with them.

    Args:
        release_threshold: A frame scoring below this is calm.
    """

    def __init__(self, release_threshold: float) -> None:
        self._release_threshold = release_threshold
        self._calm: deque[Float32] = deque()  # chunks, (k, e) in all
        self._count = 0
        self._newest: Float32 | None = None  # embedding, calm or not, (e,)

    def push(self, rows: RowScores) -> None:
        """Takes the next rows of the stream."""
        if not len(rows.embeddings):
            return
        self._newest = rows.embeddings[-1].copy()
        calm = self._calm_of(rows, len(rows.embeddings))
        if len(calm):
            self._calm.append(calm)
            self._count += len(calm)
            while self._count - len(self._calm[0]) >= CALM_FRAMES:
                self._count -= len(self._calm.popleft())

    def direction_at(self, rows: RowScores, index: int) -> Float32 | None:
        """Which way the stream has left normal at one of the next rows, before they are pushed.

        Args:
            rows: The rows after those pushed.
            index: Which of them; its frame must not be calm.

        Returns:
            Of length 1; None where too few calm frames came before. (e,)
        """
        frame = rows.prepared.newest_frame(index)
        embedding = rows.embeddings[frame] if frame >= 0 else self._newest
        calm = np.concatenate([*self._calm, self._calm_of(rows, max(frame, 0))])[-CALM_FRAMES:]
        if embedding is None or len(calm) < LEAST_CALM_FRAMES:
            return None
        calm = calm.astype(np.float64)
        spread = calm.std(axis=0)
        spread += LEAST_SPREAD * spread.mean()
        if not spread.min() > 0.0:  # frames that are all the same
            return None
        deviation = (embedding - calm.mean(axis=0)) / spread
        length = np.linalg.norm(deviation)
        return (deviation / length).astype(np.float32) if length > 0.0 else None

    def _calm_of(self, rows: RowScores, frames: int) -> Float32:
        """The newest calm ones of the first frames, a copy. (k, e)"""
        ends = rows.prepared.ends[:frames]
        each_row = len(ends) == len(rows.scores)  # is a frame
        scores = rows.scores if each_row else rows.scores[ends]
        calm = scores < self._release_threshold  # False for NaN, where a row is not scored
        embeddings: Float32
        if calm.all():  # nearly always, and much quicker
            embeddings = rows.embeddings[:frames][-CALM_FRAMES:].copy()
        else:
            embeddings = rows.embeddings[np.flatnonzero(calm)[-CALM_FRAMES:]]
        return embeddings
