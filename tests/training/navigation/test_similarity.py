"""Geometric similarity: what the definition says, and what counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from limpet.training.navigation.camera import Lidar
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.similarity import beam_weights, goal_similarity, lidar_similarity

LIDAR, CONFIG = Lidar(), NavigationConfig()
WEIGHTS = beam_weights(LIDAR, CONFIG)
RNG = np.random.default_rng(0)
SCANS = RNG.uniform(0.2, 6.0, (5, LIDAR.beams)).astype(np.float32)


def test_beams_count_where_the_camera_looks_and_fade_at_its_edge() -> None:
    by_degree = dict(zip(np.degrees(LIDAR.angles).round(), WEIGHTS, strict=True))
    assert by_degree[0] > 0.999
    assert by_degree[180] < 1e-6
    assert by_degree[44] > 0.5 > by_degree[46] > 0.3
    np.testing.assert_allclose(by_degree[40], by_degree[320])


def test_it_is_the_paper_s_formula_on_ranges_that_are_cut() -> None:
    found = lidar_similarity(SCANS, SCANS[:2], WEIGHTS, 3.0)
    for i, a in enumerate(SCANS):
        for j, b in enumerate(SCANS[:2]):
            apart = np.minimum(a, 3.0) / 3.0 - np.minimum(b, 3.0) / 3.0
            wanted = 1 - math.sqrt((WEIGHTS * apart**2).sum()) / math.sqrt(WEIGHTS.sum())
            assert found[i, j] == pytest.approx(wanted, abs=1e-6)


def test_a_frame_is_wholly_like_itself_and_nothing_beyond_reach_matters() -> None:
    np.testing.assert_allclose(
        np.diag(lidar_similarity(SCANS, SCANS, WEIGHTS, 3.0)), 1.0, atol=1e-6
    )
    far = np.full((1, LIDAR.beams), 3.5, np.float32)
    assert lidar_similarity(far, far + 2.0, WEIGHTS, 3.0)[0, 0] == pytest.approx(1.0)
    near = np.zeros_like(far)
    assert lidar_similarity(far, near, WEIGHTS, 3.0)[0, 0] == pytest.approx(0.0)


def test_what_is_behind_the_robot_does_not_matter() -> None:
    behind = SCANS[:1].copy()
    behind[0, 60:120] = 0.1
    assert lidar_similarity(SCANS[:1], behind, WEIGHTS, 3.0)[0, 0] == pytest.approx(1.0, abs=1e-3)


def test_a_beam_that_one_scan_lacks_counts_for_neither() -> None:
    lacking = SCANS[:1].copy()
    lacking[0, :5] = np.nan
    kept = np.ones(LIDAR.beams)
    kept[:5] = 0.0
    found = lidar_similarity(lacking, SCANS[1:2], WEIGHTS, 3.0)
    wanted = lidar_similarity(SCANS[:1], SCANS[1:2], WEIGHTS * kept, 3.0)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    blind = np.full_like(lacking, np.nan)
    assert lidar_similarity(blind, SCANS[:1], WEIGHTS, 3.0)[0, 0] == 0.0


def test_goals_are_alike_by_distance_and_bearing_around_the_circle() -> None:
    goals = np.array([[2.0, 3.1], [2.0, -3.1], [7.0, 3.1], [40.0, 0.0]], np.float32)
    found = goal_similarity(goals, goals, 10.0)
    assert found[0, 1] == pytest.approx(1 - (2 * math.pi - 6.2) / math.pi, abs=1e-5)
    assert found[0, 2] == pytest.approx(0.5)
    assert found[0, 3] == 0.0
    np.testing.assert_allclose(np.diag(found), 1.0)
