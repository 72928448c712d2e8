"""One sensor stream of a server: sequence numbers, scores, what was answered.

Its messages are handled by its model's worker, one after another.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict

import msgspec
import numpy as np

from limpet.contracts.clock import Clock
from limpet.contracts.errors import EngineError, RejectedError
from limpet.contracts.scoring import RowScores
from limpet.contracts.signals import LAST_SCORED, Float32, RowState, States
from limpet.contracts.stream_messages import OpenStream, Samples, Scores, StreamOpened
from limpet.contracts.tensors import Array, Tensors
from limpet.runtime.alert_log import AlertLog
from limpet.runtime.config import StreamConfig
from limpet.runtime.models import ServedModel
from limpet.runtime.stream_alerts import Draft, StreamAlerts

CREDITS = 16
"""Unanswered `Samples` that one stream may have."""
MAX_ROWS = 4096
"""Most rows in one `Samples`."""
REMEMBERED_GAPS = 64
"""Gaps of a stream whose rows are still recognised as late when they come after all."""
_LAST_ROW, _LAST_NS = 2**62, 2**63 - 1
"""Largest row number and time that an alert can carry."""

_STATES = tuple(RowState)
_SCORED = bytes([RowState.SCORED])
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_STATE_NAMES = [state.name.lower() for state in RowState]

Answer = tuple[Scores, Tensors]


class Pending(msgspec.Struct, frozen=True):
    """A message of a stream whose new rows are to be scored.

    Attributes:
        stream: Whose.
        request: Its header.
        rows: The model's channels: rows to fill a gap, and new ones. (n, c)
        known: Rows of the message before those, that came before.
        first: Number of the first of `rows`.
        gap: Rows missing before the new ones.
        skipped: Of these, rows that are too many to be filled.
    """

    stream: Stream
    request: Samples
    rows: Array
    known: int
    first: int
    gap: int
    skipped: int


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

    Attributes:
        scorer: What scores a `Pending`.
        pending: Messages that wait for their answers.
        last_seen_s: When its node last sent something, by the monotonic clock.
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
        self.scorer = model.scorer()
        self._alerts = StreamAlerts(name, self.scorer, model, config, log, clock)
        self._counts: Counter[str] = Counter()
        self.pending = 0
        self.last_seen_s = time.monotonic()
        self._next_sequence: int | None = None
        self._last_state = RowState.WARMING_UP
        self._columns: list[int] = []
        self._all_columns = False
        self._width = 0
        self._answers: OrderedDict[int, Answer] = OrderedDict()
        self._gaps: list[tuple[int, int]] = []

    @property
    def next_sequence(self) -> int:
        """Number of the first row that is not acknowledged yet."""
        return self._next_sequence or 0

    @property
    def counts(self) -> dict[str, int]:
        """Rows by state, gaps, and alerts; what never happened is not there."""
        alerts = self._alerts.recorded
        return {**self._counts, "alerts": alerts} if alerts else dict(self._counts)

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
        if self._alerts.incident:
            return "incident"
        return self._last_state.name.lower() if self._last_state != RowState.SCORED else "normal"

    def open(self, request: OpenStream) -> StreamOpened:
        """Takes the session's first message, or the same again after a reconnect."""
        signal = self.model.manifest.signal()
        self._columns = [request.channels.index(name) for name in signal.channels]
        self._all_columns = self._columns == list(range(len(request.channels)))
        self._width = len(request.channels)
        if self._next_sequence is None:
            self._next_sequence = request.next_sequence
        return StreamOpened(
            id=request.id,
            stream=self.name,
            next_sequence=self.next_sequence,
            credits=CREDITS,
            max_rows=MAX_ROWS,
            warm_up_rows=self.scorer.preprocessor.warm_up_rows,
            model=self.model.name,
            threshold=self._alerts.threshold,
        )

    def begin(self, request: Samples, values: Array) -> Pending | Answer:
        """Takes a message: what of it is to be scored, or its answer where nothing is.

        Args:
            request: The header.
            values: float32 or float64 (rows, channels as announced).

        Raises:
            RejectedError: The rows do not fit what was announced.
        """
        self._check(request, values)
        if (old := self._answers.get(request.sequence)) and len(old[1]["scores"]) == len(values):
            self._counts["repeated"] += len(values)
            answer, tensors = old
            return msgspec.structs.replace(answer, id=request.id), tensors
        known = min(max(0, self.next_sequence - request.sequence), len(values))
        if known == len(values):
            scores_n: Float32 = np.full(known, np.nan, np.float32)
            return self._answer(request, self._known_rows(request.sequence, known), scores_n)
        first, rows = request.sequence + known, values[known:]
        if not self._all_columns:
            rows = rows[:, self._columns]
        gap = first - self.next_sequence
        if gap > self.scorer.preprocessor.longest_fill_rows:
            self.scorer.reset()
            return Pending(self, request, rows, known, first, gap, skipped=gap)
        if gap > 0:
            # Missing rows count as unmeasured where they are few enough to be filled.
            unmeasured = np.full((gap, rows.shape[1]), np.nan, rows.dtype)
            rows, first = np.concatenate([unmeasured, rows]), self.next_sequence
        return Pending(self, request, rows, known, first, gap, skipped=0)

    def draft(self, pending: Pending, rows: RowScores) -> Draft:
        """The alerts of scored rows; raises where no acknowledgement may follow."""
        scored = np.add.reduce(rows.scores)  # NaN where one has no score, as while warming up
        if not math.isfinite(scored) and not _all_finite(rows):
            raise EngineError(f"model {self.model.name!r} gave a score that is not finite")
        return self._alerts.draft(pending.request, pending.first, rows, pending.skipped)

    def finish(self, pending: Pending, rows: RowScores, draft: Draft) -> Answer:
        """The acknowledgement, once the alerts are in the log."""
        self._alerts.keep(draft, rows)
        if pending.gap > 0:
            self._counts["gaps"] += 1
            self._counts["missing"] += pending.gap
            missing = (self.next_sequence, self.next_sequence + pending.gap)
            self._gaps = [*self._gaps, missing][-REMEMBERED_GAPS:]
        states, scores_n = rows.states, rows.scores
        self._next_sequence = pending.first + len(states)
        self._last_state = _STATES[states[-1]]
        if pending.gap > 0:
            new = self._next_sequence - pending.request.sequence
            states, scores_n = states[-new:], scores_n[-new:]
        if pending.known:
            before = self._known_rows(pending.request.sequence, pending.known)
            states = np.concatenate([before, states])
            scores_n = np.concatenate([np.full(pending.known, np.nan, np.float32), scores_n])
        return self._answer(pending.request, states, scores_n)

    def fail(self) -> None:
        """Warms up anew: nothing of the rows that were begun is acknowledged."""
        self.scorer.reset()
        self._last_state = RowState.WARMING_UP

    def _answer(self, request: Samples, states: States, scores_n: Float32) -> Answer:
        raw = states.tobytes()  # bytes count several times as fast as small arrays
        if raw.count(_SCORED) == len(raw):
            self._counts[_STATE_NAMES[RowState.SCORED]] += len(raw)
        else:
            for state, count in enumerate(np.bincount(states).tolist()):
                if count:
                    self._counts[_STATE_NAMES[state]] += count
        answer = Scores(
            id=request.id,
            stream=self.name,
            sequence=request.sequence,
            next_sequence=self.next_sequence,
            incident=self._alerts.incident,
        )
        tensors: Tensors = {"scores": scores_n, "states": states}
        self._answers[request.sequence] = answer, tensors
        while len(self._answers) > CREDITS:
            self._answers.popitem(last=False)
        return answer, tensors

    def _check(self, request: Samples, values: Array) -> None:
        if self._next_sequence is None:
            raise RejectedError("unknown_stream", f"stream {self.name!r} was refused when opened")
        if values.dtype not in _FLOATS or values.ndim != 2 or values.shape[1] != self._width:
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


def _all_finite(rows: RowScores) -> bool:
    return bool(np.isfinite(rows.scores[rows.states <= LAST_SCORED]).all())
