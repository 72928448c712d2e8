"""Free space: what counts as free, and shortest distances through it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from limpet.contracts.errors import DataError
from limpet.training.navigation.free_space import FreeSpace
from limpet.training.navigation.solids import Footprints


def walls(*rows: tuple[float, ...]) -> Footprints:
    return Footprints(np.array(rows, float).reshape(-1, 6))


HALL = walls((5, 0, 5, 0.05, 0, 0), (5, 10, 5, 0.05, 0, 0), (0, 5, 0.05, 5, 0, 0),
             (10, 5, 0.05, 5, 0, 0))  # fmt: skip


def test_clearance_is_the_distance_to_turned_and_rounded_rectangles() -> None:
    footprints = walls((0, 0, 1, 0.5, math.pi / 2, 0.0), (5, 0, 0, 0, 0, 1.0))
    points = np.array([[0.0, 2.0], [1.5, 0.0], [0.2, 0.2], [3.0, 0.0], [1.5, 2.0]])
    diagonal = math.hypot(1.0, 1.0)
    wanted = [1.0, 1.0, 0.0, 1.0, diagonal]
    np.testing.assert_allclose(footprints.clearance(points), wanted, atol=1e-12)


def test_in_an_empty_hall_geodesic_distance_is_nearly_straight() -> None:
    space = FreeSpace.of(HALL, (10, 10), 0.2)
    field = space.distances_to((1.05, 1.05))
    rng = np.random.default_rng(0)
    for point in rng.uniform(0.5, 9.5, (200, 2)):
        straight = math.dist(point, (1.05, 1.05))
        assert straight - 1e-9 <= field.at(point) <= 1.03 * straight + 0.1


def test_a_wall_has_to_be_gone_around() -> None:
    # A wall from the bottom up to y = 8, in the middle.
    hall = Footprints(np.concatenate([HALL.table, [[5, 4, 0.05, 4, 0, 0]]]))
    field = FreeSpace.of(hall, (10, 10), 0.2).distances_to((7.0, 1.0))
    corner = math.dist((3.0, 1.0), (4.8, 8.2)) + 0.4 + math.dist((5.2, 8.2), (7.0, 1.0))
    assert field.at(np.array([3.0, 1.0])) == pytest.approx(corner, rel=0.04)


def test_a_way_has_the_length_of_its_distance_and_keeps_clear() -> None:
    hall = Footprints(np.concatenate([HALL.table, [[5, 4, 0.05, 4, 0, 0]]]))
    field = FreeSpace.of(hall, (10, 10), 0.2).distances_to((7.0, 1.0))
    way = field.way_from(np.array([3.0, 1.0]))
    assert tuple(way[-1]) == (7.0, 1.0)
    length = np.linalg.norm(np.diff(way, axis=0), axis=1).sum()
    assert length == pytest.approx(field.at(np.array([3.0, 1.0])), abs=0.1)
    assert hall.clearance(way).min() >= 0.2


def test_a_place_without_a_way_is_not_free() -> None:
    closed = Footprints(np.concatenate([HALL.table, [[2, 5, 0.05, 5, 0, 0]]]))
    space = FreeSpace.of(closed, (10, 10), 0.2)
    assert space.centers(space.cells)[:, 0].min() > 2.0
    with pytest.raises(DataError, match="in no free cell"):
        space.distances_to((1.0, 5.0))
    assert math.isinf(space.distances_to((5.0, 5.0)).at(np.array([1.0, 5.0])))


def test_a_robot_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(DataError, match="radius 6 m"):
        FreeSpace.of(HALL, (10, 10), 6.0)
