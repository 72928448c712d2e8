"""Samples are labelled by what the cameras saw, wherever an erring pose puts it.

Registering puts it nearly where it belongs.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from limpet.contracts.clouds import CloudPreprocessing
from limpet.contracts.errors import DataError
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.graspnet import TRUE_POSES, GraspNet
from limpet.training.grasp.samples import Input, Sample, SampleMaker
from tests.training.grasp.tiny import SMALL, write_tiny

SHIFT_M = 0.01
"""More than a point may be off its surface."""


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set, and the same where the second camera's known pose is off by a centimetre."""
    exact = write_tiny(tmp_path_factory.mktemp("exact"), scenes=(0,))
    erring = tmp_path_factory.mktemp("erring") / "data"
    shutil.copytree(exact, erring)
    folder = erring / "scenes/scene_0000/realsense"
    poses = np.load(folder / "camera_poses.npy")
    np.save(folder / TRUE_POSES, poses)
    poses[1, :3, 3] += [0.0, 0.0, SHIFT_M]
    np.save(folder / "camera_poses.npy", poses)
    return exact, erring


def made(root: Path, kind: Input, cache: Path, *, registered: bool = False) -> Sample:
    data = GraspNet(root, cache=cache / "labels")
    cloud = msgspec.structs.replace(SMALL.cloud, register_views=registered)
    maker = SampleMaker(data, cloud, kind, 1, cache=cache / "samples")
    sample = maker.make([data.frame(0, 0), data.frame(0, 1)])
    assert sample is not None
    return sample


def test_two_views_are_labelled_as_if_their_poses_were_exact(
    roots: tuple[Path, Path], tmp_path: Path
) -> None:
    exact, erring = (made(root, "two", tmp_path / root.name) for root in roots)
    assert np.abs(erring.points[1, :128] - erring.true[1]).max() == pytest.approx(SHIFT_M, abs=1e-5)
    np.testing.assert_allclose(erring.true[0], erring.points[0, :128], atol=1e-6)
    on_object = [(sample.owner >= 0).mean() for sample in (exact, erring)]
    assert on_object[1] == pytest.approx(on_object[0], abs=0.05)
    np.testing.assert_allclose(exact.true, exact.points[:, :128], atol=1e-6)


def test_points_of_a_merged_cloud_are_labelled_by_the_camera_that_saw_them(
    roots: tuple[Path, Path], tmp_path: Path
) -> None:
    erring = made(roots[1], "prefused", tmp_path)
    assert erring.points.shape[0] == 1
    off = np.linalg.norm(erring.points[0, :128] - erring.true[0], axis=1)
    moved = off > SHIFT_M / 2
    assert 0.2 < moved.mean() < 0.8
    np.testing.assert_allclose(off[moved], SHIFT_M, atol=1e-5)
    np.testing.assert_allclose(off[~moved], 0.0, atol=1e-6)
    assert (erring.owner[0][moved] >= 0).mean() > 0.8


@pytest.mark.parametrize("kind", ["two", "prefused"])
def test_registered_views_are_labelled_where_registering_has_put_them(
    kind: Input, roots: tuple[Path, Path], tmp_path: Path
) -> None:
    found = made(roots[1], kind, tmp_path, registered=True)
    off = np.linalg.norm(found.points[:, :128] - found.true, axis=-1)
    assert 0 < off.max() < 0.3 * SHIFT_M


@pytest.mark.parametrize(
    "changed",
    [
        "scenes/scene_0000/realsense/camera_poses.npy",
        "scenes/scene_0000/realsense/meta/0000.mat",
        "collision_label/scene_0000/collision_labels.npz",
        "grasp_label/000_labels.npz",
    ],
)
def test_samples_are_made_anew_where_a_file_that_they_follow_from_changed(
    roots: tuple[Path, Path], tmp_path: Path, changed: str
) -> None:
    root = tmp_path / "data"
    shutil.copytree(roots[0], root)
    maker = SampleMaker(GraspNet(root, cache=tmp_path), SMALL.cloud, "two", 1, cache=tmp_path)
    before = maker.file(0)
    assert maker.file(0) == before
    os.utime(root / changed, ns=(1, 1))
    assert maker.file(0) != before


def test_a_damaged_file_of_samples_is_named(roots: tuple[Path, Path], tmp_path: Path) -> None:
    data = GraspNet(roots[0], cache=tmp_path / "labels")
    maker = SampleMaker(data, SMALL.cloud, "two", 1, cache=tmp_path)
    maker.of([0])
    file = maker.file(0)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match="not prepared samples"):
        maker.of([0])


def test_views_are_merged_by_the_input_alone() -> None:
    with pytest.raises(ValueError, match=r"cloud\.merge_views follows from `input`"):
        GraspConfig(cloud=CloudPreprocessing(merge_views=True))
