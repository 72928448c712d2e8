from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.contracts.signals import Float32
from limpet.runtime.attribution import LARGEST, attribute_channels


def total_magnitude(frames: Float32, present: Float32) -> Float32:
    return np.abs(frames).sum(axis=(1, 2), dtype=np.float32)


def constant(frames: Float32, present: Float32) -> Float32:
    return np.full(len(frames), 4.0, np.float32)


def frames_of(levels: list[float], rows: int = 5) -> tuple[Float32, Float32]:
    """Frames at constant levels, all of them present."""
    frames = np.tile(np.array(levels, np.float32), (rows, 1))
    return frames, np.ones_like(frames)


def test_shares_are_what_each_channel_adds_to_the_score() -> None:
    shares = attribute_channels(*frames_of([1.0, -6.0, 3.0]), ["a", "b", "c"], total_magnitude)
    assert [(s.name, round(s.share, 6)) for s in shares] == [("b", 0.6), ("c", 0.3), ("a", 0.1)]


def test_a_channel_is_declared_absent_in_every_frame_and_nothing_else_changes() -> None:
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(4, 3)).astype(np.float32)
    present = np.ones_like(frames)
    present[:2, 1] = frames[:2, 1] = 0.0  # it was dead for a while
    kept = frames.copy(), present.copy()
    asked: list[tuple[Float32, Float32]] = []

    def watched(frames: Float32, present: Float32) -> Float32:
        asked.extend(zip(frames, present, strict=True))
        return total_magnitude(frames, present)

    attribute_channels(frames, present, ["a", "b", "c"], watched)
    whole, *occluded = asked
    np.testing.assert_array_equal(whole, kept)
    for channel, pair in enumerate(occluded):
        for found, wanted in zip(pair, kept, strict=True):
            wanted = wanted.copy()
            wanted[:, channel] = 0.0
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal((frames, present), kept)


def test_a_model_that_goes_by_what_is_absent_is_asked_with_it() -> None:
    def alarmed_by_b(frames: Float32, present: Float32) -> Float32:
        return (present * [1.0, 5.0, 2.0]).sum(axis=(1, 2)).astype(np.float32)

    shares = attribute_channels(*frames_of([0.0] * 3, rows=1), ["a", "b", "c"], alarmed_by_b)
    assert [(s.name, s.share) for s in shares] == [("b", 0.625), ("c", 0.25), ("a", 0.125)]


def test_a_channel_that_is_absent_already_has_no_share() -> None:
    frames, present = frames_of([0.0, 3.0])
    present[:, 0] = 0.0
    shares = attribute_channels(frames, present, ["dead", "b"], total_magnitude)
    assert [(s.name, s.share) for s in shares] == [("b", 1.0), ("dead", 0.0)]


def test_all_bands_of_a_channel_go_at_once() -> None:
    levels = [1.0, 0.0, 1.0, 3.0, 0.0, 2.0, 2.0, 0.0, 1.0]  # three channels of three bands
    shares = attribute_channels(*frames_of(levels), ["a", "b", "c"], total_magnitude)
    assert [(s.name, s.share) for s in shares] == [
        ("b", pytest.approx(0.5)),
        ("c", pytest.approx(0.3)),
        ("a", pytest.approx(0.2)),
    ]
    shares = attribute_channels(*frames_of(levels), ["a", "b", "c"], constant)
    assert [s.name for s in shares] == ["b", "c", "a"]


def test_a_channel_whose_removal_raises_the_score_has_no_share() -> None:
    def distance_of_b_from_a(frames: Float32, present: Float32) -> Float32:
        return (10.0 + frames[:, -1, 1] - frames[:, -1, 0]).astype(np.float32)

    shares = attribute_channels(*frames_of([2.0, 4.0]), ["a", "b"], distance_of_b_from_a)
    assert [(s.name, s.share) for s in shares] == [("b", 1.0), ("a", 0.0)]


def test_where_no_removal_lowers_the_score_the_distance_from_normal_decides() -> None:
    shares = attribute_channels(*frames_of([1.0, -3.0]), ["a", "b"], constant)
    assert [(s.name, s.share) for s in shares] == [("b", 0.75), ("a", 0.25)]


def test_channels_at_their_normal_level_share_alike() -> None:
    shares = attribute_channels(*frames_of([0.0, 0.0]), ["a", "b"], constant)
    assert [(s.name, s.share) for s in shares] == [("a", 0.5), ("b", 0.5)]


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=200), st.integers(1, 3))
def test_shares_fall_and_sum_to_at_most_one(levels: list[float], bands: int) -> None:
    names = [f"c{i}" for i in range(len(levels))]
    frames, present = frames_of(levels, rows=1)
    repeated = np.repeat(frames, bands, axis=1), np.repeat(present, bands, axis=1)
    shares = attribute_channels(*repeated, names, total_magnitude)
    values = [s.share for s in shares]
    assert len(shares) == min(LARGEST, len(levels))
    assert len({s.name for s in shares}) == len(shares)
    assert values == sorted(values, reverse=True)
    assert min(values) >= 0.0
    total = sum(values)
    assert total <= 1.0 + 1e-5
    assert len(levels) > LARGEST or total == pytest.approx(1.0, abs=1e-5)


def test_thousands_of_channels_are_occluded_a_few_at_a_time() -> None:
    # All at once would take 2,000 copies of frames of 2,000 channels.
    batches: list[int] = []

    def watched(frames: Float32, present: Float32) -> Float32:
        batches.append(len(frames))
        return total_magnitude(frames, present)

    levels = [0.0] * 2000
    levels[1999], levels[64], levels[63] = 3.0, 2.0, 1.0
    names = [f"c{i}" for i in range(2000)]
    shares = attribute_channels(*frames_of(levels, rows=2), names, watched)
    assert [s.name for s in shares[:3]] == ["c1999", "c64", "c63"]
    assert [s.share for s in shares[:3]] == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert max(batches) <= 64
