"""What a run costs: measured at first, followed since."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.runtime.run_cost import FEWEST_RUNS, MOST_RUNS, Pace, RunCost, measure_runs, percentile


@pytest.mark.parametrize("first", [0.01, 1.0, 30.0])
def test_the_estimate_comes_to_rest_near_the_95th_percentile(first: float) -> None:
    took = np.random.default_rng(0).gamma(20.0, 50_000.0, size=40_000)
    cost = RunCost(first * 1e6)
    for each in took:
        cost.observe(int(each))
    assert np.percentile(took, 85) < cost.p95_ns < 1.5 * np.percentile(took, 99)


def test_one_run_that_was_interrupted_hardly_counts_and_a_model_that_slowed_down_does() -> None:
    cost = RunCost(200_000)
    cost.observe(50_000_000)
    assert cost.p95_ns < 225_000
    for _ in range(30):
        cost.observe(5_000_000)
    assert cost.p95_ns > 2_000_000


def test_measuring_runs_a_model_a_few_times_at_least_and_not_for_ever() -> None:
    runs: list[int] = []
    took = measure_runs(lambda: runs.append(1))
    assert len(took) == MOST_RUNS
    assert len(runs) > MOST_RUNS
    assert took == sorted(took)
    assert FEWEST_RUNS < MOST_RUNS


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert percentile([1, 2, 3, 4], share) == value


def test_a_pace_follows_what_a_request_takes_and_one_pause_moves_it_little() -> None:
    pace = Pace()
    assert (pace.each_ns, pace.call_ns) == (0.0, 0.0)
    for _ in range(200):
        pace.observe(8_000_000, 8)
    assert pace.each_ns == pytest.approx(1_000_000)
    assert pace.call_ns == pytest.approx(8_000_000, rel=0.1)
    pace.observe(400_000_000, 1)
    assert pace.each_ns < 1_200_000
    for _ in range(200):
        pace.observe(2_000_000, 1)
    assert pace.each_ns == pytest.approx(2_000_000, rel=0.01)
