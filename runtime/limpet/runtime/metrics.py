"""Counters and latencies of a server, kept in constant memory."""

from __future__ import annotations

import threading
from collections import Counter, deque

import numpy as np


class Metrics:
    """Counts by name, and the newest latencies of each model. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._latencies: dict[str, deque[int]] = {}

    def count(self, name: str, amount: int = 1) -> None:
        """Adds to a counter."""
        with self._lock:
            self._counts[name] += amount

    def counters(self, prefix: str = "") -> dict[str, int]:
        """Counters whose name starts with `prefix`, by the rest of their name."""
        with self._lock:
            items = sorted(self._counts.items())
        return {k[len(prefix) :]: v for k, v in items if k.startswith(prefix)}

    def record(self, model: str, total_ns: int) -> None:
        """Notes how long one request of a model took, from arrival to reply."""
        with self._lock:
            kept = self._latencies.get(model)
            if kept is None:
                kept = self._latencies[model] = deque(maxlen=4096)
            kept.append(total_ns)

    def latency_ms(self, model: str) -> dict[str, float]:
        """p50, p99 and count of a model's newest latencies, in milliseconds."""
        with self._lock:
            values = list(self._latencies.get(model, ()))
        if not values:
            return {"requests": 0}
        p50, p99 = np.percentile(values, [50, 99]) / 1e6
        return {"requests": len(values), "p50_ms": float(p50), "p99_ms": float(p99)}
