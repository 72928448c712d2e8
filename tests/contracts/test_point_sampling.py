"""Thinning of clouds: its laws, and the same numbers everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.planes import scattered, thin
from limpet.contracts.point_sampling import (
    dilate,
    farthest_points,
    neighbours,
    shuffled,
    smallest,
    voxel_keys,
    voxel_means,
)

CLOUD = np.random.default_rng(5).uniform(-0.2, 0.2, (3000, 3)).astype(np.float32)


def test_points_of_one_voxel_become_their_mean() -> None:
    points = np.array([[0.001, 0, 0], [0.003, 0, 0.002], [-0.001, 0, 0]], np.float32)
    means, keys, counts = voxel_means(points, 0.004)
    np.testing.assert_allclose(means, [[-0.001, 0, 0], [0.002, 0, 0.001]], atol=1e-7)
    assert counts.tolist() == [1, 2]
    assert (np.diff(keys) > 0).all()


def test_voxels_hold_every_point_once_whatever_the_order() -> None:
    means, keys, counts = voxel_means(CLOUD, 0.05)
    assert counts.sum() == len(CLOUD)
    np.testing.assert_array_equal(voxel_keys(means, 0.05), keys)
    again, _, _ = voxel_means(CLOUD[::-1], 0.05)
    np.testing.assert_allclose(again, means, atol=1e-7)
    assert voxel_means(CLOUD[:0], 0.05)[0].shape == (0, 3)


def test_neighbours_are_counted_as_by_looking_at_all_pairs() -> None:
    _, keys, _ = voxel_means(CLOUD[:400], 0.05)
    cells = np.stack([keys >> 42, (keys >> 21) & 0x1FFFFF, keys & 0x1FFFFF], axis=1)
    touching = np.abs(cells[:, None] - cells).max(-1) == 1
    np.testing.assert_array_equal(neighbours(keys), touching.sum(1))


def test_each_farthest_point_is_the_farthest_from_those_before() -> None:
    chosen = farthest_points(CLOUD[:300], 40)
    assert chosen[0] == np.argmin(np.linalg.norm(CLOUD[:300] - CLOUD[:300].mean(0), axis=1))
    for count in range(1, 40):
        distance = np.linalg.norm(CLOUD[:300, None] - CLOUD[chosen[:count]], axis=-1).min(1)
        assert distance[chosen[count]] == pytest.approx(distance.max(), abs=1e-6)


def test_no_more_farthest_points_than_there_are() -> None:
    assert sorted(farthest_points(CLOUD[:7], 20).tolist()) == list(range(7))
    assert len(farthest_points(CLOUD[:0], 20)) == 0


def test_the_order_of_voxels_is_the_same_for_ever() -> None:
    points = np.array([[0.1, 0.2, 0.3], [-0.1, 0, 0.5], [0, 0, 0]], np.float32)
    keys = shuffled(points, 0.004)
    assert np.argsort(keys).tolist() == [0, 1, 2]
    assert scattered(3, seed=2).tolist() == [
        14338682722043390961,
        12190030345274148355,
        17640681075543127436,
    ]


def test_the_smallest_keys_come_ascending() -> None:
    keys = scattered(1000)
    np.testing.assert_array_equal(smallest(keys, 50), np.argsort(keys)[:50])
    np.testing.assert_array_equal(smallest(keys, 5000), np.argsort(keys))


def test_thinning_keeps_small_clouds_and_spreads_over_large_ones() -> None:
    assert thin(CLOUD, 3000) is CLOUD
    few = thin(CLOUD, 1500)
    assert len(few) == 1500
    np.testing.assert_allclose(few.mean(0), CLOUD.mean(0), atol=0.015)


def test_cells_grow_by_one_in_each_direction() -> None:
    cells = np.zeros((5, 6), bool)
    cells[0, 1] = True
    wanted = np.zeros((5, 6), bool)
    wanted[:2, :3] = True
    np.testing.assert_array_equal(dilate(cells), wanted)
