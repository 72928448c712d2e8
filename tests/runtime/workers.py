"""Workers of a model, for tests: one that is stopped at the end, one that is kept busy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

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
