"""From the scores of one stream to its alerts in the durable log."""

from __future__ import annotations

import copy

import msgspec
import numpy as np

from limpet.contracts.clock import Clock
from limpet.contracts.detector import Detector
from limpet.contracts.errors import TensorError
from limpet.contracts.fingerprints import Fingerprint, Fingerprinter
from limpet.contracts.messages import Alert, ChannelShare
from limpet.contracts.scoring import RowScores, SignalScorer
from limpet.contracts.stream_messages import Samples
from limpet.runtime.alert_log import AlertLog
from limpet.runtime.attribution import attribute_channels
from limpet.runtime.config import StreamConfig
from limpet.runtime.models import ServedModel


class Draft(msgspec.Struct, frozen=True):
    """What some rows of a stream come to, as long as their alerts are not in the log."""

    detector: Detector
    alerts: list[Alert]
    fingerprints: list[Fingerprint | None]
    start_ns: int
    channels: list[ChannelShare]


class StreamAlerts:
    """Incidents of one stream; one that is open in the log goes on.

    Args:
        stream: The stream's name.
        scorer: What scores it, asked for what a score looks back on.
        model: The same for all streams of the model.
        config: Thresholds and rows.
        log: Where alerts go: one that is open there goes on.
        clock: The server's.

    Attributes:
        incident: Number of the open incident, 0 for none.
        recorded: Alerts so far.
    """

    def __init__(
        self,
        stream: str,
        scorer: SignalScorer,
        model: ServedModel,
        config: StreamConfig,
        log: AlertLog,
        clock: Clock,
    ) -> None:
        self._stream, self._scorer, self._model = stream, scorer, model
        self._clock = clock
        self._detector = make_detector(model, config)
        self._fingerprinter = Fingerprinter(self._detector.release_threshold)
        self.incident = self._start_ns = self.recorded = 0
        self._channels: list[ChannelShare] = []  # of the incident
        if (newest := log.open_incident(stream)) is not None:
            self._detector.is_open = True
            self._detector.peak_score = newest.peak_score
            self._detector.rows = newest.rows
            self.incident, self._start_ns = newest.incident, newest.start_time_ns
            self._channels = newest.channels

    @property
    def threshold(self) -> float:
        """A row scoring at least this is anomalous."""
        return self._detector.threshold

    def draft(self, request: Samples, first: int, rows: RowScores, skipped: int) -> Draft:
        """What some rows come to; nothing has changed before `keep`.

        Args:
            request: The message that brought them.
            first: Number of the first of them.
            rows: Their scores.
            skipped: Rows before them that never came.

        Raises:
            EngineError: The engine failed to say why.
        """
        if not skipped and self._detector.ignores(rows.scores):
            return Draft(self._detector, [], [], self._start_ns, self._channels)
        detector, start_ns = copy.copy(self._detector), self._start_ns
        channels = self._channels
        if skipped:
            detector.skip(skipped)
        period_ns = 1e9 / request.rate_hz

        def time_of(row: int) -> int:
            return max(0, request.first_time_ns + round((row - request.sequence) * period_ns))

        alerts, incident = [], self.incident
        fingerprints: list[Fingerprint | None] = []
        look_back_s = (self._scorer.preprocessor.warm_up_rows + 1) / request.rate_hz
        for event in detector.push(rows.scores):
            row = first + event.index
            if event.kind == "open":
                incident = 0  # the log numbers it
                start_ns = time_of(row - event.rows + 1)
                # Later alerts repeat it: asking the model anew takes as long as scoring a second
                # of a fast stream, and a fault of a whole plant is when there is no time for it.
                channels = self._attribute(rows, event.index)
                direction = self._fingerprinter.direction_at(rows, event.index)
                fingerprints.append(Fingerprint(look_back_s, direction))
            else:
                fingerprints.append(None)
            alerts.append(
                Alert(
                    log_id="",
                    sequence=0,
                    event=event.kind,
                    incident=incident,
                    stream=self._stream,
                    model=self._model.name,
                    space_id=self._model.manifest.space_id,
                    start_time_ns=start_ns,
                    time_ns=time_of(row),
                    row=row,
                    score=None if np.isnan(event.score) else event.score,
                    peak_score=event.peak_score,
                    threshold=self._detector.threshold,
                    rows=event.rows,
                    channels=channels,
                    recorded_ns=self._clock.now_ns(),
                )
            )
        return Draft(detector, alerts, fingerprints, start_ns, channels)

    def keep(self, draft: Draft, rows: RowScores) -> None:
        """Goes on from the draft of some rows, whose alerts are in the log."""
        self._detector = draft.detector
        self._fingerprinter.push(rows)
        if draft.alerts:
            last = draft.alerts[-1]
            self.incident = 0 if last.event == "close" else last.incident
            self._start_ns, self._channels = draft.start_ns, draft.channels
            self.recorded += len(draft.alerts)

    def _attribute(self, rows: RowScores, index: int) -> list[ChannelShare]:
        frame = rows.prepared.newest_frame(index)
        try:
            frames, present = self._scorer.looked_back_on(frame)
        except TensorError:  # an incident goes on while the stream warms up anew
            return []
        return attribute_channels(
            frames,
            present,
            self._model.manifest.signal().channels,
            lambda frames, present: self._scorer.model.replay(frames, present)[1],
        )


def make_detector(model: ServedModel, config: StreamConfig) -> Detector:
    """A detector with the thresholds that hold: the configuration's, else the bundle's."""
    calibration, wanted = model.manifest.calibration, config.detector
    assert calibration is not None  # `read_bundle` refuses an anomaly bundle without
    threshold = calibration.threshold if wanted.threshold is None else wanted.threshold
    release = wanted.release_threshold
    if release is None:
        release = min(calibration.release_threshold, threshold)
    return Detector(wanted, threshold, release)
