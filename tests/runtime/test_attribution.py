from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.contracts.signals import Float32
from limpet.runtime.attribution import LARGEST, attribute_channels


def total_magnitude(windows: Float32) -> Float32:
    return np.abs(windows).sum(axis=(1, 2), dtype=np.float32)


def constant(windows: Float32) -> Float32:
    return np.full(len(windows), 4.0, np.float32)


def window_of(levels: list[float], rows: int = 5) -> Float32:
    return np.tile(np.array(levels, np.float32), (rows, 1))


def test_shares_are_what_each_channel_adds_to_the_score() -> None:
    shares = attribute_channels(window_of([1.0, -6.0, 3.0]), ["a", "b", "c"], total_magnitude)
    assert [(s.name, round(s.share, 6)) for s in shares] == [("b", 0.6), ("c", 0.3), ("a", 0.1)]


def test_a_channel_whose_removal_raises_the_score_has_no_share() -> None:
    def distance_of_b_from_a(windows: Float32) -> Float32:
        return (10.0 + windows[:, -1, 1] - windows[:, -1, 0]).astype(np.float32)

    shares = attribute_channels(window_of([2.0, 4.0]), ["a", "b"], distance_of_b_from_a)
    assert [(s.name, s.share) for s in shares] == [("b", 1.0), ("a", 0.0)]


def test_where_no_removal_lowers_the_score_the_distance_from_normal_decides() -> None:
    shares = attribute_channels(window_of([1.0, -3.0]), ["a", "b"], constant)
    assert [(s.name, s.share) for s in shares] == [("b", 0.75), ("a", 0.25)]


def test_channels_at_their_normal_level_share_alike() -> None:
    shares = attribute_channels(window_of([0.0, 0.0]), ["a", "b"], constant)
    assert [(s.name, s.share) for s in shares] == [("a", 0.5), ("b", 0.5)]


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=200))
def test_shares_fall_and_sum_to_at_most_one(levels: list[float]) -> None:
    names = [f"c{i}" for i in range(len(levels))]
    shares = attribute_channels(window_of(levels, rows=1), names, total_magnitude)
    values = [s.share for s in shares]
    assert len(shares) == min(LARGEST, len(levels))
    assert len({s.name for s in shares}) == len(shares)
    assert values == sorted(values, reverse=True)
    assert min(values) >= 0.0
    total = sum(values)
    assert total <= 1.0 + 1e-5
    assert len(levels) > LARGEST or total == pytest.approx(1.0, abs=1e-5)


def test_thousands_of_channels_are_occluded_a_few_at_a_time() -> None:
    # All at once would take 2,000 copies of a window of 2,000 channels.
    batches: list[int] = []

    def watched(windows: Float32) -> Float32:
        batches.append(len(windows))
        return total_magnitude(windows)

    levels = [0.0] * 2000
    levels[1999], levels[64], levels[63] = 3.0, 2.0, 1.0
    names = [f"c{i}" for i in range(2000)]
    shares = attribute_channels(window_of(levels, rows=2), names, watched)
    assert [s.name for s in shares[:3]] == ["c1999", "c64", "c63"]
    assert [s.share for s in shares[:3]] == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert max(batches) <= 64
