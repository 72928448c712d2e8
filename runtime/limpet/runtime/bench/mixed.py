"""Several models together at their rates, and whose doing a missed deadline is."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.tensors import Tensors
from limpet.runtime.bench.load import Answers, Source, arrivals, percentiles_of, run_open
from limpet.runtime.bench.processes import answer_of, ask, conversing, memory_mb
from limpet.runtime.bench.stalls import Stall, stalled_s
from limpet.runtime.bench.watch import EVERY_S, Slope, Watch, fit_slope

MIXED = (("identity", 100.0), ("work-1ms", 50.0), ("work-10ms", 10.0))
"""Models served together and their requests per second: each must be answered before its next."""
STRETCHES = 10
"""Into which the time is divided, to see whether requests cost more and more."""
START_S = 0.1
FEWEST_SAMPLES = 20


class MixedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One of several models that are asked at their rates at the same time.

    Attributes:
        model: Which.
        rate_hz: Requests per second.
        due_ms: Time to the next request, by which each is to be answered.
        requests: How many.
        missed: Answered later, or not by a result.
        missed_by_machine: Of these, answered later by no more than the bench itself was late in
            sending them and the machine withheld a core meanwhile.
        missed_by_runtime: All others.
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
    missed_by_machine: int
    missed_by_runtime: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """A tenth of the time.

    Attributes:
        end_s: Its end, from the start.
        p50_ms: Latency of each model's requests, in the order of the rows.
        p99_ms: The same.
    """

    end_s: float
    p50_ms: list[float]
    p99_ms: list[float]


class Mixed(msgspec.Struct, frozen=True, kw_only=True):
    """Several models together.

    Attributes:
        seconds: How long.
        models: Each of them.
        stretches: How their latencies went.
        memory: The server's; null where the system does not tell.
        withheld_s: How long the machine withheld a core, of the one where that was longest.
    """

    seconds: float
    models: list[MixedRow]
    stretches: list[Stretch]
    memory: Slope | None
    withheld_s: float


def bench_mixed(endpoint: str, pid: int, inputs: Tensors, seconds: float) -> Mixed:
    """Asks all of `MIXED` at their rates."""
    sources = [
        Source(model=model, inputs=inputs, due_s=arrivals("constant", rate_hz, seconds))
        for model, rate_hz in MIXED
    ]
    memory = Watch(functools.partial(memory_mb, pid), min(EVERY_S, seconds / FEWEST_SAMPLES))
    with conversing(["limpet.runtime.bench.stalls"]) as watching:
        begun_s = time.monotonic() + START_S
        with memory:
            parts = run_open(endpoint, sources, begun_s)
        ask(watching, "end")
        stalls = msgspec.json.decode(answer_of(watching), type=list[Stall])
    rows = []
    for (model, rate_hz), answers in zip(MIXED, parts, strict=True):
        due_ms = 1000 / rate_hz
        missed = answers.due - int(np.sum(answers.latency_ms <= due_ms))
        by_machine = missed_by_machine(answers, due_ms, begun_s, stalls)
        rows.append(
            MixedRow(
                model=model,
                rate_hz=rate_hz,
                due_ms=due_ms,
                requests=answers.due,
                missed=missed,
                missed_by_machine=by_machine,
                missed_by_runtime=missed - by_machine,
                **answers.percentiles(),
            )
        )
    return Mixed(
        seconds=seconds,
        models=rows,
        stretches=[_stretch(parts, seconds, number) for number in range(STRETCHES)],
        memory=fit_slope(memory.seconds, memory.values),
        withheld_s=stalled_s(stalls, begun_s, begun_s + seconds),
    )


def missed_by_machine(
    answers: Answers, due_ms: float, begun_s: float, stalls: Sequence[Stall]
) -> int:
    """How many results came later than due by no more than this process was late in sending the
    request and a core could not be had between sending and answer.

    Args:
        answers: Of one client.
        due_ms: When each must be answered, from when it was due to be sent.
        begun_s: Their start, on the clock of the stalls.
        stalls: When cores could not be had.
    """
    found = 0
    for place in np.flatnonzero(answers.latency_ms > due_ms):
        late_ms, latency_ms = float(answers.late_ms[place]), float(answers.latency_ms[place])
        due_s = begun_s + float(answers.due_s[place])
        withheld_s = stalled_s(stalls, due_s + late_ms / 1000, due_s + latency_ms / 1000)
        found += latency_ms - due_ms <= late_ms + 1000 * withheld_s
    return found


def _stretch(parts: Sequence[Answers], seconds: float, number: int) -> Stretch:
    begin_s, end_s = (seconds * place / STRETCHES for place in (number, number + 1))

    def percentiles(answers: Answers) -> dict[str, float]:
        mine: NDArray[np.bool_] = (answers.due_s >= begin_s) & (answers.due_s < end_s)
        return percentiles_of(answers.latency_ms[mine])

    found = [percentiles(answers) for answers in parts]
    return Stretch(
        end_s=end_s,
        p50_ms=[each["p50_ms"] for each in found],
        p99_ms=[each["p99_ms"] for each in found],
    )
