"""The sensor side of `limpet bench stream`: a process with one thread that feeds many streams.

It is an open loop. Message m of a stream is due when its newest row is measured, at a time fixed
beforehand, and its latency counts from then, so that waiting for a credit, for a socket or for
this very process counts as well. Streams are evenly out of phase and share a few connections.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.errors import RequestTimeoutError, WireError
from limpet.contracts.stream_messages import OpenStream, Samples, Scores, StreamOpened
from limpet.contracts.tensors import Tensors
from limpet.contracts.wire import decode_reply, encode
from limpet.runtime.bench.sensors_plan import SensorsPlan, SensorsReport
from limpet.runtime.connection import Connection, as_error
from limpet.runtime.frames import receive_frames, send_frames

CONNECTIONS = 4
"""Most connections that the streams share."""
OPENING = 32
"""Streams that are opened at a time: fewer than a model's queue takes."""
PATIENCE_S = 30.0
"""Longest wait for an answer outside the schedule."""
GRACE_S = 5.0
"""After the last message is due, longest wait for acknowledgements."""
LONGEST_SLEEP_S = 0.05
LEAST_TURN_NS = 1_000_000
"""From one look at clock and sockets to the next. Waking up for each message would take the core
that the server shares; what is sent or read later for it counts in the latency like all else."""
START_S = 0.05
"""From the last preparation to the first row."""


class _Reading(NamedTuple):
    """Where everything stands at one moment."""

    now_ns: int
    sensors_s: float
    server_s: float | None
    rows_acknowledged: int


class Sensors:
    """Streams of one process, each message with a number: streams in turn, as they are due.

    Args:
        plan: What to send.
        sockets: Connections to the server; stream s uses number s % len(sockets).
        values: Rows to play. (n, channels) float32
    """

    def __init__(
        self,
        plan: SensorsPlan,
        sockets: list[zmq.Socket[bytes]],
        values: NDArray[np.float32],
    ) -> None:
        self._plan, self._sockets, self._values = plan, sockets, values
        self._fds = [int(socket.getsockopt(zmq.FD)) for socket in sockets]
        n = plan.streams
        self._total = n * plan.messages_each
        self._credits = [0] * n
        self._due, self._sent = [0] * n, [0] * n
        self._offsets = [s * len(values) // n for s in range(n)]
        self._start_ns = self._unix_ns = 0
        self._acknowledged_ns = np.zeros(self._total, np.int64)
        self._sent_ns = np.zeros(self._total, np.int64)
        self._settled = 0
        self._rows_acknowledged = 0
        self._refused: Counter[str] = Counter()
        self._waited = np.zeros(self._total, bool)

    def open(self) -> None:
        """Opens every stream, a few at a time; raises the server's refusal."""
        plan = self._plan
        for first in range(0, plan.streams, OPENING):
            batch = range(first, min(first + OPENING, plan.streams))
            for stream in batch:
                request = OpenStream(
                    id=stream + 1, stream=_name(stream), session="bench", channels=plan.channels
                )
                send_frames(self._socket(stream), encode(request))
            for stream in batch:
                try:
                    self._socket(stream).setsockopt(zmq.RCVTIMEO, round(PATIENCE_S * 1000))
                    frames = receive_frames(self._socket(stream), wait=True)
                except zmq.Again:
                    raise RequestTimeoutError(
                        f"{plan.endpoint} opened no stream within {PATIENCE_S:g} s"
                    ) from None
                reply, _ = decode_reply(frames)
                if not isinstance(reply, StreamOpened):
                    raise as_error(reply)
                self._credits[reply.id - 1] = reply.credits

    def play(self) -> SensorsReport:
        """Sends everything when it is due, and waits for what is not acknowledged then."""
        plan, upcoming = self._plan, 0
        self._unix_ns = time.time_ns()
        self._start_ns = time.monotonic_ns() + round(START_S * 1e9)
        timed_from = plan.warm_up_messages * plan.streams
        timed_from_ns, end_ns = self._due_ns(timed_from), self._due_ns(self._total - 1)
        give_up_ns = end_ns + round(GRACE_S * 1e9)
        began: _Reading | None = None
        ended = began
        while True:
            now_ns = time.monotonic_ns()
            if began is None and now_ns >= timed_from_ns:
                began = self._reading(now_ns)
            while upcoming < self._total and self._due_ns(upcoming) <= now_ns:
                stream = upcoming % plan.streams
                self._waited[upcoming] = not self._credits[stream]
                self._due[stream] += 1
                self._send_due(stream)
                upcoming += 1
            self._receive()
            if ended is None and upcoming == self._total:
                ended = self._reading(time.monotonic_ns())
            if self._settled == self._total or time.monotonic_ns() > give_up_ns:
                break
            time.sleep(max(0, now_ns + LEAST_TURN_NS - time.monotonic_ns()) / 1e9)
            now_ns = time.monotonic_ns()
            sleep_s = LONGEST_SLEEP_S
            if upcoming < self._total:
                sleep_s = min(sleep_s, max(0, self._due_ns(upcoming) - now_ns) / 1e9)
            # Finer than a poll in milliseconds. A descriptor of ZeroMQ tells of what comes after
            # its socket was read to the end, as `_receive` has done.
            select.select(self._fds, [], [], sleep_s)
        assert began is not None
        assert ended is not None
        return self._report(began, ended, time.monotonic_ns())

    def _socket(self, stream: int) -> zmq.Socket[bytes]:
        return self._sockets[stream % len(self._sockets)]

    def _due_ns(self, number: int) -> int:
        """When the newest row of a message is measured."""
        turn, stream = divmod(number, self._plan.streams)
        message_ns = self._plan.message_ns
        return self._start_ns + (turn + 1) * message_ns + stream * message_ns // self._plan.streams

    def _send_due(self, stream: int) -> None:
        """Sends what is due and has a credit."""
        plan = self._plan
        while self._credits[stream] and self._sent[stream] < self._due[stream]:
            turn = self._sent[stream]
            number, sequence = turn * plan.streams + stream, turn * plan.message_rows
            first_row_ns = self._due_ns(number) - plan.message_ns - self._start_ns
            request = Samples(
                id=number + 1,
                stream=_name(stream),
                session="bench",
                sequence=sequence,
                first_time_ns=self._unix_ns + first_row_ns,
                rate_hz=plan.rate_hz,
            )
            start = (self._offsets[stream] + sequence) % len(self._values)
            rows = self._values[start : start + plan.message_rows]
            if len(rows) < plan.message_rows:
                rows = np.take(
                    self._values, range(start, start + plan.message_rows), axis=0, mode="wrap"
                )
            self._sent_ns[number] = time.monotonic_ns()
            send_frames(self._socket(stream), encode(request, {"values": rows}))
            self._credits[stream] -= 1
            self._sent[stream] += 1

    def _receive(self) -> None:
        """Takes every reply that is there."""
        for socket in self._sockets:
            while True:
                try:
                    frames = receive_frames(socket)
                except zmq.Again:
                    break
                now_ns = time.monotonic_ns()
                self._settle(*decode_reply(frames), now_ns)

    def _settle(self, reply: messages.Reply, tensors: Tensors, now_ns: int) -> None:
        number = reply.id - 1
        if not 0 <= number < self._total:
            raise as_error(reply)
        stream = number % self._plan.streams
        if isinstance(reply, Scores):
            self._acknowledged_ns[number] = now_ns
            self._rows_acknowledged += len(tensors["scores"])
        elif isinstance(reply, messages.Rejected):
            self._refused[reply.code] += 1
        elif isinstance(reply, messages.Failed):
            self._refused["failed"] += 1
        else:
            raise WireError(f"unexpected reply {type(reply).__name__}")
        self._settled += 1
        self._credits[stream] += 1
        self._send_due(stream)

    def _reading(self, now_ns: int) -> _Reading:
        server_s = process_cpu_s(self._plan.server_pid)
        return _Reading(now_ns, time.process_time(), server_s, self._rows_acknowledged)

    def _report(
        self,
        began: _Reading,
        ended: _Reading,
        now_ns: int,
    ) -> SensorsReport:
        plan = self._plan
        due_ns = np.array([self._due_ns(number) for number in range(self._total)])
        timed = slice(plan.warm_up_messages * plan.streams, None)
        answered_ns = np.where(self._acknowledged_ns > 0, self._acknowledged_ns, now_ns)
        latency_ms = (answered_ns - due_ns)[timed] / 1e6
        p50, p99, p999 = np.percentile(latency_ms, [50, 99, 99.9])
        sending_ms = (np.where(self._sent_ns > 0, self._sent_ns, now_ns) - due_ns) / 1e6
        at_once = sending_ms[~self._waited]
        seconds = max(1e-9, (ended.now_ns - began.now_ns) / 1e9)
        return SensorsReport(
            rows=self._total * plan.message_rows,
            rows_sent=sum(self._sent) * plan.message_rows,
            rows_acknowledged=self._rows_acknowledged,
            refused=dict(self._refused),
            rows_per_s=(ended.rows_acknowledged - began.rows_acknowledged) / seconds,
            messages=len(latency_ms),
            p50_ms=float(p50),
            p99_ms=float(p99),
            p999_ms=float(p999),
            max_ms=float(latency_ms.max()),
            waited_for_credit=int(self._waited.sum()),
            credit_wait_max_ms=float(sending_ms[self._waited].max(initial=0.0)),
            late_p99_ms=float(np.percentile(at_once, 99)) if len(at_once) else 0.0,
            sensors_cpu=(ended.sensors_s - began.sensors_s) / seconds,
            server_cpu=(
                None
                if ended.server_s is None or began.server_s is None
                else (ended.server_s - began.server_s) / seconds
            ),
            counters={},
        )


def process_cpu_s(pid: int) -> float | None:
    """CPU seconds that a process has used, its threads together; None where Linux is not there."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # After the name, in parentheses that may hold anything: state is field 3, utime 14, stime 15.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_sensors(plan: SensorsPlan) -> SensorsReport:
    """Opens the streams, plays them, and asks the server for its counters."""
    values: NDArray[np.float32] = np.load(plan.values, allow_pickle=False)
    context = zmq.Context()
    try:
        sockets = list(_connect(context, plan.endpoint, min(CONNECTIONS, plan.streams)))
        sensors = Sensors(plan, sockets, values)
        sensors.open()
        report = sensors.play()
    finally:
        context.destroy(linger=0)
    connection = Connection(plan.endpoint, "bench")
    try:
        counters = connection.status(PATIENCE_S).counters
    finally:
        connection.close()
    return msgspec.structs.replace(report, counters=counters)


def _connect(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, count: int
) -> Iterator[zmq.Socket[bytes]]:
    for _ in range(count):
        socket = context.socket(zmq.DEALER)
        # What is under way is bounded by the streams' credits.
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.connect(endpoint)
        yield socket


def _name(stream: int) -> str:
    return f"bench-{stream}"


if __name__ == "__main__":
    report = run_sensors(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=SensorsPlan))
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
