"""Workers of a model, for tests: one that is stopped at the end, one that is kept busy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from limpet.runtime.scheduler import ModelWorker

PATIENCE_S = 20.0
"""Longest wait for what must happen; far more than it takes."""


@contextlib.contextmanager
def worker(capacity: int = 1000) -> Iterator[ModelWorker]:
    """A worker; what it has not run when the block is left, it runs then."""
    made = ModelWorker("test", capacity)
    try:
        yield made
    finally:
        assert made.stop(PATIENCE_S), "the worker does not stop"


@contextlib.contextmanager
def busy(made: ModelWorker) -> Iterator[None]:
    """Keeps a worker in a job of its own; jobs submitted meanwhile wait until the block is left."""
    started, gate = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        assert gate.wait(PATIENCE_S)

    assert made.submit(job)
    assert started.wait(PATIENCE_S)
    try:
        yield
    finally:
        gate.set()


def run_or_submit(
    made: ModelWorker, job: Callable[[], None], cost_ns: float | None, **options: Any
) -> bool:
    """As the server does it: at once where a job's cost allows that, else by the worker."""
    if cost_ns is not None and made.run_inline(job, cost_ns):
        return True
    return made.submit(job, **options)
