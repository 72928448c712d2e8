"""Thresholds from held-out scores."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.errors import DataError
from limpet.training.anomaly.calibration import calibrate, independent_rows


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05])
def test_the_false_alarm_rate_holds_on_fresh_normal_rows_within_a_factor_of_two(
    rate: float,
) -> None:
    rng = np.random.default_rng(0)
    observed = []
    for _ in range(20):
        calibration, warnings = calibrate(rng.gamma(2.0, size=int(100 / rate)), rate)
        assert not warnings
        observed.append((rng.gamma(2.0, size=int(100 / rate)) >= calibration.threshold).mean())
    assert rate / 2 < np.mean(observed) < rate * 2
    assert max(observed) < rate * 2


def test_the_rate_is_never_exceeded_on_average_even_for_a_handful_of_rows() -> None:
    rng = np.random.default_rng(1)
    reached = [
        rng.normal(size=100) >= calibrate(rng.normal(size=25), 0.1)[0].threshold
        for _ in range(2000)
    ]
    assert 0.07 < np.mean(reached) <= 0.1


def test_rows_that_equal_the_quantile_are_normal() -> None:
    calibration, _ = calibrate(np.repeat(1.0, 1000), 0.01)
    assert calibration.threshold > 1.0
    assert calibration.threshold == pytest.approx(1.0)


def test_too_few_rows_for_the_rate_widen_it_and_say_how_many_it_takes() -> None:
    calibration, warnings = calibrate(np.random.default_rng(0).permutation(np.arange(49.0)), 0.001)
    assert calibration.false_alarm_rate == pytest.approx(1 / 50)
    assert calibration.held_out_rows == 49
    assert calibration.threshold > 48.0
    assert "takes 999 rows" in warnings[0]


def test_a_rate_that_rests_on_few_rows_is_flagged() -> None:
    _, warnings = calibrate(np.random.default_rng(0).permutation(np.arange(300.0)), 0.01)
    assert "rests on 3 of 300 held-out rows" in warnings[0]


def test_an_incident_ends_lower_than_it_begins() -> None:
    calibration, _ = calibrate(np.random.default_rng(0).permutation(np.linspace(0, 1, 2000)), 0.01)
    assert calibration.threshold == pytest.approx(0.99, abs=0.002)
    assert calibration.release_threshold == pytest.approx(0.985, abs=0.002)


def test_rows_without_a_score_do_not_count() -> None:
    calibration, _ = calibrate(np.r_[np.full(500, np.nan), np.arange(2000.0)], 0.01, "pump.csv")
    assert (calibration.held_out_rows, calibration.data) == (2000, "pump.csv")
    with pytest.raises(DataError, match="no held-out row has a score"):
        calibrate(np.full(5, np.nan), 0.01)


def test_rows_that_are_alike_raise_the_threshold_above_their_quantile() -> None:
    """A slow wave's rows: 100 of them tell little of how high the next ones come."""
    rng = np.random.default_rng(2)
    observed, by_quantile = [], []
    for _ in range(200):
        noise = np.convolve(rng.normal(size=560), np.full(60, 1 / 60**0.5), "valid")
        calibration, warnings = calibrate(noise[:100], 0.05)
        assert any("tell as much as" in warning for warning in warnings)
        observed.append((noise[200:] >= calibration.threshold).mean())
        by_quantile.append((noise[200:] >= np.quantile(noise[:100], 0.95)).mean())
    assert np.mean(by_quantile) > 0.15
    assert np.mean(observed) < 0.6 * np.mean(by_quantile)


def test_independent_rows_count_as_what_they_are() -> None:
    rng = np.random.default_rng(3)
    white = rng.normal(size=5000)
    assert independent_rows(white) > 4000
    held = np.repeat(rng.normal(size=500), 10)
    assert 300 < independent_rows(held) < 700
    assert independent_rows(np.ones(50)) == 2.0


def test_rows_that_only_repeat_others_are_said_to_tell_nothing() -> None:
    calibration, warnings = calibrate(np.zeros(1000), 0.01)
    assert calibration.threshold > 0.0
    assert any("only repeat rows" in warning for warning in warnings)
    assert not any("repeat" in warning for warning in calibrate(np.full(1000, 1e-3), 0.01)[1])
