"""`limpet bench serve`: real servers and an echo, briefly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from limpet.runtime.lane_memory import SUPPORTED
from tests.command_line import limpet

Capture = pytest.CaptureFixture[str]
TRANSPORTS = ["tcp", "ipc", "lane"] if SUPPORTED else ["tcp", "ipc"]
LATENCIES = ["p50_ms", "p99_ms", "p999_ms", "max_ms"]
ROW_KEYS = [
    *("transport", "size", "requests", "limpet_p50", "limpet_p99", "limpet_p999"),
    *("echo_p50", "echo_p99", "engine_p50", "ratio_p50", "ratio_p99"),
]
OVERLOAD_KEYS = [
    *("model", "capacity_per_s", "capacity_before_after", "saturated_per_s", "offered_per_s"),
    *("seconds", "goodput", "max_age_ms", "results", "too_old", "stale", "rejected", "unanswered"),
    *("result_age_p50_ms", "result_age_p99_ms", "result_age_max_ms", "queue_max", "memory_mb"),
    *("memory", "late_p99_ms", "recovered_ms", "good_idle_p99_ms", "good_beside_p50_ms"),
    *("good_beside_p99_ms", "batch_p99_ms", "good_allowed_ms"),
]
MIXED_KEYS = [
    *("model", "rate_hz", "due_ms", "requests", "missed", "missed_by_machine"),
    *("missed_by_runtime", *LATENCIES),
]
MEMORY_KEYS = ["mb_per_min", "plus_minus", "first_mb", "last_mb", "largest_mb"]


def test_an_idle_server_is_measured_at_every_size_over_every_transport(capsys: Capture) -> None:
    done = limpet(
        capsys, "bench", "serve", "--part", "idle", "--requests", 40, "--json", "-"
    )  # fmt: skip
    assert done.code == 0, done.err
    assert list(done.report) == ["machine", "rows", "load"]
    assert done.report["load"] is None
    rows = done.report["rows"]
    sizes = ["4 KB", "150 KB", "0.9 MB", "2.7 MB"]
    assert [(r["transport"], r["size"]) for r in rows] == [
        (transport, size) for size in sizes for transport in TRANSPORTS
    ]
    for row in rows:
        assert list(row) == ROW_KEYS
        assert row["requests"] == 40
        assert 0 < row["limpet_p50"] <= row["limpet_p99"] <= row["limpet_p999"]
        assert row["ratio_p50"] == pytest.approx(
            (row["limpet_p50"] - row["engine_p50"]) / row["echo_p50"]
        )
        assert row["ratio_p99"] == pytest.approx(row["limpet_p99"] / row["echo_p99"])


def test_a_loaded_server_is_measured_and_drawn_and_every_request_is_accounted_for(
    capsys: Capture, tmp_path: Path
) -> None:
    picture = tmp_path / "serve.png"
    drawn = ["--picture", picture] if importlib.util.find_spec("matplotlib") else []
    done = limpet(
        capsys, "bench", "serve", "--part", "load", "--seconds", 0.1, "--overload-s", 1,
        "--mixed-s", 1, "--json", "-", *drawn,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.report["rows"] is None
    load = done.report["load"]
    assert list(load) == ["throughput", "open_loop", "overload", "mixed", "growth", "start"]
    for row in load["throughput"]:
        assert list(row) == ["model", "clients", "per_s", *LATENCIES]
        assert row["per_s"] > 0
    assert [row["clients"] for row in load["throughput"]] == [1, 2, 4, 8, 16] * 2
    assert {(r["arrivals"], r["load"]) for r in load["open_loop"]} == {
        (kind, part) for kind in ("constant", "poisson") for part in (0.2, 0.5, 0.8)
    }
    for row in load["open_loop"]:
        assert row["other"] == 0, "without a maximum age every request has a result"
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["p999_ms"] <= row["max_ms"]
    overload = load["overload"]
    assert list(overload) == OVERLOAD_KEYS
    before, after = overload["capacity_before_after"]
    assert overload["capacity_per_s"] == pytest.approx((before + after) / 2)
    assert overload["offered_per_s"] == pytest.approx(2 * before)
    assert 0 <= overload["too_old"] <= overload["results"]
    assert overload["results"] + overload["stale"] + overload["rejected"] == round(
        overload["offered_per_s"]
    )
    assert overload["unanswered"] == 0
    assert overload["queue_max"] < 4096, "the maximum age bounds the queue, and not its size"
    assert overload["good_allowed_ms"] == pytest.approx(
        overload["good_idle_p99_ms"] + overload["batch_p99_ms"]
    )
    mixed = load["mixed"]
    assert list(mixed) == ["seconds", "models", "stretches", "memory", "withheld_s"]
    assert [row["model"] for row in mixed["models"]] == ["identity", "work-1ms", "work-10ms"]
    for row in mixed["models"]:
        assert list(row) == MIXED_KEYS
        assert row["missed"] == row["missed_by_machine"] + row["missed_by_runtime"]
    assert [stretch["end_s"] for stretch in mixed["stretches"]] == pytest.approx(
        [0.1 * number for number in range(1, 11)]
    )
    if sys.platform == "linux":
        assert list(mixed["memory"]) == MEMORY_KEYS
    *many, first, second, third = load["growth"]
    assert [(row["of"], row["count"]) for row in many] == [
        (of, count) for of in ("clients", "streams") for count in (10, 100, 1000)
    ]
    assert [row["of"] for row in (first, second, third)] == ["requests"] * 3
    assert 0 < first["count"] < second["count"] < third["count"]
    for row in load["growth"]:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert load["start"]["ready_ms"] > load["start"]["first_result_ms"] > 0
    if drawn:
        assert picture.read_bytes()[:4] == b"\x89PNG"
