"""Solids: distances, and pieces that fill the same space."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import Delaunay

from limpet.training.grasp.scenes import everyday, tools
from limpet.training.grasp.scenes.objects import FAMILIES, NOVEL
from limpet.training.grasp.scenes.shapes import (
    Capsule,
    Solid,
    box,
    ring,
    rod,
    solid,
    turn,
    vessel,
)


def in_pieces(body: Solid, points: np.ndarray) -> np.ndarray:
    """Whether any convex piece holds a point, by another way than the distance: a Delaunay mesh."""
    out = np.zeros(len(points), bool)
    for piece in body.pieces():
        if piece.radius_m > 0:
            start, end = piece.vertices
            along = end - start
            share = np.clip((points - start) @ along / (along @ along), 0, 1)
            out |= np.linalg.norm(points - start - share[:, None] * along, axis=1) < piece.radius_m
        else:
            out |= Delaunay(piece.vertices).find_simplex(points) >= 0
    return out


def test_distance_to_a_turned_box_is_exact_off_its_faces() -> None:
    body = box((0.01, 0.02, 0.03), (0.04, 0.06, 0.08), turn("z", 30))
    off_face = np.array([[0.05, 0, 0], [0, 0.05, 0], [0, 0, -0.05], [0.0, 0.0, 0.0]])
    points = off_face @ turn("z", 30).T + [0.01, 0.02, 0.03]
    np.testing.assert_allclose(body.distance(points), [0.03, 0.02, 0.01, -0.02], atol=1e-9)


def test_distance_to_a_lying_rod_and_a_capsule() -> None:
    body = rod((-0.05, 0, 0), (0.05, 0, 0), 0.01)
    capsule = Capsule(np.array([-0.05, 0, 0]), np.array([0.05, 0, 0]), 0.01)
    points = np.array([[0, 0.03, 0], [0, 0, 0.005], [0.07, 0, 0]])
    np.testing.assert_allclose(body.distance(points), [0.02, -0.005, 0.02], atol=1e-9)
    np.testing.assert_allclose(capsule.distance(points), [0.02, -0.005, 0.01], atol=1e-9)


def test_a_vessel_is_hollow_and_its_axis_is_no_surface() -> None:
    cup = vessel([(0.03, 0), (0.03, 0.1)], wall=0.004, floor=0.006)
    axis = np.array([[0, 0, 0.003], [0, 0, 0.05], [0.028, 0, 0.05], [0, 0, 0.11]])
    np.testing.assert_allclose(cup.distance(axis), [-0.003, 0.026, -0.002, 0.02786], atol=2e-4)


@pytest.mark.parametrize(
    "body",
    [
        vessel([(0.02, 0), (0.03, 0.04), (0.028, 0.08)], 0.004, 0.006),
        solid([(0.02, 0), (0.03, 0.02), (0.01, 0.06)], (0.01, 0, 0), (1, 1, 0)),
        ring([(0.02, 0), (0.03, 0), (0.03, 0.01), (0.02, 0.01)], (0, 0, 0), (0, 1, 0)),
        Capsule(np.array([-0.02, 0, 0]), np.array([0.03, 0.01, 0]), 0.012),
    ],
    ids=["vessel", "solid", "ring", "capsule"],
)
def test_the_pieces_fill_what_the_distance_says(body: Solid) -> None:
    turned = body.moved(turn("x", 40) @ turn("z", 10), np.array([0.1, -0.2, 0.3]))
    low, high = turned.bounds()
    points = np.random.default_rng(0).uniform(low, high, (20_000, 3))
    distance = turned.distance(points)
    clear = np.abs(distance) > 7e-4  # a round wall is a polygon to physics
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(in_pieces(turned, points)[clear], distance[clear] < 0)


@pytest.mark.parametrize("family", [*FAMILIES, *NOVEL], ids=lambda family: family.__name__)
def test_every_family_draws_one_body_of_graspable_size(family) -> None:  # type: ignore[no-untyped-def]
    drawn = family(np.random.default_rng(5))
    low = np.min([body.bounds()[0] for body in drawn], axis=0)
    high = np.max([body.bounds()[1] for body in drawn], axis=0)
    sides = np.sort(high - low)
    assert sides[-1] < 0.22
    assert 0.006 < sides[0] < 0.1
    assert sides[1] < 0.145


def test_families_differ_between_instances() -> None:
    first, second = (everyday.mug(np.random.default_rng(k)) for k in (0, 1))
    assert not np.allclose(first[0].bounds()[1], second[0].bounds()[1])
    again = tools.drill(np.random.default_rng(3))[0].bounds()
    np.testing.assert_array_equal(again, tools.drill(np.random.default_rng(3))[0].bounds())
