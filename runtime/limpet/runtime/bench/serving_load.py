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
from limpet.runtime.bench.growth import GrowthRow, bench_growth
from limpet.runtime.bench.identity import write_identity_bundle
from limpet.runtime.bench.load import Source, arrivals, joined, run_closed, run_open
from limpet.runtime.bench.mixed import MIXED, Mixed, bench_mixed
from limpet.runtime.bench.overload import Overload, bench_overload
from limpet.runtime.bench.processes import memory_mb, running
from limpet.runtime.bench.steady import VALUES
from limpet.runtime.bench.work import steps_for, write_work_bundle

CLIENTS = (1, 2, 4, 8, 16)
LOADS = (0.2, 0.5, 0.8)
"""Parts of capacity that are offered."""
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
    mixed: Mixed
    growth: list[GrowthRow]
    start: Start


def bench_load(
    folder: Path,
    seconds: float,
    overload_s: float,
    mixed_s: float,
    progress: Callable[[str], None],
) -> LoadReport:
    """Measures a server under load.

    Args:
        folder: Empty; holds bundles and configuration while it runs.
        seconds: Of one measurement.
        overload_s: How long twice the capacity is asked for.
        mixed_s: How long three models are asked together.
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
        overload = bench_overload(endpoint, pid, inputs, overload_s, seconds)
        progress("three models together")
        mixed = bench_mixed(endpoint, pid, inputs, mixed_s)
    growth = bench_growth(folder, inputs, seconds / 2, progress)
    start = Start(
        ready_ms=float(np.median(ready_ms)),
        first_result_ms=float(np.median(first_ms)),
        memory_mb=cold_mb,
        memory_after_load_mb=warm_mb,
    )
    return LoadReport(
        throughput=throughput,
        open_loop=open_loop,
        overload=overload,
        mixed=mixed,
        growth=growth,
        start=start,
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
