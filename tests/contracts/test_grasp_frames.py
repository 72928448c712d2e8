"""GraspNet's parametrisation, by its laws and by values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.grasp_frames import (
    ANGLES,
    ANGLES_RAD,
    DEPTHS_M,
    VIEWS,
    approach_directions,
    inverse_pose,
    nearest_view,
    poses_of,
    rotation_about,
    rotation_between_rad,
    rotation_of,
    transform_points,
    turn_from,
    view_directions,
)


def test_first_and_last_views_are_where_the_lattice_puts_them() -> None:
    views = view_directions()
    assert views.shape == (VIEWS, 3)
    # z runs from -1 + 1/300 to 1 - 1/300; the first view lies at angle 0.
    z = 299 / 300
    np.testing.assert_allclose(views[0], [np.sqrt(1 - z * z), 0, -z], atol=1e-12)
    # The second is turned by 2 pi times the golden ratio conjugate: 222.492 degrees.
    z = -297 / 300
    turn = np.deg2rad(222.4922359)
    radius = np.sqrt(1 - z * z)
    np.testing.assert_allclose(
        views[1], [radius * np.cos(turn), radius * np.sin(turn), z], atol=1e-8
    )
    np.testing.assert_allclose(views[-1][2], 299 / 300)


def test_views_are_unit_and_cover_the_sphere_evenly() -> None:
    views = view_directions()
    np.testing.assert_allclose(np.linalg.norm(views, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(views.mean(0), 0, atol=0.01)
    cosines = views @ views.T - 2 * np.eye(VIEWS)
    nearest_deg = np.rad2deg(np.arccos(cosines.max(1)))
    assert nearest_deg.min() > 7
    assert nearest_deg.max() < 13


def test_an_approach_is_the_opposite_of_its_view() -> None:
    np.testing.assert_array_equal(approach_directions(), -view_directions())


def test_angles_and_depths_are_graspnets() -> None:
    np.testing.assert_allclose(np.rad2deg(ANGLES_RAD), np.arange(ANGLES) * 15)
    np.testing.assert_allclose(DEPTHS_M, [0.01, 0.02, 0.03, 0.04])


def test_rotations_are_rotations_with_the_approach_first() -> None:
    approach = approach_directions()[:, None]
    rotation = rotation_of(approach, ANGLES_RAD)  # (V, A, 3, 3)
    assert rotation.shape == (VIEWS, ANGLES, 3, 3)
    product = np.swapaxes(rotation, -1, -2) @ rotation
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    np.testing.assert_allclose(rotation[..., 0], np.broadcast_to(approach, rotation.shape[:-1]))


@pytest.mark.parametrize(
    ("approach", "degrees", "rows"),
    [
        # Along x at angle 0 the gripper's frame is the frame itself.
        ([1, 0, 0], 0, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        # Turned a quarter about it, y has become z.
        ([2, 0, 0], 90, [[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
        # Along y the closing direction at angle 0 is -x.
        ([0, 1, 0], 0, [[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
        # Along z nothing is left of it: +y, and x × y = (0, 0, 1) × (0, 1, 0) = -x.
        ([0, 0, 1], 0, [[0, 0, -1], [0, 1, 0], [1, 0, 0]]),
        ([0, 0, -3], 0, [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
        # A turn of -z by a quarter: y becomes cos 90 · y + sin 90 · (x axis of the frame).
        ([0, 0, -1], 90, [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]),
    ],
)
def test_rotations_worked_out_by_hand(
    approach: list[int], degrees: float, rows: list[list[int]]
) -> None:
    np.testing.assert_allclose(rotation_of(approach, np.deg2rad(degrees)), rows, atol=1e-12)


def test_an_angle_is_found_again() -> None:
    approach = approach_directions()[:, None]
    angles = turn_from(rotation_of(approach, np.zeros(1)), rotation_of(approach, ANGLES_RAD))
    np.testing.assert_allclose(angles, np.broadcast_to(ANGLES_RAD, angles.shape), atol=1e-9)


def test_each_approach_is_its_own_nearest_view() -> None:
    np.testing.assert_array_equal(nearest_view(3 * approach_directions()), np.arange(VIEWS))


def test_the_angle_between_rotations_is_that_of_the_turn() -> None:
    first = rotation_of([1.0, 2.0, 3.0], 0.2)
    np.testing.assert_allclose(rotation_between_rad(first, first), 0, atol=1e-7)
    second = rotation_of([1.0, 2.0, 3.0], 0.2 + np.deg2rad(29))
    np.testing.assert_allclose(np.rad2deg(rotation_between_rad(first, second)), 29)
    np.testing.assert_allclose(
        rotation_between_rad(np.eye(3), np.diag([1.0, -1.0, -1.0])), np.pi, atol=1e-7
    )


def test_a_pose_and_its_inverse_bring_points_back() -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(20, 3))
    pose = poses_of(rotation_of([0.3, -0.2, 0.9], 1.0), np.array([0.1, 0.2, 0.7]))
    np.testing.assert_allclose(pose @ inverse_pose(pose), np.eye(4), atol=1e-12)
    there = transform_points(points, pose)
    np.testing.assert_allclose(there[0], pose[:3, :3] @ points[0] + pose[:3, 3])
    np.testing.assert_allclose(transform_points(there, inverse_pose(pose)), points, atol=1e-12)


def test_a_rotation_turns_about_its_vector_by_its_length() -> None:
    np.testing.assert_allclose(rotation_about([0, 0, np.pi / 2]) @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    vector = np.array([0.3, -0.2, 0.5])
    turn = rotation_about(vector)
    np.testing.assert_allclose(turn @ vector, vector, atol=1e-15)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-15)
    assert rotation_between_rad(np.eye(3), turn) == pytest.approx(np.linalg.norm(vector))
    np.testing.assert_array_equal(rotation_about(np.zeros(3)), np.eye(3))
