from __future__ import annotations

import numpy as np
import pytest

from limpet.training.grasp.judging.force_closure import NONE, lowest_friction, needed_friction
from limpet.training.grasp.surfaces import Surface
from tests.training.grasp.layouts import box_mesh

Y = np.array([[0.0, 1, 0]])


def surface(extent: tuple[float, float, float] = (0.04, 0.03, 0.06), tilt: float = 0.0) -> Surface:
    """A box; with a tilt its faces square to y lean towards x, by a slope of `tilt`, both ways."""
    mesh = box_mesh(extent)
    vertices = np.asarray(mesh.vertices)
    vertices[:, 1] *= 1 + 2 * tilt * vertices[:, 0] / extent[1]
    return Surface(vertices, np.asarray(mesh.triangles))


def test_parallel_faces_hold_at_the_lowest_friction() -> None:
    contacts = surface().contacts(np.zeros((1, 3)), Y, np.array([0.05]))
    assert contacts.found.all()
    np.testing.assert_allclose(contacts.points[0, :, 1], [-0.015, 0.015], atol=1e-6)
    np.testing.assert_allclose(np.abs(contacts.normals[0, :, 1]), 1, atol=1e-6)
    assert lowest_friction(surface(), np.zeros((1, 3)), Y, np.array([0.05])) == 0.2


@pytest.mark.parametrize(
    ("tilt", "wanted"),
    [(0.0, 0.2), (0.2, 0.2), (0.3999, 0.4), (0.4001, 0.6), (0.95, 1.0), (1.19, 1.2), (1.21, NONE)],
)
def test_a_wedge_needs_the_friction_of_its_slope(tilt: float, wanted: float) -> None:
    # Faces y = ±(d + tilt·x): the angle between y and the normal is arctan(tilt).
    wedge = surface((0.02, 0.05, 0.06), tilt)
    found = lowest_friction(wedge, np.zeros((1, 3)), Y, np.array([0.09]))
    assert found == pytest.approx(wanted)


def test_turning_the_gripper_needs_the_tangent_of_the_turn() -> None:
    turn = np.arctan(0.5)
    axis = np.array([[np.sin(turn), np.cos(turn), 0.0]])
    contacts = surface((0.08, 0.03, 0.06)).contacts(np.zeros((1, 3)), axis, np.array([0.06]))
    assert needed_friction(contacts) == pytest.approx(0.5, abs=1e-4)


def test_each_finger_goes_to_the_middle_and_no_further() -> None:
    box, width = surface(), np.array([0.05])
    # The middle lies 5 mm outside the face: one finger passes no surface on its half.
    beyond = np.array([[0.0, 0.02, 0.0]])
    assert lowest_friction(box, beyond, Y, np.array([0.09])) == NONE
    assert lowest_friction(box, np.array([[0.0, 0.014, 0.0]]), Y, np.array([0.06])) == 0.2
    # Fingers that start inside the object, 1 cm apart, meet nothing.
    assert lowest_friction(box, np.zeros((1, 3)), Y, np.array([0.01])) == NONE
    assert lowest_friction(box, np.array([[0.05, 0.0, 0.0]]), Y, width) == NONE
    # Of a grasp around nothing at the surface itself, too.
    assert lowest_friction(box, np.zeros((1, 3)), Y, np.array([0.0])) == NONE


def test_distances_are_of_the_surface_and_infinite_far_away() -> None:
    points = np.array([[0.0, 0.018, 0.0], [0.0, 0.014, 0.0], [0.0, 0.2, 0.0]])
    found = surface().distances(points, within_m=0.006)
    np.testing.assert_allclose(found, [0.003, 0.001, np.inf], atol=1e-6)
