"""The sensor streams of a server: sessions, sequence numbers, scores, incidents.

The I/O thread looks streams up in the `StreamTable`; a stream's own messages are handled by its
model's worker, one after another.
"""

from __future__ import annotations

import copy
import fnmatch
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from limpet.contracts.clock import Clock
from limpet.contracts.detector import Detector, Event
from limpet.contracts.errors import ConfigError, EngineError, RejectedError, TensorError
from limpet.contracts.messages import Alert, ChannelShare, OpenStream, Samples, Scores, StreamOpened
from limpet.contracts.scoring import RowScores
from limpet.contracts.signals import LAST_SCORED, Float32, RowState, States
from limpet.contracts.tensors import Array, Tensors
from limpet.runtime.alert_log import AlertLog
from limpet.runtime.attribution import attribute_channels
from limpet.runtime.config import StreamConfig
from limpet.runtime.models import ServedModel

CREDITS = 16
"""Unanswered `Samples` that one stream may have."""
MAX_ROWS = 4096
"""Most rows in one `Samples`."""
REMEMBERED_GAPS = 64
"""Gaps of a stream whose rows are still recognised as late when they come after all."""
_LAST_ROW, _LAST_NS = 2**62, 2**63 - 1
"""Largest row number and time that an alert can carry."""

Answer = tuple[Scores, Tensors]


class Stream:
    """One run of a sensor node, feeding one stream.

    Args:
        name: The stream's name.
        session: The run's name.
        peer: The connection that feeds it.
        model: What scores it.
        config: How.
        log: Where its alerts go; an incident that is open there goes on.
        clock: The server's.
    """

    def __init__(
        self,
        name: str,
        session: str,
        peer: bytes,
        model: ServedModel,
        config: StreamConfig,
        log: AlertLog,
        clock: Clock,
    ) -> None:
        self.name, self.session, self.model, self.config = name, session, model, config
        self.peer = peer
        self._log, self._clock = log, clock
        self._scorer = model.scorer()
        self._detector = _make_detector(model, config)
        self._incident = self._incident_start_ns = 0
        if (incident := log.open_incident(name)) is not None:
            self._detector.is_open = True
            self._detector.peak_score = incident.peak_score
            self._detector.rows = incident.rows
            self._incident, self._incident_start_ns = incident.incident, incident.start_time_ns
        self.counts: Counter[str] = Counter()
        self.pending = 0
        self.last_seen_s = time.monotonic()
        self._next_sequence: int | None = None
        self._last_state = RowState.WARMING_UP
        self._columns: list[int] = []
        self._width = 0
        self._answers: OrderedDict[int, Answer] = OrderedDict()
        self._gaps: list[tuple[int, int]] = []

    @property
    def next_sequence(self) -> int:
        """Number of the first row that is not acknowledged yet."""
        return self._next_sequence or 0

    @property
    def is_silent(self) -> bool:
        """Whether its node has sent nothing for longer than the configuration allows, and
        nothing that it sent waits here.
        """
        quiet_s = time.monotonic() - self.last_seen_s
        return self.pending == 0 and quiet_s > self.config.silent_after_s

    @property
    def state(self) -> str:
        """What heartbeats say of it."""
        if self.is_silent:
            return "silent"
        if self._incident:
            return "incident"
        return self._last_state.name.lower() if self._last_state != RowState.SCORED else "normal"

    def open(self, request: OpenStream) -> StreamOpened:
        """Takes the session's first message, or the same again after a reconnect."""
        signal = self.model.manifest.signal()
        self._columns = [request.channels.index(name) for name in signal.channels]
        self._width = len(request.channels)
        if self._next_sequence is None:
            self._next_sequence = request.next_sequence
        return StreamOpened(
            id=request.id,
            stream=self.name,
            next_sequence=self.next_sequence,
            credits=CREDITS,
            max_rows=MAX_ROWS,
            warm_up_rows=self._scorer.preprocessor.warm_up_rows,
            model=self.model.name,
            threshold=self._detector.threshold,
        )

    def push(self, request: Samples, values: Array) -> Answer:
        """Scores rows and makes their alerts durable.

        Args:
            request: The header.
            values: float32 or float64 (rows, channels as announced).

        Raises:
            RejectedError: The rows do not fit what was announced.
            EngineError, AlertLogError: Nothing of these rows is acknowledged; the stream warms up
                anew.
        """
        self._check(request, values)
        if (old := self._answers.get(request.sequence)) and len(old[1]["scores"]) == len(values):
            self.counts["repeated"] += len(values)
            answer, tensors = old
            return msgspec.structs.replace(answer, id=request.id), tensors
        states: States = np.empty(len(values), np.uint8)
        scores_n: Float32 = np.full(len(values), np.nan, np.float32)
        known = min(max(0, self.next_sequence - request.sequence), len(values))
        states[:known] = self._known_rows(request.sequence, known)
        if known < len(values):
            rows = self._score(request, request.sequence + known, values[known:, self._columns])
            new = len(values) - known
            states[known:], scores_n[known:] = rows.states[-new:], rows.scores[-new:]
            self._last_state = RowState(int(states[-1]))
        for state, count in zip(*np.unique(states, return_counts=True), strict=True):
            self.counts[RowState(int(state)).name.lower()] += int(count)
        answer = Scores(
            id=request.id,
            stream=self.name,
            sequence=request.sequence,
            next_sequence=self.next_sequence,
            incident=self._incident,
        )
        tensors = {"scores": scores_n, "states": states}
        self._answers[request.sequence] = answer, tensors
        while len(self._answers) > CREDITS:
            self._answers.popitem(last=False)
        return answer, tensors

    def _check(self, request: Samples, values: Array) -> None:
        if self._next_sequence is None:
            raise RejectedError("unknown_stream", f"stream {self.name!r} was refused when opened")
        if (
            values.dtype.name not in ("float32", "float64")
            or values.ndim != 2
            or values.shape[1] != self._width
        ):
            raise RejectedError(
                "bad_input",
                f"values are {values.dtype.name} {list(values.shape)}, "
                f"wanted float32 or float64 [rows, {self._width}] as announced",
            )
        if len(values) > MAX_ROWS:
            raise RejectedError("bad_input", f"{len(values)} rows at once, at most {MAX_ROWS}")
        if request.sequence + len(values) > _LAST_ROW:
            raise RejectedError("bad_input", f"row numbers end at {_LAST_ROW}")
        if request.first_time_ns + len(values) * 1e9 / request.rate_hz > _LAST_NS:
            raise RejectedError(
                "bad_input",
                f"{len(values)} rows at {request.rate_hz:g} Hz from {request.first_time_ns} ns end "
                f"beyond {_LAST_NS} ns",
                "times are Unix nanoseconds, rates rows per second",
            )

    def _known_rows(self, sequence: int, count: int) -> States:
        """Rows before the expected one: late where they fill a gap, else repeated."""
        rows = np.arange(sequence, sequence + count)
        states = np.full(count, RowState.REPEATED, np.uint8)
        for start, stop in self._gaps:
            states[(rows >= start) & (rows < stop)] = RowState.LATE
        return states

    def _score(self, request: Samples, first: int, values: Array) -> RowScores:
        """Scores rows from number `first` on; what they change is kept if all of it succeeds.

        Rows missing before them count as unmeasured where they are few enough to be filled, and
        stand in front of the result.
        """
        gap = first - self.next_sequence
        detector = copy.copy(self._detector)
        try:
            if gap > self._scorer.preprocessor.longest_fill_rows:
                self._scorer.reset()
                detector.skip(gap)
            elif gap > 0:
                unmeasured = np.full((gap, values.shape[1]), np.nan, values.dtype)
                values, first = np.concatenate([unmeasured, values]), self.next_sequence
            rows = self._scorer.push(values)
            if not np.isfinite(rows.scores[rows.states <= LAST_SCORED]).all():
                raise EngineError(f"model {self.model.name!r} gave a score that is not finite")
            self._record(request, first, rows, detector.push(rows.scores))
        except BaseException:
            self._scorer.reset()
            self._last_state = RowState.WARMING_UP
            raise
        self._detector = detector
        if gap > 0:
            self.counts["gaps"] += 1
            self.counts["missing"] += gap
            missing = (self.next_sequence, self.next_sequence + gap)
            self._gaps = [*self._gaps, missing][-REMEMBERED_GAPS:]
        self._next_sequence = first + len(values)
        return rows

    def _record(
        self, request: Samples, first: int, rows: RowScores, events: Sequence[Event]
    ) -> None:
        """Appends the alerts of `events` among rows from number `first` on to the log."""
        if not events:
            return
        period_ns = 1e9 / request.rate_hz

        def time_of(row: int) -> int:
            return max(0, request.first_time_ns + round((row - request.sequence) * period_ns))

        alerts, incident, start_ns = [], self._incident, self._incident_start_ns
        for event in events:
            row = first + event.index
            if event.kind == "open":
                incident = 0  # the log numbers it
                start_ns = time_of(row - event.rows + 1)
            alerts.append(
                Alert(
                    log_id="",
                    sequence=0,
                    event=event.kind,
                    incident=incident,
                    stream=self.name,
                    model=self.model.name,
                    space_id=self.model.manifest.space_id,
                    start_time_ns=start_ns,
                    time_ns=time_of(row),
                    row=row,
                    score=None if np.isnan(event.score) else event.score,
                    peak_score=event.peak_score,
                    threshold=self._detector.threshold,
                    rows=event.rows,
                    channels=self._attribute(rows, event.index),
                    recorded_ns=self._clock.now_ns(),
                )
            )
        self._log.append(alerts)
        last = alerts[-1]
        self._incident = 0 if last.event == "close" else last.incident
        self._incident_start_ns = start_ns
        self.counts["alerts"] += len(alerts)

    def _attribute(self, rows: RowScores, index: int) -> list[ChannelShare]:
        frame = int(np.searchsorted(rows.prepared.ends, index, side="right")) - 1
        try:
            frames, present = self._scorer.looked_back_on(frame)
        except TensorError:  # an incident goes on while the stream warms up anew
            return []
        return attribute_channels(
            frames,
            present,
            self.model.manifest.signal().channels,
            lambda frames, present: self._scorer.model.replay(frames, present)[1],
        )


def _check_channels(model: ServedModel, request: OpenStream) -> None:
    wanted = model.manifest.signal().channels
    missing = [name for name in wanted if name not in request.channels]
    if missing:
        raise RejectedError(
            "bad_input",
            f"stream {request.stream!r} lacks channel {', '.join(map(repr, missing))}, "
            f"found {request.channels}",
            f"model {model.name!r} wants {wanted}",
        )


def _make_detector(model: ServedModel, config: StreamConfig) -> Detector:
    calibration, wanted = model.manifest.calibration, config.detector
    assert calibration is not None  # `read_bundle` refuses an anomaly bundle without
    threshold = calibration.threshold if wanted.threshold is None else wanted.threshold
    release = wanted.release_threshold
    if release is None:
        release = min(calibration.release_threshold, threshold)
    return Detector(wanted, threshold, release)


class StreamTable:
    """Streams by name. Used from the I/O thread alone.

    Args:
        configs: `[[streams]]` tables; the first that matches a name holds.
        models: Served models by name.
        log: The alert log.
        clock: The server's.
        max_streams: Streams that may be open at a time.

    Raises:
        ConfigError: A table names a model that is not served or scores no streams, or its
            thresholds do not fit together.
    """

    def __init__(
        self,
        configs: Sequence[StreamConfig],
        models: Mapping[str, ServedModel],
        log: AlertLog,
        clock: Clock,
        max_streams: int,
    ) -> None:
        self._configs, self._log, self._clock = configs, log, clock
        self._max_streams = max_streams
        self._scoring = {k: m for k, m in models.items() if m.manifest.kind == "anomaly"}
        self._streams: dict[str, Stream] = {}
        for config in configs:
            if config.model and config.model not in self._scoring:
                raise ConfigError(
                    f"streams {config.match!r} name model {config.model!r}, which is not served "
                    "or scores no streams",
                    f"models that do: {', '.join(self._scoring) or 'none'}",
                )
            for name, model in self._scoring.items():
                detector = _make_detector(model, config)
                if config.model in ("", name) and detector.release_threshold > detector.threshold:
                    raise ConfigError(
                        f"streams {config.match!r}: release_threshold is "
                        f"{detector.release_threshold:g}, wanted at most the threshold of model "
                        f"{name!r}, {detector.threshold:g}"
                    )

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, request: OpenStream, peer: bytes) -> Stream:
        """The stream that a session may feed from now on, over the connection `peer`.

        Raises:
            RejectedError: A live session feeds it, no model fits, it lacks a channel of the model,
                or there are too many streams.
        """
        stream = self._streams.get(request.stream)
        if stream is not None and stream.session == request.session:
            _check_channels(stream.model, request)
            stream.peer, stream.last_seen_s = peer, time.monotonic()
            return stream
        if stream is not None and not stream.is_silent:
            raise RejectedError(
                "stream_taken",
                f"stream {request.stream!r} is fed by another node",
                "give this one another name, or wait until that node has been silent for "
                f"{stream.config.silent_after_s:g} s",
            )
        config = next((c for c in self._configs if fnmatch.fnmatch(request.stream, c.match)), None)
        if config is None:
            raise RejectedError("unknown_stream", f"no [[streams]] table fits {request.stream!r}")
        model = self._model(request.model or config.model)
        _check_channels(model, request)
        if stream is None and len(self._streams) >= self._max_streams:
            silent = next((s for s in self if s.is_silent), None)
            if silent is None:
                raise RejectedError(
                    "overloaded",
                    f"{self._max_streams} streams are open, max_streams allows no more",
                )
            del self._streams[silent.name]
        self._streams[request.stream] = Stream(
            request.stream, request.session, peer, model, config, self._log, self._clock
        )
        return self._streams[request.stream]

    def get(self, name: str, session: str, peer: bytes) -> Stream:
        """The stream that a session has opened over the connection `peer`.

        A connection that broke may have lost messages. What comes over the next one is refused
        until the session has opened the stream there, so that it sends the lost ones first.

        Raises:
            RejectedError: It has not, or another took its place.
        """
        stream = self._streams.get(name)
        if stream is None or (stream.session, stream.peer) != (session, peer):
            raise RejectedError(
                "unknown_stream",
                f"stream {name!r} is not open in this session over this connection",
                "open it again",
            )
        stream.last_seen_s = time.monotonic()
        return stream

    def remove(self, stream: Stream) -> None:
        """Forgets a stream that its node has closed."""
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]

    def _model(self, name: str) -> ServedModel:
        if not name and len(self._scoring) == 1:
            return next(iter(self._scoring.values()))
        if name not in self._scoring:
            raise RejectedError(
                "unknown_model",
                f"no model {name!r} that scores streams" if name else "which model is not said",
                f"models that do: {', '.join(self._scoring) or 'none'}",
            )
        return self._scoring[name]
