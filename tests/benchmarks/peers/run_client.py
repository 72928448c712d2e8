"""A client of one row, in that peer's environment: `run_client MODULE ROW ENDPOINT`. It does what
standard input asks, line by line, and ends with it.

    {"do": "ready", "ready_s": 60}

`do` names a method of `Row`, the rest are its arguments, and what it gives is the answer.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from tests.benchmarks.peers.links import asking, check, closed_loop
from tests.benchmarks.peers.model import Array

Infer = Callable[[Array], Array]


def inputs(values: int, count: int) -> list[Array]:
    """As many different requests. Each is (1, values)."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, values)).astype(np.float32) for _ in range(count)]


class Row:
    """What a row of the table measures."""

    def __init__(self, module: str, row: str, endpoint: str) -> None:
        self._module: Any = importlib.import_module(f"tests.benchmarks.peers.{module}")
        self._row, self._endpoint = row, endpoint
        self._infer: Infer | None = None

    def _connect(self) -> Infer:
        if self._row == "in process":
            return self._module.in_process(self._endpoint)  # type: ignore[no-any-return]
        if hasattr(self._module, "connect"):
            return self._module.connect(self._endpoint, self._row)  # type: ignore[no-any-return]
        return asking(self._module.link(self._endpoint, self._row))

    def ready(self, ready_s: float) -> dict[str, Any]:
        """Waits until the server answers.

        Raises:
            Exception: What the last attempt met, after `ready_s`.
        """
        (x,) = inputs(8, 1)
        until_s = time.monotonic() + ready_s
        while self._infer is None:
            try:
                infer = self._connect()
                check(x, infer(x).data.cast("B"))
                self._infer = infer
            except Exception:  # every library has its own for a server that does not listen yet
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.1)
        return {"python": sys.version.split()[0]}

    def one_after_another(self, values: int, requests: int, warm: int) -> dict[str, Any]:
        """Nanoseconds of each request."""
        assert self._infer is not None
        (x,) = inputs(values, 1)
        took = []
        for _ in range(warm + requests):
            start_ns = time.perf_counter_ns()
            y = self._infer(x)
            took.append(time.perf_counter_ns() - start_ns)
            check(x, np.ascontiguousarray(y).data.cast("B"))
        return {"ns": took[warm:]}

    def at_a_time(self, values: int, clients: int, seconds: float, warm_s: float) -> dict[str, Any]:
        """Answers to several clients that each wait for theirs."""
        links = [self._module.link(self._endpoint, self._row) for _ in range(clients)]
        return closed_loop(links, inputs(values, clients), warm_s, seconds)._asdict()

    def batches(self, values: int, batches: list[int], seconds: float) -> dict[str, Any]:
        """Items per second in this process at each size of a batch, which take turns."""
        assert self._infer is not None
        x = np.concatenate(inputs(values, max(batches)))
        took = dict.fromkeys(batches, 0.0)
        items = dict.fromkeys(batches, 0)
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            for size in batches:
                start_s = time.perf_counter()
                self._infer(x[:size])
                took[size] += time.perf_counter() - start_s
                items[size] += size
        return {"per_s": {str(size): items[size] / took[size] for size in batches}}

    def versions(self, packages: list[str]) -> dict[str, Any]:
        """Of what this environment has."""
        return {name: version(name) for name in packages}


def main(module: str, row: str, endpoint: str) -> None:
    """Does what standard input asks."""
    measured = Row(module, row, endpoint)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = getattr(measured, asked.pop("do"))(**asked)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
