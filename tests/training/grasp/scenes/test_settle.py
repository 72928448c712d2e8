"""Clutter at rest."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from limpet.contracts.errors import LimpetError
from limpet.training.grasp.scenes import settle as settling
from limpet.training.grasp.scenes.objects import make_object, numbers_for
from limpet.training.grasp.scenes.physics import Settled, body_name, pose_of, set_pose, table_with
from limpet.training.grasp.scenes.settle import REACH_M, choose_objects, settle

NUMBERS = (5, 20, 45)  # can, mug, bolt


@pytest.fixture(scope="module")
def settled() -> Settled:
    return settle(NUMBERS, 7)


def test_objects_lie_on_the_table_within_reach(settled: Settled) -> None:
    for number, pose in zip(settled.objects, settled.poses, strict=True):
        vertices = make_object(number).mesh.vertices @ pose[:3, :3].T + pose[:3, 3]
        assert -0.003 < vertices[:, 2].min() < 0.1
        assert np.hypot(*pose[:2, 3]) < REACH_M
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)


def test_they_stay_where_they_are_without_walls(settled: Settled) -> None:
    model = table_with([make_object(number) for number in NUMBERS]).compile()
    data = mujoco.MjData(model)
    for number, pose in zip(NUMBERS, settled.poses, strict=True):
        set_pose(model, data, body_name(number), pose)
    mujoco.mj_step(model, data, 250)
    for number, pose in zip(NUMBERS, settled.poses, strict=True):
        moved = pose_of(data, body_name(number))
        assert np.linalg.norm(moved[:3, 3] - pose[:3, 3]) < 0.004


def test_the_same_seed_gives_the_same_clutter_and_another_does_not(settled: Settled) -> None:
    np.testing.assert_array_equal(settle(NUMBERS, 7).poses, settled.poses)
    assert not np.allclose(settle(NUMBERS, 8).poses, settled.poses, atol=0.01)


def test_a_cup_is_hollow_to_physics() -> None:
    """A small ball let go above an upright beaker comes to rest on its floor, not on its rim."""
    cup = make_object(12)
    spec = table_with([cup])
    ball = spec.worldbody.add_body(name="ball", pos=[0, 0, 0.2])
    ball.add_freejoint(name="ball")
    ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.008, 0, 0], mass=0.002)
    model = spec.compile()
    data = mujoco.MjData(model)
    upright = np.eye(4)
    upright[2, 3] = -cup.mesh.vertices[:, 2].min()
    set_pose(model, data, body_name(12), upright)
    mujoco.mj_step(model, data, 500)
    assert data.body("ball").xpos[2] < 0.03
    assert np.hypot(*data.body("ball").xpos[:2]) < 0.03


def test_clutter_that_never_rests_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "ATTEMPTS", 1)
    monkeypatch.setattr(settling, "REACH_M", 0.0)
    with pytest.raises(LimpetError, match=r"do not come to rest within 0\.0 m in 1 attempts"):
        settle((45,), 0)


def test_scenes_show_nine_to_sixteen_different_objects_of_their_split(
    rng: np.random.Generator,
) -> None:
    allowed = numbers_for("novel")
    chosen = [choose_objects(allowed, rng) for _ in range(80)]
    assert {len(numbers) for numbers in chosen} == set(range(9, 17))
    assert all(len(set(numbers)) == len(numbers) for numbers in chosen)
    assert all(set(numbers) <= set(allowed) for numbers in chosen)
