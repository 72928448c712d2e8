"""A client that asks at a steady rate, in a process of its own: `python -m
limpet.runtime.bench.steady ENDPOINT MODEL RATE_HZ SECONDS MAX_AGE_S`.

What it measures beside a flood is then the server's doing, and not that of the process that floods.
It says `ready`, is told when to begin (monotonic clock, seconds), and says what became of its
requests as a line of JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
import numpy as np

from limpet.runtime.bench.load import Source, arrivals, run_open

VALUES = 1024
"""float32 of a request: 4 KB."""


class Steady(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the requests of a steady client.

    Attributes:
        requests: How many were due.
        due_s: When those were due that had a result, from the start.
        latency_ms: Theirs.
        late_ms: How late they were sent.
    """

    requests: int
    due_s: list[float]
    latency_ms: list[float]
    late_ms: list[float]

    def within(self, begin_s: float, end_s: float) -> list[float]:
        """Latencies of the requests that were due in a stretch."""
        return [
            latency
            for due, latency in zip(self.due_s, self.latency_ms, strict=True)
            if begin_s <= due < end_s
        ]


def main(arguments: Sequence[str]) -> None:
    """Serves one measurement."""
    endpoint, model, rate_hz, seconds, max_age_s = arguments
    inputs = {"x": np.random.default_rng(0).normal(size=(1, VALUES)).astype(np.float32)}
    source = Source(
        model=model,
        inputs=inputs,
        due_s=arrivals("constant", float(rate_hz), float(seconds)),
        max_age_s=float(max_age_s),
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    (answers,) = run_open(endpoint, [source], float(sys.stdin.readline()))
    report = Steady(
        requests=answers.due,
        due_s=answers.due_s.tolist(),
        latency_ms=answers.latency_ms.tolist(),
        late_ms=answers.late_ms.tolist(),
    )
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
