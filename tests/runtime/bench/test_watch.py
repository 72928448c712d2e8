"""Lines through memories, and whose doing a missed deadline is."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from limpet.runtime.bench.load import Answers
from limpet.runtime.bench.mixed import missed_by_machine
from limpet.runtime.bench.stalls import Stall, stalled_s
from limpet.runtime.bench.watch import Watch, fit_slope

SECONDS = np.arange(600.0)


def test_a_memory_that_grows_has_its_slope_and_one_that_does_not_is_flat() -> None:
    noise = np.random.default_rng(0).normal(scale=0.2, size=600)
    grows = fit_slope(SECONDS.tolist(), (80 + 0.5 * SECONDS / 60 + noise).tolist())
    assert grows is not None
    assert grows.mb_per_min == pytest.approx(0.5, abs=0.05)
    assert not grows.is_flat
    rests = fit_slope(SECONDS.tolist(), (80 + noise).tolist())
    assert rests is not None
    assert rests.is_flat
    assert rests.largest_mb == pytest.approx(80 + noise.max())


def test_a_slope_is_as_sure_of_itself_as_it_may_be_where_neighbours_are_alike() -> None:
    """Of memories that wander (steps that stay) one in twenty may be called growing by mistake; a
    line through all samples calls most of them so."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        level = np.repeat(rng.normal(scale=0.3, size=10), 60)
        slope = fit_slope(SECONDS.tolist(), (80 + level).tolist())
        assert slope is not None
        wrong += abs(slope.mb_per_min) > slope.plus_minus
    assert wrong / 200 < 0.1


def test_of_fewer_samples_than_blocks_there_is_no_slope() -> None:
    assert fit_slope([0.0, 1.0], [80.0, 81.0]) is None


def test_a_watch_asks_until_its_block_ends_and_leaves_out_what_cannot_be_had() -> None:
    asked, enough = [0], threading.Event()

    def figure() -> float | None:
        asked[0] += 1
        if asked[0] == 20:
            enough.set()
        return None if asked[0] % 2 else float(asked[0])

    with Watch(figure, every_s=0.0) as watch:
        assert enough.wait(20.0)
    assert watch.values[:10] == [float(number) for number in range(2, 21, 2)]
    assert len(watch.values) == len(watch.seconds) == asked[0] // 2
    assert watch.seconds == sorted(watch.seconds)


def test_a_stall_counts_where_it_overlaps_and_of_the_worst_core() -> None:
    stalls = [Stall(0, 1.0, 1.5), Stall(0, 1.8, 2.5), Stall(1, 0.0, 1.2)]
    assert stalled_s(stalls, 1.0, 2.0) == pytest.approx(0.7)
    assert stalled_s(stalls, 0.0, 1.0) == pytest.approx(1.0)
    assert stalled_s(stalls, 3.0, 4.0) == 0.0


@pytest.mark.parametrize(
    ("latency_ms", "late_ms", "stall_ms", "by_machine"),
    [
        (19.0, 0.0, 0.0, 0),  # in time
        (25.0, 0.0, 0.0, 0),  # late, and nobody else at work
        (25.0, 6.0, 0.0, 1),  # asked late by more than it was late
        (25.0, 3.0, 0.0, 0),
        (25.0, 0.0, 6.0, 1),  # a core was withheld for longer than it was late
        (25.0, 0.0, 4.0, 0),
        (25.0, 3.0, 4.0, 1),
    ],
)
def test_a_miss_is_the_machines_where_it_withheld_as_much_as_was_missed(
    latency_ms: float, late_ms: float, stall_ms: float, by_machine: int
) -> None:
    answers = Answers(
        due=1,
        results=1,
        latency_ms=np.array([latency_ms]),
        due_s=np.array([2.0]),
        late_ms=np.array([late_ms]),
    )
    stall = Stall(0, 102.01, 102.01 + stall_ms / 1000)
    assert missed_by_machine(answers, 20.0, 100.0, [stall]) == by_machine


def test_a_stall_elsewhere_excuses_nothing() -> None:
    answers = Answers(
        due=1, latency_ms=np.array([25.0]), due_s=np.array([2.0]), late_ms=np.array([0.0])
    )
    stalls = [Stall(0, 90.0, 102.0), Stall(1, 102.03, 110.0)]
    assert missed_by_machine(answers, 20.0, 100.0, stalls) == 0
