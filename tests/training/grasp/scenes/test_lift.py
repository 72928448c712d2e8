"""Grasps that must hold and grasps that must not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from limpet.contracts.errors import DataError
from limpet.training.grasp.scenes.lift import LiftConfig, lift_success, read_settled
from limpet.training.grasp.scenes.objects import make_object
from limpet.training.grasp.scenes.physics import Settled

CARTON = 2  # 3 × 7 × 17 cm, 0.3 kg
HALF = make_object(CARTON).mesh.vertices.max(axis=0)


@pytest.fixture(scope="module")
def scene() -> Settled:
    """A carton standing on the table, its narrow side along x."""
    pose = np.eye(4)
    pose[2, 3] = HALF[2]
    return Settled((CARTON,), pose[None])


def row(
    at: tuple[float, float, float] = (0.0, 0.0, 2 * HALF[2]),
    width: float = 2 * HALF[0] + 0.01,
    depth: float = 0.03,
    turn_rad: float = 0.0,
) -> np.ndarray:
    """A grasp from above that closes along x, turned about the vertical."""
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    down, closing = np.array([0.0, 0, -1]), np.array([cos, sin, 0.0])
    rotation = np.stack([down, closing, np.cross(down, closing)], axis=1)
    return np.array([1.0, width, 0.02, depth, *rotation.ravel(), *at, -1])


def test_a_grasp_across_the_narrow_side_of_a_carton_holds(scene: Settled) -> None:
    lifts = lift_success(scene, np.stack([row(), row(turn_rad=0.15), row((0, 0.015, 0.16))]))
    assert [lift.outcome for lift in lifts] == ["held"] * 3
    assert all(lift.success and lift.object_number == CARTON for lift in lifts)


def test_a_grasp_beside_the_object_is_empty(scene: Settled) -> None:
    (lift,) = lift_success(scene, row((0.15, 0.0, 0.1))[None])
    assert (lift.outcome, lift.success, lift.object_number) == ("empty", False, None)


def test_slippery_fingers_do_not_hold(scene: Settled) -> None:
    (lift,) = lift_success(scene, row()[None], config=LiftConfig(friction=0.03))
    assert lift.outcome in {"slipped", "shaken off"}
    assert lift.object_number == CARTON


def test_a_weak_gripper_does_not_hold_a_heavy_object(scene: Settled) -> None:
    weak = LiftConfig(force_n=0.5)
    assert not lift_success(scene, row()[None], config=weak)[0].success


def test_a_gripper_in_the_object_or_the_table_collides(scene: Settled) -> None:
    rows = np.stack([row(width=0.02), row((0, 0, 0.01)), row(turn_rad=math.pi / 2)])
    assert [lift.outcome for lift in lift_success(scene, rows)] == ["collides"] * 3


def test_rows_may_be_in_a_cameras_frame(scene: Settled) -> None:
    """What holds in the table's frame holds seen from anywhere, and not in a wrong frame."""
    pose = np.eye(4)
    pose[:3, :3] = np.stack([[0, 1.0, 0], [0.6, 0, -0.8], [-0.8, 0, -0.6]], axis=1)
    pose[:3, 3] = (0.4, 0.1, 0.5)
    turned = row()
    rotation = pose[:3, :3].T @ turned[4:13].reshape(3, 3)
    turned[4:13], turned[13:16] = rotation.ravel(), pose[:3, :3].T @ (turned[13:16] - pose[:3, 3])
    assert lift_success(scene, turned[None], pose)[0].success
    assert not lift_success(scene, turned[None])[0].success


def test_each_grasp_finds_the_scene_as_it_lay(scene: Settled) -> None:
    several = [lift.outcome for lift in lift_success(scene, np.stack([row(), row()]))]
    assert several == ["held", "held"]


@pytest.mark.parametrize("rows", [np.zeros((3, 16)), np.full((1, 17), np.nan), np.zeros(17)])
def test_rows_that_are_no_grasps_are_refused(scene: Settled, rows: np.ndarray) -> None:
    with pytest.raises(DataError, match="wanted finite rows of shape"):
        lift_success(scene, rows)


def test_a_folder_without_a_scene_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="no scene that can be read"):
        read_settled(tmp_path, 3)
