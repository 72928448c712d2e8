"""Recorded episodes: what is written is read, and a file that is none is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.errors import DataError, UsageError
from limpet.training.navigation.camera import Camera, Lidar
from limpet.training.navigation.controllers import Planner, plan_way
from limpet.training.navigation.environment import PointGoalConfig, PointGoalEnv
from limpet.training.navigation.robot import polar
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.trajectories import (
    Trajectory,
    read_trajectory,
    record_episode,
    write_trajectory,
)

CONFIG = PointGoalConfig(
    layouts=(3, 4),
    appearance_set="test",
    appearances=1,
    camera=Camera(width=32, height=32),
    lidar=Lidar(beams=36),
)


@pytest.fixture(scope="module")
def driven(scenes: SceneLibrary) -> Trajectory:
    env = PointGoalEnv(CONFIG, library=scenes)
    env.reset(seed=1)
    way = plan_way(scenes.layout(3), CONFIG.robot, env.pose[:2], env.episode.goal)
    return record_episode(env, Planner(CONFIG.robot, way))


def test_an_episode_is_recorded_whole(driven: Trajectory) -> None:
    steps = len(driven.actions)
    assert driven.record.success
    assert driven.poses.shape == (steps + 1, 3)
    assert driven.lidar.shape == (steps + 1, 36)
    assert driven.images is not None
    assert driven.images.shape == (steps + 1, 32, 32, 3)
    goals = [polar(pose, driven.record.goal) for pose in driven.poses]
    np.testing.assert_allclose(driven.goals, goals, atol=1e-5)
    assert driven.goals[-1, 0] <= CONFIG.success_radius_m
    # The actions lead from pose to pose.
    turned = np.diff(np.unwrap(driven.poses[:, 2])) * CONFIG.robot.control_hz
    np.testing.assert_allclose(turned, driven.actions[:, 1], atol=1e-4)


def test_what_is_written_is_read(driven: Trajectory, tmp_path: Path) -> None:
    write_trajectory(tmp_path / "a.npz", driven)
    found = read_trajectory(tmp_path / "a.npz")
    assert found.record == driven.record
    for name in ("poses", "goals", "lidar", "actions", "images"):
        assert np.array_equal(getattr(found, name), getattr(driven, name))


def test_what_was_recorded_before_does_not_change_afterwards(driven: Trajectory) -> None:
    assert len(np.unique(driven.poses[:, :2].round(6), axis=0)) > 5
    assert driven.images is not None
    assert not np.array_equal(driven.images[0], driven.images[-1])


def test_an_environment_without_lidar_cannot_be_recorded(scenes: SceneLibrary) -> None:
    env = PointGoalEnv(PointGoalConfig(layouts=(3, 4), senses=("goal",)), library=scenes)
    env.reset(seed=0)
    with pytest.raises(UsageError, match="a trajectory needs lidar"):
        record_episode(env, Planner(CONFIG.robot, np.zeros((1, 2))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": np.array("other-1")}, "format other-1, wanted 'limpet-trajectory-1'"),
        ({"lidar": None}, "has no lidar"),
        ({"goals": np.zeros((3, 2), np.float32)}, r"goals is float32 \[3, 2\]"),
        ({"config": np.array("{}")}, "config: "),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    driven: Trajectory, tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    write_trajectory(tmp_path / "a.npz", driven)
    with np.load(tmp_path / "a.npz") as file:
        arrays = {**file, **change}
    np.savez(tmp_path / "b.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(DataError, match=message):
        read_trajectory(tmp_path / "b.npz")


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("no zip")
    with pytest.raises(DataError, match="not an npz"):
        read_trajectory(tmp_path / "a.npz")
