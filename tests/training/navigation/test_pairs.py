"""Frames for contrastive training: the same pose in several appearances."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from limpet.contracts.errors import UsageError
from limpet.training.navigation.camera import Camera, Lidar
from limpet.training.navigation.pairs import (
    PairsConfig,
    collect,
    collect_layout,
    command,
    read_pairs,
)
from limpet.training.navigation.scenes import SceneLibrary

CONFIG = PairsConfig(
    which="test",
    layouts=(3, 4),
    poses=12,
    views=2,
    appearances=2,
    camera=Camera(width=32, height=32),
    lidar=Lidar(beams=36),
)


def test_a_pose_has_one_scan_and_an_image_in_each_appearance(scenes: SceneLibrary) -> None:
    pairs = collect_layout(scenes, CONFIG, 3)
    assert pairs.images.shape == (12, 2, 32, 32, 3)
    assert pairs.lidar.shape == (12, 36)
    assert sorted(pairs.appearances[0]) == [0, 1]
    difference = np.abs(pairs.images[:, 0].astype(float) - pairs.images[:, 1]).mean()
    assert difference > 10
    footprints = scenes.layout(3).footprints
    assert footprints.clearance(pairs.poses[:, :2]).min() >= CONFIG.robot.radius_m
    assert (pairs.goals[:, 0] > 0).all()
    assert np.abs(pairs.goals[:, 1]).max() <= np.pi + 1e-6


def test_collecting_again_gives_the_same_frames(scenes: SceneLibrary) -> None:
    one, again = (collect_layout(scenes, CONFIG, 3) for _ in range(2))
    other = collect_layout(scenes, msgspec.structs.replace(CONFIG, seed=1), 3)
    for name in one.__struct_fields__:
        assert np.array_equal(getattr(one, name), getattr(again, name))
    assert not np.array_equal(one.poses, other.poses)


def test_a_data_set_is_written_once_and_kept(tmp_path: Path) -> None:
    (file,) = collect(tmp_path / "data", CONFIG)
    made = file.stat().st_mtime_ns
    assert read_pairs(file).images.dtype == np.uint8
    assert collect(tmp_path / "data", CONFIG) == [file]
    assert file.stat().st_mtime_ns == made
    about = msgspec.json.decode((tmp_path / "data/pairs.json").read_bytes())
    assert about["config"]["which"] == "test"
    with pytest.raises(UsageError, match="another configuration"):
        collect(tmp_path / "data", msgspec.structs.replace(CONFIG, seed=9))


def test_more_views_than_appearances_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 views of each pose, but 2 appearances"):
        collect(tmp_path, msgspec.structs.replace(CONFIG, views=3))


def test_the_command_collects(tmp_path: Path) -> None:
    line = ["--out", str(tmp_path / "d"), "--layouts", "3", "4", "--poses", "2", "--views", "1"]
    done = CliRunner().invoke(command, line, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert read_pairs(tmp_path / "d/layout-00003.npz").images.shape == (2, 1, 128, 128, 3)
