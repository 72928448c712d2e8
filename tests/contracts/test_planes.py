"""Finding the table."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.planes import find_plane

RNG = np.random.default_rng(2)


def _plane(count: int, normal: list[float], offset: float, noise: float = 0.001) -> np.ndarray:
    unit = np.array(normal) / np.linalg.norm(normal)
    flat = RNG.uniform(-0.3, 0.3, (count, 3))
    flat -= np.outer(flat @ unit, unit)
    return (flat - offset * unit + np.outer(RNG.normal(0, noise, count), unit)).astype(np.float32)


def test_the_plane_is_found_among_as_many_strays() -> None:
    strays = RNG.uniform(-0.3, 0.3, (2000, 3)).astype(np.float32) + np.float32([0, 0, 0.5])
    points = np.concatenate([_plane(2000, [0.1, -0.5, -0.9], 0.5), strays])
    plane = find_plane(points, within_m=0.004, least_share=0.3)
    assert plane is not None
    wanted = np.array([0.1, -0.5, -0.9]) / np.linalg.norm([0.1, -0.5, -0.9])
    assert np.rad2deg(np.arccos(plane.normal @ wanted)) < 0.5
    assert plane.offset_m == pytest.approx(0.5, abs=0.002)
    assert plane.share == pytest.approx(0.5, abs=0.05)


def test_its_normal_points_at_the_camera_and_heights_grow_towards_it() -> None:
    plane = find_plane(_plane(1000, [0, 0, 1], -0.6), within_m=0.004, least_share=0.3)
    assert plane is not None
    assert plane.normal[2] == pytest.approx(-1, abs=1e-3)
    np.testing.assert_allclose(plane.heights(np.array([[0, 0, 0.5]])), 0.1, atol=1e-3)
    np.testing.assert_allclose(plane.heights(np.array([[0, 0, 0.6]])), 0, atol=1e-3)
    axes = plane.axes()
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(axes @ plane.normal, 0, atol=1e-12)


def test_a_surface_with_much_behind_it_is_no_table() -> None:
    table = _plane(1500, [0, 0, -1], 0.8)
    top_of_a_box = _plane(1800, [0, 0, -1], 0.5)
    plane = find_plane(np.concatenate([table, top_of_a_box]), within_m=0.004, least_share=0.15)
    assert plane is not None
    assert plane.offset_m == pytest.approx(0.8, abs=0.01)


def test_no_plane_is_no_plane() -> None:
    cloud = RNG.uniform(-0.3, 0.3, (3000, 3)).astype(np.float32) + np.float32([0, 0, 0.6])
    assert find_plane(cloud, within_m=0.004, least_share=0.15) is None
    line = np.outer(np.linspace(0.1, 1, 500), [1, 1, 1]).astype(np.float32)
    assert find_plane(line, within_m=0.004, least_share=0.15) is None
    assert find_plane(line[:2], within_m=0.004, least_share=0.15) is None
