"""Intervals, against textbooks."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.training.intervals import bootstrap, wilson


def test_a_shares_interval_is_the_textbooks() -> None:
    share = wilson(81, 263)  # Newcombe 1998, table I
    assert (share.low, share.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20).low == 0.0


def test_a_means_interval_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.2, 400)
    mean = bootstrap(values)
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * 0.2 / 20, rel=0.15)
    assert mean.low < values.mean() < mean.high
