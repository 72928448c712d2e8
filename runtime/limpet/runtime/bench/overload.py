"""Twice the capacity, from one client, beside another that asks now and then."""

from __future__ import annotations

import functools
import time

import msgspec
import numpy as np

from limpet.contracts.errors import RequestTimeoutError
from limpet.contracts.tensors import Tensors
from limpet.runtime.bench.load import Source, arrivals, percentiles_of, run_closed, run_open
from limpet.runtime.bench.processes import answer_of, ask, conversing, memory_mb
from limpet.runtime.bench.steady import Steady
from limpet.runtime.bench.watch import Slope, Watch, fit_slope
from limpet.runtime.client import RobotClient

MODEL = "work-1ms"
FACTOR = 2.0
"""Times the capacity that is offered."""
CAPACITY_CLIENTS = 16
MAX_AGE_S = 0.05
GOOD_CLIENT_HZ = 20.0
RECOVERY_S = 1.0
"""From the last request of the flood: how the other client fares then."""
START_S = 0.3
LONGEST_DRAIN_S, ASK_EVERY_S = 30.0, 0.05
SAMPLES = 60
"""Of memory and queue, in the whole time."""


class Overload(msgspec.Struct, frozen=True, kw_only=True):
    """Twice the capacity, Poisson arrivals, with a maximum age.

    Attributes:
        model: Which.
        capacity_per_s: Results per second of 16 clients that each wait for their answer, the mean
            of before and after.
        capacity_before_after: Both.
        saturated_per_s: Results per second at the same offered rate without a maximum age, the
            queue full: what is left of the machine beside so many requests.
        offered_per_s: Requests per second.
        seconds: How long.
        goodput: Results per second, those too old where they arrive left out / capacity.
        max_age_ms: As asked.
        results: Requests that were answered by a result.
        too_old: Of these, older than asked for where they arrive.
        stale: By `Stale`.
        rejected: By `Rejected`.
        unanswered: Not at all.
        result_age_p50_ms: Age of a result's input when the client has the result.
        result_age_p99_ms: The same.
        result_age_max_ms: The same.
        queue_max: Requests that waited at most, of what was asked for once a second.
        memory_mb: Of the server before, after.
        memory: Its slope meanwhile; null where the system does not tell.
        late_p99_ms: How late the flood was sent.
        recovered_ms: Latency p99 of the other client in the second after.
        good_idle_p99_ms: The same client alone before.
        good_beside_p50_ms: The same client beside the flood.
        good_beside_p99_ms: The same.
        batch_p99_ms: A call of the model beside the flood: what may be in flight when it asks.
        good_allowed_ms: Its p99 alone, and one call: more is the flood's doing.
    """

    model: str
    capacity_per_s: float
    capacity_before_after: list[float]
    saturated_per_s: float
    offered_per_s: float
    seconds: float
    goodput: float
    max_age_ms: float
    results: int
    too_old: int
    stale: int
    rejected: int
    unanswered: int
    result_age_p50_ms: float
    result_age_p99_ms: float
    result_age_max_ms: float
    queue_max: int
    memory_mb: list[float | None]
    memory: Slope | None
    late_p99_ms: float
    recovered_ms: float
    good_idle_p99_ms: float
    good_beside_p50_ms: float
    good_beside_p99_ms: float
    batch_p99_ms: float
    good_allowed_ms: float


def bench_overload(
    endpoint: str, pid: int, inputs: Tensors, seconds: float, capacity_s: float
) -> Overload:
    """Floods a server.

    Args:
        endpoint: The server's.
        pid: Its process.
        inputs: Of the flood's requests.
        seconds: How long the flood lasts; the other client is measured alone for half as long.
        capacity_s: How long each measurement of capacity takes.
    """

    def capacity_per_s() -> float:
        closed = run_closed(endpoint, MODEL, inputs, CAPACITY_CLIENTS, capacity_s)
        return closed.results / closed.seconds

    def flood(rate_hz: float, time_s: float, max_age_s: float | None) -> Source:
        due_s = arrivals("poisson", rate_hz, time_s)
        return Source(model=MODEL, inputs=inputs, due_s=due_s, max_age_s=max_age_s)

    before_per_s = capacity_per_s()
    offered_per_s = FACTOR * before_per_s
    (saturated,) = run_open(endpoint, [flood(offered_per_s, capacity_s, None)])
    by_then = saturated.due_s + saturated.latency_ms / 1000 <= capacity_s
    _wait_until_idle(endpoint)
    idle = _steady(endpoint, seconds / 2).within(0.0, np.inf)
    before_mb = memory_mb(pid)
    arguments = _steady_arguments(endpoint, seconds + RECOVERY_S)
    with RobotClient(endpoint, "bench-queue", lane=False) as asks:
        memory = Watch(functools.partial(memory_mb, pid), seconds / SAMPLES)
        queue = Watch(functools.partial(_waiting, asks), seconds / SAMPLES)
        with conversing(arguments) as good:
            begun_s = time.monotonic() + START_S
            ask(good, repr(begun_s))
            with memory, queue:
                (flooded,) = run_open(endpoint, [flood(offered_per_s, seconds, MAX_AGE_S)], begun_s)
            beside = msgspec.json.decode(answer_of(good), type=Steady)
    after_per_s = capacity_per_s()
    capacity = (before_per_s + after_per_s) / 2
    ages = percentiles_of(flooded.latency_ms)
    too_old = int(np.sum(flooded.latency_ms > 1000 * MAX_AGE_S))
    in_time = flooded.results - too_old + len(beside.within(0.0, seconds))
    alone_ms = percentiles_of(np.array(idle))["p99_ms"]
    good_ms = percentiles_of(np.array(beside.within(0.0, seconds)))
    batch_ms = percentiles_of(flooded.inference_ms)["p99_ms"]
    return Overload(
        model=MODEL,
        capacity_per_s=capacity,
        capacity_before_after=[before_per_s, after_per_s],
        saturated_per_s=float(np.sum(by_then)) / capacity_s,
        offered_per_s=offered_per_s,
        seconds=seconds,
        goodput=in_time / seconds / capacity,
        max_age_ms=MAX_AGE_S * 1000,
        results=flooded.results,
        too_old=too_old,
        stale=flooded.stale,
        rejected=flooded.rejected,
        unanswered=flooded.unanswered,
        result_age_p50_ms=ages["p50_ms"],
        result_age_p99_ms=ages["p99_ms"],
        result_age_max_ms=ages["max_ms"],
        queue_max=int(max(queue.values, default=0)),
        memory_mb=[before_mb, memory_mb(pid)],
        memory=fit_slope(memory.seconds, memory.values),
        late_p99_ms=flooded.late_p99_ms,
        recovered_ms=percentiles_of(np.array(beside.within(seconds, np.inf)))["p99_ms"],
        good_idle_p99_ms=alone_ms,
        good_beside_p50_ms=good_ms["p50_ms"],
        good_beside_p99_ms=good_ms["p99_ms"],
        batch_p99_ms=batch_ms,
        good_allowed_ms=alone_ms + batch_ms,
    )


def _waiting(asks: RobotClient) -> float | None:
    """Requests in the model's queue; None where the server does not say in time."""
    try:
        return float(asks.status().models[MODEL]["waiting"])
    except RequestTimeoutError:
        return None


def _wait_until_idle(endpoint: str) -> None:
    """What nobody waits for any more is still computed, and would delay what comes next."""
    end_s = time.monotonic() + LONGEST_DRAIN_S
    with RobotClient(endpoint, "bench", lane=False) as asks:
        while _waiting(asks) != 0 and time.monotonic() < end_s:
            time.sleep(ASK_EVERY_S)


def _steady_arguments(endpoint: str, seconds: float) -> list[str]:
    figures = (GOOD_CLIENT_HZ, seconds, MAX_AGE_S)
    return ["limpet.runtime.bench.steady", endpoint, MODEL, *map(repr, figures)]


def _steady(endpoint: str, seconds: float) -> Steady:
    """The other client alone."""
    with conversing(_steady_arguments(endpoint, seconds)) as good:
        ask(good, repr(time.monotonic() + START_S))
        return msgspec.json.decode(answer_of(good), type=Steady)
