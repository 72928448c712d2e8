"""The tail of normal scores, and thresholds for a number of false alarms a day."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import genpareto

from limpet.contracts.detector import DetectorConfig
from limpet.contracts.errors import DataError
from limpet.contracts.incidents import incidents_of_scores
from limpet.training.anomaly.calibration import calibrate_per_day
from limpet.training.anomaly.extremes import LARGEST_SHAPE, Tail, fit_tail

ROWS_A_DAY = 86_400.0


def stationary(n: int, seed: int) -> NDArray[np.float32]:
    """Scores whose neighbours are alike, as a stream's are."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.gamma(0.5, size=n + 7), np.full(8, 1 / 8), "valid")
    return noise.astype(np.float32)


def opened(scores: NDArray[np.float32], threshold: float, release: float) -> int:
    return len(incidents_of_scores(scores, threshold, release, DetectorConfig()))


@pytest.mark.parametrize("per_day", [4.0, 20.0, 100.0])
def test_fresh_normal_rows_open_the_stated_incidents_a_day_within_a_factor_of_two(
    per_day: float,
) -> None:
    # A sixth of a day decides; 4 a day are extrapolated.
    observed = []
    for seed in range(6):
        calibration, _ = calibrate_per_day(
            stationary(int(ROWS_A_DAY / 6), seed), per_day, ROWS_A_DAY, 1
        )
        fresh = stationary(int(ROWS_A_DAY), seed + 100)
        observed.append(opened(fresh, calibration.threshold, calibration.release_threshold))
        assert calibration.release_threshold <= calibration.threshold
        assert calibration.false_alarms_per_day == per_day
    assert per_day / 2 < np.mean(observed) < per_day * 2


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3])
def test_scale_and_shape_are_those_of_the_distribution_unless_it_has_an_end(shape: float) -> None:
    # Peaks far apart, among them nothing: the level is 0, which every peak exceeds.
    scores = np.zeros(4_000_000)
    scores[::1000] = genpareto.rvs(shape, scale=2.0, size=4000, random_state=0)
    tail = fit_tail(scores, 1, 2)
    assert tail.level == 0.0
    assert tail.peaks_per_frame == pytest.approx(0.001)
    assert tail.shape == pytest.approx(max(shape, 0.0), abs=0.06)
    if shape >= 0.0:
        assert tail.scale == pytest.approx(2.0, rel=0.1)
    wanted = genpareto.isf(0.001, shape, scale=2.0)
    assert tail.reached_by(0.001 * 0.001) > 0.85 * wanted


def test_rarer_alarms_take_higher_scores_and_the_level_is_the_least() -> None:
    for shape in (0.0, 0.2, 0.5):
        tail = Tail(level=2.0, peaks_per_frame=0.01, scale=0.5, shape=shape, peaks=50)
        reached = [tail.reached_by(rate) for rate in (0.1, 0.01, 1e-3, 1e-4, 1e-6)]
        assert reached[:2] == [2.0, 2.0]
        assert (np.diff(reached[1:]) > 0).all()


def test_a_flicker_shorter_than_an_incident_is_no_peak() -> None:
    scores = np.zeros(10_000)
    scores[::100] = 5.0
    assert fit_tail(scores, 3, 16).reached_by(1e-6) < 0.1
    assert fit_tail(scores, 1, 16).reached_by(1e-6) > 5.0


def test_few_peaks_have_an_exponential_tail_and_any_shape_is_bounded() -> None:
    scores = np.zeros(1000)
    scores[::300] = [1.0, 5.0, 20.0, 400.0]
    assert fit_tail(scores, 1, 2).shape == 0.0
    scores[::20] = np.arange(50.0) ** 8
    assert fit_tail(scores, 1, 2).shape == LARGEST_SHAPE


def test_scores_that_are_all_alike_have_a_threshold_just_above() -> None:
    calibration, warnings = calibrate_per_day(np.full(500, 0.25), 1.0, ROWS_A_DAY, 1)
    assert 0.25 < calibration.threshold < 0.3
    assert "train on more rows" in warnings[0]


def test_what_is_extrapolated_is_said() -> None:
    _, warnings = calibrate_per_day(stationary(20_000, 0), 1.0, ROWS_A_DAY, 1)
    assert "extrapolated" in warnings[0]
    assert "0.23 days" in warnings[0]
    assert calibrate_per_day(stationary(20_000, 0), 100.0, ROWS_A_DAY, 1)[1] == ()


def test_frames_without_a_score_do_not_count_and_one_must_have_one() -> None:
    scores = stationary(5000, 0)
    gaps = np.concatenate([np.full(100, np.nan, np.float32), scores])
    assert calibrate_per_day(gaps, 9.0, ROWS_A_DAY, 1) == calibrate_per_day(
        scores, 9.0, ROWS_A_DAY, 1
    )
    with pytest.raises(DataError, match="no held-out row has a score"):
        calibrate_per_day(np.full(5, np.nan), 1.0, ROWS_A_DAY, 1, "x.csv")
