"""The search for the largest number of streams, and what counts as held."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from limpet.contracts.errors import UsageError
from limpet.runtime.bench.sample_bundle import made_up_vibration
from limpet.runtime.bench.sensors_plan import SensorsReport
from limpet.runtime.bench.streaming import find_largest, judge, make_setting

SETTING: dict[str, Any] = {
    "channels": 8,
    "rate_hz": 1000.0,
    "chunk_ms": 20.0,
    "seconds": 5.0,
    "limit_ms": 50.0,
    "bundle": "made",
}
GOOD = SensorsReport(
    rows=1000,
    rows_sent=1000,
    rows_acknowledged=1000,
    refused={},
    rows_per_s=1000.0,
    messages=50,
    p50_ms=1.0,
    p99_ms=50.0,
    p999_ms=60.0,
    max_ms=70.0,
    waited_for_credit=0,
    credit_wait_max_ms=0.0,
    late_p99_ms=0.1,
    sensors_cpu=0.1,
    server_cpu=0.2,
    counters={"requests.Samples": 50, "alerts": 3},
)


@pytest.mark.parametrize("largest", [0, 1, 2, 3, 7, 8, 37, 64, 99, 100])
def test_the_search_finds_the_largest_number_that_holds(largest: int) -> None:
    tried: list[int] = []

    def holds(number: int) -> bool:
        tried.append(number)
        return number <= largest

    assert find_largest(holds, most=100) == largest
    assert len(set(tried)) == len(tried)
    assert max(tried) <= 100


def test_a_step_is_held_up_to_the_limit_itself() -> None:
    step = judge(GOOD, make_setting(**SETTING), 1)
    assert step.held
    assert step.alert_p99_ms == 70.0
    assert step.alerts == 3
    assert step.dropped == {}


@pytest.mark.parametrize(
    "change",
    [
        {"p99_ms": 50.1},
        {"rows_acknowledged": 980},
        {"rows_sent": 980, "rows_acknowledged": 980},
        {"refused": {"no_credit": 1}},
        {"waited_for_credit": 1, "credit_wait_max_ms": 50.1},
        {"counters": {"dropped.reply_peer_gone": 1}},
    ],
)
def test_too_slow_or_a_single_loss_is_not_held(change: dict[str, Any]) -> None:
    assert not judge(msgspec.structs.replace(GOOD, **change), make_setting(**SETTING), 1).held


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"chunk_ms": 0.5}, "--chunk-ms 0.5 at --rate-hz 1000 is 0.5 rows"),
        ({"chunk_ms": 5000.0}, "is 5000 rows, wanted a whole number from 1 to 4096"),
        ({"seconds": 0.03}, "--seconds 0.03 is shorter than two chunks of 20 ms"),
    ],
)
def test_a_setting_that_cannot_be_measured_says_why(change: dict[str, Any], found: str) -> None:
    with pytest.raises(UsageError, match=found):
        make_setting(**{**SETTING, **change})


def test_made_up_vibration_has_as_many_rows_and_channels_as_wanted() -> None:
    assert made_up_vibration(3, 500).shape == (500, 3)
