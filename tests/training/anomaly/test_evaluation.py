"""Figures of merit."""

from __future__ import annotations

import math

import numpy as np

from limpet.training.anomaly.evaluation import auroc


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
