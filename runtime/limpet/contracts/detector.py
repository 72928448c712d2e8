"""From scores of rows to incidents: threshold, hysteresis, minimum duration.

Pure logic, no clock and no I/O: the same scores give the same events in any chunking. A server runs
one for each stream, and an evaluation runs the same over a recording.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
import numpy as np

from limpet.contracts.signals import Float32

Rows = Annotated[int, msgspec.Meta(ge=1)]
# TOML has inf and nan; neither may be a score.
Score = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]


class DetectorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[streams.detector]` table: from scores to incidents."""

    threshold: Score | None = None
    """A row scoring at least this is anomalous; none takes the bundle's calibrated one."""
    release_threshold: Score | None = None
    """Rows below this end an incident; none takes the bundle's."""
    open_after_rows: Rows = 3
    """Anomalous rows in a row that open an incident."""
    close_after_rows: Rows = 16
    """Rows in a row below the release threshold that close it."""
    update_every_rows: Rows = 256
    """Rows between two updates of an open incident."""


@dataclass(frozen=True)
class Event:
    """A change of an incident.

    Attributes:
        kind: What happened.
        index: Which row of the chunk made it happen.
        score: Score of the row at `index`.
        peak_score: Highest score of the incident so far.
        rows: Rows from the first anomalous one to this one.
    """

    kind: Literal["open", "update", "close"]
    index: int
    score: float
    peak_score: float
    rows: int


@dataclass
class Detector:
    """State of one stream.

    Attributes:
        config: Its rows and thresholds; those that are None were filled in by the caller.
        threshold: A row scoring at least this is anomalous.
        release_threshold: Rows below this end an incident; at most `threshold`.
        is_open: Whether an incident is open. This and the following a restarted server sets from
            the alert log.
        peak_score: Highest score of the incident, or of the run of rows that may become one.
        rows: Rows since the first anomalous one, that one included.
    """

    config: DetectorConfig
    threshold: float
    release_threshold: float
    is_open: bool = False
    peak_score: float = 0.0
    rows: int = 0
    _calm_rows: int = field(default=0, init=False)
    _rows_since_event: int = field(default=0, init=False)

    def push(self, scores: Float32) -> list[Event]:
        """Takes the scores of the next rows.

        Args:
            scores: NaN where a row is not scored. Such a row neither feeds nor calms an incident,
                but it ends a run of anomalous rows that had not opened one yet. (n,)

        Returns:
            Events in order of their rows.
        """
        if self.ignores(scores):
            return []
        events = []
        for index, score in enumerate(scores.tolist()):
            kind = self._step(score)
            if kind is not None:
                events.append(Event(kind, index, score, self.peak_score, self.rows))
            if kind == "close":
                self.rows = 0
        return events

    def ignores(self, scores: Float32) -> bool:
        """Whether these scores of the next rows are no event and change nothing."""
        if self.is_open or self.rows:
            return False
        return not np.fmax.reduce(scores, initial=-np.inf) >= self.threshold  # NaN is no score

    def skip(self, rows: int) -> None:
        """Passes over rows that never came; no event is due before the next one that does."""
        self.rows = self.rows + rows if self.is_open else 0

    def _step(self, score: float) -> Literal["open", "update", "close"] | None:
        scored = not np.isnan(score)
        if not self.is_open:
            if not (scored and score >= self.threshold):
                self.rows = 0
                return None
            self.peak_score = score if self.rows == 0 else max(self.peak_score, score)
            self.rows += 1
            if self.rows < self.config.open_after_rows:
                return None
            self.is_open = True
            self._calm_rows = self._rows_since_event = 0
            return "open"
        self.rows += 1
        self._rows_since_event += 1
        if scored:
            self.peak_score = max(self.peak_score, score)
            self._calm_rows = self._calm_rows + 1 if score < self.release_threshold else 0
        if self._calm_rows >= self.config.close_after_rows:
            self.is_open = False
            return "close"
        if self._rows_since_event >= self.config.update_every_rows:
            self._rows_since_event = 0
            return "update"
        return None
