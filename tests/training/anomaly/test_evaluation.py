"""Figures of merit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from limpet.contracts.incidents import Finding, Incident, Interval
from limpet.training.anomaly.evaluation import (
    auroc,
    average_precision,
    event_figures,
    ranking,
    row_figures,
)
from limpet.training.anomaly.judged import Judged


def judged(labels: list[int], flags: list[int], **fields: object) -> Judged:
    """A recording with these flags, its flags being its scores."""
    known = {
        "labels": np.array(labels, bool),
        "scores": np.array(flags, np.float32),
        "flags": np.array(flags, bool),
        "alert": np.zeros(len(labels), bool),
        "findings": (),
        "incidents": 0,
        "outside": 0,
        "rate_hz": 1.0,
        "window_rows": 4,
        "unscored": 0,
    }
    return Judged(**{**known, **fields})  # type: ignore[arg-type]


def test_auroc_is_the_share_of_pairs_in_the_right_order_ties_half() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, 200).astype(float)
    truth = rng.random(200) < 0.3
    difference = scores[truth][:, None] - scores[~truth][None, :]
    pairs = (difference > 0).mean() + 0.5 * (difference == 0).mean()
    np.testing.assert_allclose(auroc(scores, truth), pairs, rtol=1e-12)


def test_auroc_is_one_for_perfect_zero_for_inverted_and_undefined_without_both_kinds() -> None:
    truth = np.array([False, False, True])
    assert auroc(np.array([0.1, 0.2, 0.3]), truth) == 1.0
    assert auroc(np.array([0.3, 0.2, 0.1]), truth) == 0.0
    assert math.isnan(auroc(np.array([0.1, 0.2]), np.array([False, False])))


@pytest.mark.parametrize("values", [2, 6, 10_000])
def test_average_precision_is_that_of_scikit_learn_with_and_without_ties(values: int) -> None:
    rng = np.random.default_rng(values)
    scores = rng.integers(0, values, 300).astype(float)
    truth = rng.random(300) < 0.2
    wanted = average_precision_score(truth, scores)
    assert average_precision(scores, truth) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("label", [False, True])
def test_average_precision_is_undefined_without_both_kinds(label: bool) -> None:
    assert math.isnan(average_precision(np.array([0.1, 0.2]), np.array([label, label])))


def test_row_figures_pool_the_rows_of_all_recordings() -> None:
    found = row_figures([judged([1, 1, 0, 0], [1, 0, 1, 0]), judged([0, 0, 1], [0, 0, 1])])
    assert (found.rows, found.anomalous, found.flagged) == (7, 3, 3)
    assert (found.precision, found.recall, found.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert (found.false_alarm_rate, found.missed_alarm_rate) == (1 / 4, 1 / 3)


def test_one_flagged_row_of_a_long_interval_is_one_hit_and_not_all() -> None:
    """A point-adjusted F1 would say 1."""
    found = row_figures([judged([0] * 5 + [1] * 9, [0] * 5 + [1] + [0] * 8)])
    assert found.f1 == pytest.approx(2 / 10)


def test_a_share_of_no_rows_is_undefined() -> None:
    found = row_figures([judged([0, 0], [0, 0])])
    assert found.false_alarm_rate == 0.0
    undefined = [found.precision, found.recall, found.f1, found.missed_alarm_rate]
    assert all(math.isnan(value) for value in undefined)


def test_event_figures_count_intervals_delays_and_alert_time_over_recordings() -> None:
    def finding(start: int, reported: int | None) -> Finding:
        seen = None if reported is None else Incident(
            number=1, start=0, reported=reported, stop=9, peak_score=1.0
        )  # fmt: skip
        return Finding(Interval(start, start + 2), seen)

    slow = judged(
        [0, 0, 1, 1], [0] * 4,
        alert=np.array([True, False, True, True]),
        findings=(finding(2, 6), finding(2, None)), incidents=3, outside=1, rate_hz=0.5,
    )  # fmt: skip
    fast = judged([0, 1], [0] * 2, findings=(finding(4, 6),), incidents=1, rate_hz=2.0)
    found = event_figures([slow, fast])
    assert (found.labelled, found.detected, found.incidents, found.outside) == (3, 2, 4, 1)
    assert found.delay_rows == 3.0
    assert found.delay_s == (8.0 + 1.0) / 2
    assert found.alert_share_of_normal == 1 / 3


def test_without_a_detected_interval_there_is_no_delay() -> None:
    assert math.isnan(event_figures([judged([0], [0])]).delay_rows)


def test_the_ranking_takes_the_recordings_own_window() -> None:
    rng = np.random.default_rng(1)
    labels = [*[0] * 40, *[1] * 9, *[0] * 51]
    scores = rng.random(100).astype(np.float32)
    narrow = ranking(judged(labels, [0] * 100, scores=scores, window_rows=0))
    wide = ranking(judged(labels, [0] * 100, scores=scores, window_rows=20))
    assert (narrow.auroc, narrow.average_precision) == (wide.auroc, wide.average_precision)
    assert narrow.vus_pr != wide.vus_pr
