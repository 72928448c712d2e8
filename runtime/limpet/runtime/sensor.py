"""A sensor node: `SensorStream` sends rows and returns their scores, each exactly once.

    with SensorStream("tcp://127.0.0.1:7700", "pump-3", ["pressure", "flow"], rate_hz=100) as pump:
        for scored in pump.send(rows):
            ...
        scored = pump.flush()

What the server has not acknowledged is kept and sent again after a timeout, a reconnect or a
restart of the server.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.errors import LimpetError, RejectedError, RequestTimeoutError
from limpet.contracts.messages import Reply
from limpet.contracts.signals import Float32, States
from limpet.contracts.stream_messages import (
    CloseStream,
    OpenStream,
    Samples,
    Scores,
    StreamClosed,
    StreamOpened,
)
from limpet.contracts.tensors import Tensors
from limpet.runtime.closing import Closing
from limpet.runtime.connection import Connection, as_error

RESEND_AFTER_S = 1.0
"""Seconds without any acknowledgement after which the stream is opened again."""
_TRY_AGAIN = ("unknown_stream", "no_credit", "overloaded", "stopping")


@dataclass(frozen=True)
class ScoredRows:
    """Acknowledged rows.

    Attributes:
        sequence: Number of the first one in the stream.
        scores: NaN where a row is not scored. (n,)
        states: A `RowState` for each row. (n,)
        incident: Number of the incident that is open after them, 0 for none.
        latency_s: From the (last) sending to the acknowledgement.
    """

    sequence: int
    scores: Float32
    states: States
    incident: int
    latency_s: float


@dataclass
class _Rows:
    """Rows that wait for their acknowledgement; `sent_s` is None until they are under way."""

    request: Samples
    values: NDArray[np.floating]
    sent_s: float | None = None


class SensorStream(Closing):
    """A stream of rows to one server.

    Args:
        endpoint: The server's.
        stream: Name of the stream; one node at a time may feed it.
        channels: Names of the columns of the rows.
        rate_hz: Rows per second.
        model: The model that scores it; empty lets the server choose.
        timeout_s: Longest time without any acknowledgement before an error is raised.

    Raises:
        RequestTimeoutError: No server answers.
        RejectedError: The server refuses the stream.
    """

    def __init__(
        self,
        endpoint: str,
        stream: str,
        channels: Sequence[str],
        *,
        rate_hz: float,
        model: str = "",
        timeout_s: float = 30.0,
    ) -> None:
        self.name, self._channels, self._rate_hz = stream, list(channels), rate_hz
        self._model, self._timeout_s = model, timeout_s
        self._session = secrets.token_hex(8)
        self._next_sequence = 0
        self._waiting: OrderedDict[int, _Rows] = OrderedDict()  # by sequence
        self._scored: list[ScoredRows] = []
        self._refusals: deque[Reply] = deque()  # met while waiting for another reply
        self._connection = Connection(endpoint, stream)
        self._connection.on_other = self._note
        self._progress_s = time.monotonic()
        try:
            self.opened = self._open(time.monotonic() + timeout_s)
            self._connection.sync_clock(timeout_s)
        except LimpetError:
            self._connection.close()
            raise

    def skip(self, rows: int) -> None:
        """Leaves rows out that the sensor could not measure: the server sees a gap."""
        self._next_sequence += rows

    def send(
        self, values: NDArray[np.floating], first_time_ns: int | None = None
    ) -> list[ScoredRows]:
        """Sends rows; waits only while the server's credits are used up, or for a server that
        has stopped or does not know the stream any more.

        Args:
            values: float32 or float64 (n, channels); NaN where a channel was not measured.
            first_time_ns: When the first row was measured (Unix ns on this host's clock); by
                default the last row was measured now.

        Returns:
            Rows acknowledged since the last call, in order; possibly none.

        Raises:
            RequestTimeoutError: Nothing was acknowledged for `timeout_s`. All rows given so far
                are kept and will still be sent by further calls.
            RejectedError, FailedError: The server refuses the rows, or could not score them; they
                are given up, and what follows shows it a gap.
        """
        if first_time_ns is None:
            first_time_ns = time.time_ns() - round((len(values) - 1) / self._rate_hz * 1e9)
        first_time_ns = self._connection.server_time_ns(first_time_ns, RESEND_AFTER_S)
        for start in range(0, len(values), self.opened.max_rows):
            rows = np.ascontiguousarray(values[start : start + self.opened.max_rows])
            request = Samples(
                id=self._connection.next_id(),
                stream=self.name,
                session=self._session,
                sequence=self._next_sequence,
                first_time_ns=max(0, first_time_ns + round(start / self._rate_hz * 1e9)),
                rate_hz=self._rate_hz,
            )
            self._waiting[request.sequence] = _Rows(request, rows)
            self._next_sequence += len(rows)
        self._send_waiting()
        self._collect(until_waiting=self.opened.credits)
        self._receive(time.monotonic())
        return self._take()

    def wait(self, seconds: float) -> list[ScoredRows]:
        """Lets time pass between two measurements; returns rows acknowledged meanwhile.

        Raises:
            RejectedError, FailedError: As `send`.
        """
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._receive(until_s)
        return self._take()

    def flush(self) -> list[ScoredRows]:
        """Waits until every row sent is acknowledged; raises as `send`."""
        self._collect(until_waiting=0)
        return self._take()

    def close(self) -> None:
        """Ends the stream in good order where the server still answers."""
        try:
            close = CloseStream(
                id=self._connection.next_id(), stream=self.name, session=self._session
            )
            self._connection.request(close, StreamClosed, timeout_s=1.0)
        except LimpetError:
            pass  # the server will find it silent
        finally:
            self._connection.close()

    def _take(self) -> list[ScoredRows]:
        scored, self._scored = self._scored, []
        return scored

    def _collect(self, until_waiting: int) -> None:
        """Receives, and recovers from what goes wrong, until few enough messages wait."""
        if not self._waiting:
            self._progress_s = time.monotonic()
        while len(self._waiting) > until_waiting:
            if not self._receive(time.monotonic() + RESEND_AFTER_S):
                self._recover()
            self._send_waiting()

    def _receive(self, deadline_s: float) -> bool:
        """Takes replies that are there, waiting for the first; whether any came."""
        while self._refusals:
            self._handle(self._refusals.popleft(), {})
        answer = self._connection.receive(deadline_s)
        if answer is None:
            return False
        while answer is not None:
            self._handle(*answer)
            answer = self._connection.receive(time.monotonic())
        return True

    def _handle(self, reply: Reply, tensors: Tensors) -> None:
        self._take_scores(reply, tensors)
        rows = next((r for r in self._waiting.values() if r.request.id == reply.id), None)
        if rows is None or isinstance(reply, Scores):
            return
        if isinstance(reply, messages.Rejected) and reply.code in _TRY_AGAIN:
            if reply.code != "unknown_stream":  # that one says that the server restarted
                time.sleep(0.05)
            self._recover()
            return
        del self._waiting[rows.request.sequence]
        raise as_error(reply)

    def _note(self, reply: Reply, tensors: Tensors) -> None:
        """Takes a reply that comes while another one is waited for."""
        self._take_scores(reply, tensors)
        if isinstance(reply, messages.Rejected | messages.Failed):
            self._refusals.append(reply)

    def _take_scores(self, reply: Reply, tensors: Tensors) -> None:
        """Notes an acknowledgement; of rows sent twice, the first one to come."""
        if not isinstance(reply, Scores):
            return
        rows = self._waiting.pop(reply.sequence, None)
        if rows is None:
            return
        now_s = self._progress_s = time.monotonic()
        self._scored.append(
            ScoredRows(
                reply.sequence,
                tensors["scores"],
                tensors["states"],
                reply.incident,
                now_s - (rows.sent_s or now_s),
            )
        )

    def _recover(self) -> None:
        """Opens the stream again and sends everything unacknowledged once more, in order."""
        while True:
            deadline_s = self._progress_s + self._timeout_s  # acknowledgements may still come
            if time.monotonic() > deadline_s:
                self._progress_s = time.monotonic()
                raise RequestTimeoutError(
                    f"nothing acknowledged for {self._timeout_s:g} s by {self._connection.endpoint}"
                )
            try:
                self.opened = self._open(min(deadline_s, time.monotonic() + RESEND_AFTER_S))
                break
            except RequestTimeoutError:
                continue
            except RejectedError as error:
                if error.code not in _TRY_AGAIN:
                    raise
                time.sleep(0.05)
        for rows in self._waiting.values():
            # A new id: the answer to the earlier copy may still come, as a refusal even.
            rows.request.id, rows.sent_s = self._connection.next_id(), None
        self._send_waiting()

    def _open(self, deadline_s: float) -> StreamOpened:
        first = next(iter(self._waiting.values()), None)
        request = OpenStream(
            id=self._connection.next_id(),
            stream=self.name,
            session=self._session,
            model=self._model,
            channels=self._channels,
            next_sequence=first.request.sequence if first else self._next_sequence,
        )
        timeout_s = max(0.0, deadline_s - time.monotonic())
        opened, _ = self._connection.request(request, StreamOpened, timeout_s)
        return opened

    def _send_waiting(self) -> None:
        """Sends, in order, what waits and what the credits allow."""
        for rows in itertools.islice(self._waiting.values(), self.opened.credits):
            if rows.sent_s is not None:
                continue
            rows.sent_s = time.monotonic()
            try:
                self._connection.send(
                    rows.request, {"values": rows.values}, rows.sent_s + RESEND_AFTER_S
                )
            except RequestTimeoutError:
                rows.sent_s = None
                return  # not connected: later ones must not overtake it
