"""A served model under load: waiting counted, more asked than can be done, several models at once.

Models that take about 1 ms and 10 ms are made on the spot (`bench.work`); where it says capacity,
that of this server on this machine is meant, measured just before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.tensors import Tensors
from limpet.runtime.bench.identity import write_identity_bundle
from limpet.runtime.bench.load import Answers, Source, arrivals, joined, run_closed, run_open
from limpet.runtime.bench.processes import memory_mb, running
from limpet.runtime.bench.work import steps_for, write_work_bundle

VALUES = 1024
"""float32 of a request: 4 KB."""
CLIENTS = (1, 2, 4, 8, 16)
LOADS = (0.2, 0.5, 0.8)
"""Parts of capacity that are offered."""
OVERLOAD = 2.0
MAX_AGE_S = 0.05
GOOD_CLIENT_HZ = 20.0
MIXED = (("identity", 100.0), ("work-1ms", 50.0), ("work-10ms", 10.0))
"""Models served together and their requests per second: each must be answered before its next."""
QUEUE = 4096
"""Requests that may wait: below capacity waiting is what is measured; the default of 256 is full
after 13 ms at 20,000 requests a second, when the machine pauses the server for so long."""
STARTS = 3


class ThroughputRow(msgspec.Struct, frozen=True, kw_only=True):
    """Clients that each wait for their answer.

    Attributes:
        model: `identity` or `work-1ms`.
        clients: How many.
        per_s: Results per second.
        p50_ms: Latency.
        p99_ms: The same.
        p999_ms: The same.
        max_ms: The same.
    """

    model: str
    clients: int
    per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class OpenRow(msgspec.Struct, frozen=True, kw_only=True):
    """Requests at fixed times; latency from when they were due.

    Attributes:
        model: Which.
        arrivals: `constant` or `poisson`.
        load: Part of capacity.
        offered_per_s: Requests per second.
        results: How many were answered by a result.
        other: How many were not.
        p50_ms: Latency.
        p99_ms: The same.
        p999_ms: The same.
        max_ms: The same.
        late_p99_ms: How late the bench itself sent them, which is in the latencies.
    """

    model: str
    arrivals: str
    load: float
    offered_per_s: float
    results: int
    other: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    late_p99_ms: float


class Overload(msgspec.Struct, frozen=True, kw_only=True):
    """Twice the capacity, Poisson arrivals, with a maximum age.

    Attributes:
        model: Which.
        capacity_per_s: Results per second of 16 clients that each wait for their answer.
        offered_per_s: Requests per second.
        seconds: How long.
        goodput: Results per second / capacity.
        max_age_ms: As asked.
        results: Requests that were answered by a result.
        stale: By `Stale`.
        rejected: By `Rejected`.
        unanswered: Not at all.
        result_age_p50_ms: Age of a result's input when the client has the result.
        result_age_max_ms: The same.
        memory_mb: Of the server before, after.
        recovered_ms: Latency p99 of a client that asks now and then, in the second after.
        good_idle_p99_ms: The same client alone before.
        good_beside_p99_ms: The same client beside the flood.
    """

    model: str
    capacity_per_s: float
    offered_per_s: float
    seconds: float
    goodput: float
    max_age_ms: float
    results: int
    stale: int
    rejected: int
    unanswered: int
    result_age_p50_ms: float
    result_age_max_ms: float
    memory_mb: list[float | None]
    recovered_ms: float
    good_idle_p99_ms: float
    good_beside_p99_ms: float


class MixedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One of several models that are asked at their rates at the same time.

    Attributes:
        model: Which.
        rate_hz: Requests per second.
        due_ms: Time to the next request, by which each is to be answered.
        requests: How many.
        missed: Answered later, or not by a result.
        p50_ms: Latency.
        p99_ms: The same.
        p999_ms: The same.
        max_ms: The same.
    """

    model: str
    rate_hz: float
    due_ms: float
    requests: int
    missed: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A server from nothing.

    Attributes:
        ready_ms: From the start of its process until it listens, the median of three.
        first_result_ms: From then until the first client has its first result, likewise.
        memory_mb: Of the server then.
        memory_after_load_mb: After the measurements of throughput.
    """

    ready_ms: float
    first_result_ms: float
    memory_mb: float | None
    memory_after_load_mb: float | None


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a server under load."""

    throughput: list[ThroughputRow]
    open_loop: list[OpenRow]
    overload: Overload
    mixed: list[MixedRow]
    start: Start


def bench_load(folder: Path, seconds: float, progress: Callable[[str], None]) -> LoadReport:
    """Measures a server under load.

    Args:
        folder: Empty; holds bundles and configuration while it runs.
        seconds: Of one measurement.
        progress: Told what is being measured.
    """
    progress("how long a step of work takes")
    write_identity_bundle(folder / "identity")
    for milliseconds in (1, 10):
        name = f"work-{milliseconds}ms"
        write_work_bundle(folder / name, name, steps_for(milliseconds))
    config = folder / "load.toml"
    config.write_text(
        '[server]\nlisten = ["tcp://127.0.0.1:0"]\npublish = ["tcp://127.0.0.1:0"]\n'
        + "".join(
            f"[[models]]\nbundle = {json.dumps(name)}\nqueue = {QUEUE}\n" for name, _ in MIXED
        ),
        encoding="utf-8",
    )
    inputs = {"x": np.random.default_rng(0).normal(size=(1, VALUES)).astype(np.float32)}
    serve = ["limpet.runtime.cli", "serve", str(config)]
    ready_ms, first_ms = [], []
    for _ in range(STARTS - 1):
        progress("a server from nothing")
        with running(serve) as started:
            ready_ms.append(started.start_s * 1000)
            first_ms.append(_first_result_ms(started.endpoints[0], inputs))
    with running(serve) as started:
        endpoint, pid = started.endpoints[0], started.pid
        ready_ms.append(started.start_s * 1000)
        first_ms.append(_first_result_ms(endpoint, inputs))
        cold_mb = memory_mb(pid)
        throughput = _throughput(endpoint, inputs, seconds / 2, progress)
        warm_mb = memory_mb(pid)
        open_loop = _open_loop(endpoint, inputs, seconds, throughput, progress)
        progress("twice the capacity")
        overload = _overload(endpoint, pid, inputs, seconds)
        progress("three models together")
        mixed = _mixed(endpoint, inputs, 2 * seconds)
    start = Start(
        ready_ms=float(np.median(ready_ms)),
        first_result_ms=float(np.median(first_ms)),
        memory_mb=cold_mb,
        memory_after_load_mb=warm_mb,
    )
    return LoadReport(
        throughput=throughput, open_loop=open_loop, overload=overload, mixed=mixed, start=start
    )


def _first_result_ms(endpoint: str, inputs: Tensors) -> float:
    answers = run_closed(endpoint, "identity", inputs, clients=1, seconds=0.0)
    return float(answers.latency_ms[0])


def _throughput(
    endpoint: str, inputs: Tensors, seconds: float, progress: Callable[[str], None]
) -> list[ThroughputRow]:
    rows = []
    for model in ("identity", "work-1ms"):
        for clients in CLIENTS:
            progress(f"{model} with {clients} clients")
            answers = run_closed(endpoint, model, inputs, clients, seconds)
            rows.append(
                ThroughputRow(
                    model=model,
                    clients=clients,
                    per_s=answers.results / answers.seconds,
                    **answers.percentiles(),
                )
            )
    return rows


def _open_loop(
    endpoint: str,
    inputs: Tensors,
    seconds: float,
    throughput: list[ThroughputRow],
    progress: Callable[[str], None],
) -> list[OpenRow]:
    rows = []
    for model in ("identity", "work-1ms"):
        capacity = next(r.per_s for r in throughput if (r.model, r.clients) == (model, CLIENTS[-1]))
        for kind in ("constant", "poisson"):
            for load in LOADS:
                progress(f"{model}, {kind} arrivals at {load:g} of capacity")
                due_s = arrivals(kind, load * capacity, seconds)
                # As many clients as capacity is of: a server keeps 256 replies for each.
                clients = [
                    Source(model=model, inputs=inputs, due_s=due_s[first :: CLIENTS[-1]])
                    for first in range(CLIENTS[-1])
                ]
                answers = joined(run_open(endpoint, clients))
                rows.append(
                    OpenRow(
                        model=model,
                        arrivals=kind,
                        load=load,
                        offered_per_s=load * capacity,
                        results=answers.results,
                        other=answers.due - answers.results,
                        late_p99_ms=answers.late_p99_ms,
                        **answers.percentiles(),
                    )
                )
    return rows


def _overload(endpoint: str, pid: int, inputs: Tensors, seconds: float) -> Overload:
    model = "work-1ms"

    def source(kind: str, rate_hz: float, time_s: float, max_age_s: float | None = None) -> Source:
        due_s = arrivals(kind, rate_hz, time_s)
        return Source(model=model, inputs=inputs, due_s=due_s, max_age_s=max_age_s)

    def p99_ms(answers: Answers) -> float:
        return answers.percentiles()["p99_ms"]

    closed = run_closed(endpoint, model, inputs, CLIENTS[-1], seconds / 2)
    capacity = closed.results / closed.seconds
    (idle,) = run_open(endpoint, [source("constant", GOOD_CLIENT_HZ, seconds)])
    before_mb = memory_mb(pid)
    flood, beside = run_open(
        endpoint,
        [
            source("poisson", OVERLOAD * capacity, 2 * seconds, MAX_AGE_S),
            source("constant", GOOD_CLIENT_HZ, 2 * seconds, MAX_AGE_S),
        ],
    )
    (after,) = run_open(endpoint, [source("constant", GOOD_CLIENT_HZ, 1.0)])
    results = flood.results + beside.results
    return Overload(
        model=model,
        capacity_per_s=capacity,
        offered_per_s=OVERLOAD * capacity,
        seconds=2 * seconds,
        goodput=results / (2 * seconds) / capacity,
        max_age_ms=MAX_AGE_S * 1000,
        results=results,
        stale=flood.stale + beside.stale,
        rejected=flood.rejected + beside.rejected,
        unanswered=flood.unanswered + beside.unanswered,
        result_age_p50_ms=flood.percentiles()["p50_ms"],
        result_age_max_ms=flood.percentiles()["max_ms"],
        memory_mb=[before_mb, memory_mb(pid)],
        recovered_ms=p99_ms(after),
        good_idle_p99_ms=p99_ms(idle),
        good_beside_p99_ms=p99_ms(beside),
    )


def _mixed(endpoint: str, inputs: Tensors, seconds: float) -> list[MixedRow]:
    sources = [
        Source(model=model, inputs=inputs, due_s=arrivals("constant", rate_hz, seconds))
        for model, rate_hz in MIXED
    ]
    return [
        MixedRow(
            model=model,
            rate_hz=rate_hz,
            due_ms=1000 / rate_hz,
            requests=answers.due,
            missed=answers.due - int(np.sum(answers.latency_ms <= 1000 / rate_hz)),
            **answers.percentiles(),
        )
        for (model, rate_hz), answers in zip(MIXED, run_open(endpoint, sources), strict=True)
    ]
