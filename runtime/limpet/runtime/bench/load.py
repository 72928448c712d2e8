"""Requests to a server, as nodes send them: clients that each wait for their answer, or arrivals at
fixed times, whether or not the server keeps up.

In the second, latency counts from the moment when a request is due, so that waiting for this very
process counts as well, and so does the age of its input.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.messages import Failed, Infer, Rejected, Result, Stale
from limpet.contracts.tensors import Tensors
from limpet.contracts.wire import decode_reply, encode
from limpet.runtime.client import RobotClient
from limpet.runtime.frames import receive_frames, send_frames

GRACE_S = 2.0
"""After the last request is due, longest wait for answers."""
START_S = 0.02


class Answers(msgspec.Struct, kw_only=True):
    """What became of requests.

    Attributes:
        due: How many were due.
        results: Of these, answered by a result.
        stale: By `Stale`.
        rejected: By `Rejected`.
        failed: By `Failed`.
        unanswered: Not at all.
        seconds: From the first one due to the last answer.
        latency_ms: Of the results, from when they were due. (n,)
        due_s: When they were due, from the start. (n,)
        late_ms: How late this process sent them. (n,)
        inference_ms: The call that they were computed in, by the server's own clock. (n,)
        late_p99_ms: How late it sent requests, those without a result as well.
    """

    due: int
    results: int = 0
    stale: int = 0
    rejected: int = 0
    failed: int = 0
    unanswered: int = 0
    seconds: float = 0.0
    latency_ms: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.empty(0))
    due_s: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.empty(0))
    late_ms: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.empty(0))
    inference_ms: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.empty(0))
    late_p99_ms: float = 0.0

    def percentiles(self) -> dict[str, float]:
        """p50, p99, p99.9 and largest latency, in milliseconds; NaN without results."""
        return percentiles_of(self.latency_ms)


def percentiles_of(latency_ms: NDArray[np.float64]) -> dict[str, float]:
    """p50, p99, p99.9 and the largest, in milliseconds; NaN of none."""
    names = ("p50_ms", "p99_ms", "p999_ms", "max_ms")
    if not len(latency_ms):
        return dict.fromkeys(names, math.nan)
    values = np.percentile(latency_ms, [50, 99, 99.9, 100])
    return dict(zip(names, map(float, values), strict=True))


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one client.

    Attributes:
        model: Which model.
        inputs: Their tensors, all the same.
        due_s: When they are due, ascending, from the start. (n,)
        max_age_s: Of their inputs, captured when they are due.
    """

    model: str
    inputs: Tensors
    due_s: NDArray[np.float64]
    max_age_s: float | None = None


def arrivals(kind: str, rate_hz: float, seconds: float, seed: int = 0) -> NDArray[np.float64]:
    """Times at which requests are due: `constant` or `poisson`. (n,)"""
    count = max(1, round(rate_hz * seconds))
    if kind == "constant":
        return np.arange(count) / rate_hz
    return np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate_hz, count))


@contextlib.contextmanager
def _dealers(endpoint: str, count: int) -> Iterator[list[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        sockets = [context.socket(zmq.DEALER) for _ in range(count)]
        for each in sockets:
            each.setsockopt(zmq.LINGER, 0)
            each.setsockopt(zmq.SNDHWM, 0)
            each.setsockopt(zmq.RCVHWM, 0)
            each.connect(endpoint)
        try:
            yield sockets
        finally:
            for each in sockets:
                each.close()


def joined(parts: Sequence[Answers]) -> Answers:
    """What became of the requests of several clients, as of one."""
    whole = Answers(due=sum(part.due for part in parts))
    for part in parts:
        whole.results += part.results
        whole.stale += part.stale
        whole.rejected += part.rejected
        whole.failed += part.failed
        whole.unanswered += part.unanswered
        whole.seconds = max(whole.seconds, part.seconds)
        whole.late_p99_ms = max(whole.late_p99_ms, part.late_p99_ms)
    whole.latency_ms = np.concatenate([part.latency_ms for part in parts])
    whole.due_s = np.concatenate([part.due_s for part in parts])
    whole.late_ms = np.concatenate([part.late_ms for part in parts])
    whole.inference_ms = np.concatenate([part.inference_ms for part in parts])
    return whole


def run_open(
    endpoint: str, sources: Sequence[Source], begun_s: float | None = None
) -> list[Answers]:
    """Sends requests when they are due; what became of those of each source.

    Args:
        endpoint: The server's.
        sources: Each has a connection of its own.
        begun_s: The start, on the monotonic clock; None is soon.
    """
    with RobotClient(endpoint, "bench", lane=False) as clock:
        offset_ns = clock.server_time_ns() - time.monotonic_ns()
    order = sorted(
        (float(due_s), number) for number, source in enumerate(sources) for due_s in source.due_s
    )
    answers = [Answers(due=len(source.due_s)) for source in sources]
    results: list[list[tuple[float, ...]]] = [[] for _ in sources]
    late_s = np.zeros(len(order))
    numbers_of = np.array([number for _, number in order])
    with _dealers(endpoint, len(sources)) as sockets:
        poller = zmq.Poller()
        for each in sockets:
            poller.register(each, zmq.POLLIN)
        numbers = {each: number for number, each in enumerate(sockets)}
        begun_s = time.monotonic() + START_S if begun_s is None else begun_s
        waiting, place = 0, 0
        end_s = begun_s + order[-1][0] + GRACE_S
        while (place < len(order) or waiting) and time.monotonic() < end_s:
            now_s = time.monotonic() - begun_s
            while place < len(order) and order[place][0] <= now_s:
                due_s, number = order[place]
                place += 1
                source = sources[number]
                due_ns = round((begun_s + due_s) * 1e9)
                request = Infer(
                    id=place,
                    model=source.model,
                    capture_time_ns=due_ns + offset_ns,
                    max_age_ns=None if source.max_age_s is None else round(source.max_age_s * 1e9),
                )
                send_frames(sockets[number], encode(request, source.inputs))
                late_s[place - 1] = time.monotonic() - begun_s - due_s
                waiting += 1
            sleep_s = order[place][0] - (time.monotonic() - begun_s) if place < len(order) else 0.05
            for each, _ in poller.poll(max(0, math.ceil(sleep_s * 1000 - 0.5))):
                number = numbers[each]
                for _ in range(64):
                    try:
                        frames = receive_frames(each)
                    except zmq.Again:
                        break
                    waiting -= 1
                    reply, _ = decode_reply(frames)
                    due_s = order[reply.id - 1][0]
                    took_s = time.monotonic() - begun_s - due_s
                    _count(answers[number], reply)
                    if isinstance(reply, Result):
                        took_ms, late_ms = 1000 * took_s, 1000 * float(late_s[reply.id - 1])
                        results[number].append((due_s, took_ms, late_ms, reply.inference_ns / 1e6))
        seconds = time.monotonic() - begun_s
    for number, mine in enumerate(answers):
        mine.seconds = seconds
        columns = np.array(results[number]).reshape(-1, 4).T
        mine.due_s, mine.latency_ms, mine.late_ms, mine.inference_ms = columns
        sent = late_s[:place][numbers_of[:place] == number]
        mine.late_p99_ms = float(np.percentile(sent, 99)) * 1000 if len(sent) else 0.0
        mine.unanswered = mine.due - mine.results - mine.stale - mine.rejected - mine.failed
    return answers


def run_closed(endpoint: str, model: str, inputs: Tensors, clients: int, seconds: float) -> Answers:
    """Clients that each send their next request when the last one is answered."""
    answers, latencies = Answers(due=0), []
    with _dealers(endpoint, clients) as sockets:
        poller = zmq.Poller()
        begun: dict[zmq.Socket[bytes], float] = {}

        def send(each: zmq.Socket[bytes]) -> None:
            answers.due += 1
            begun[each] = time.monotonic()
            send_frames(each, encode(Infer(id=answers.due, model=model), inputs))

        begun_s = time.monotonic()
        for each in sockets:
            poller.register(each, zmq.POLLIN)
            send(each)
        waiting = clients
        while waiting and time.monotonic() < begun_s + seconds + GRACE_S:
            for each, _ in poller.poll(100):
                frames = receive_frames(each)
                now_s = time.monotonic()
                reply, _ = decode_reply(frames)
                _count(answers, reply)
                latencies.append((now_s - begun[each]) * 1000)
                if now_s < begun_s + seconds:
                    send(each)
                else:
                    waiting -= 1
        answers.seconds = time.monotonic() - begun_s
    answers.unanswered = waiting
    answers.latency_ms = np.array(latencies)
    return answers


def _count(answers: Answers, reply: messages.Reply) -> None:
    if isinstance(reply, Result):
        answers.results += 1
    elif isinstance(reply, Stale):
        answers.stale += 1
    elif isinstance(reply, Rejected):
        answers.rejected += 1
    elif isinstance(reply, Failed):
        answers.failed += 1
