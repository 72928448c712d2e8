"""Counters and latencies of a server."""

from __future__ import annotations

import threading

import pytest

from limpet.runtime.metrics import Metrics


def test_counters_add_up_and_are_listed_by_name() -> None:
    metrics = Metrics()
    metrics.count("b")
    metrics.count("a", 3)
    metrics.count("b")
    assert list(metrics.counters().items()) == [("a", 3), ("b", 2)]


def test_a_prefix_selects_counters_and_leaves_their_names() -> None:
    metrics = Metrics()
    metrics.count("dropped.malformed")
    metrics.count("dropped.stale_queue", 2)
    metrics.count("requests.Ping")
    assert metrics.counters("dropped.") == {"malformed": 1, "stale_queue": 2}


def test_no_count_is_lost_between_threads() -> None:
    metrics = Metrics()

    def count() -> None:
        for _ in range(5000):
            metrics.count("x")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.counters() == {"x": 20_000}


def test_latencies_are_percentiles_in_milliseconds_of_each_model() -> None:
    metrics = Metrics()
    for milliseconds in range(101):
        metrics.record("a", milliseconds * 1_000_000)
    metrics.record("b", 2_500_000)
    assert metrics.latency_ms("a") == {"requests": 101, "p50_ms": 50.0, "p99_ms": 99.0}
    assert metrics.latency_ms("b") == {"requests": 1, "p50_ms": 2.5, "p99_ms": 2.5}


def test_a_model_without_requests_has_no_latency() -> None:
    assert Metrics().latency_ms("a") == {"requests": 0}


def test_latencies_are_those_of_the_newest_requests() -> None:
    metrics = Metrics()
    for _ in range(5000):
        metrics.record("a", 9_000_000)
    for _ in range(4096):
        metrics.record("a", 1_000_000)
    assert metrics.latency_ms("a")["p99_ms"] == pytest.approx(1.0)
