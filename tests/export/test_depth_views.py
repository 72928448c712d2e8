"""Depth images of scenes, as what a grasp model's INT8 ranges come from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.golden import Run
from limpet.contracts.manifest import Manifest
from limpet.contracts.tensors import Tensors
from limpet.export.precision.calibration import (
    MOST_SCENES,
    calibration_inputs,
    check_wanted,
    digest_of,
)
from tests.grasp_bundles import CLOUD, grasp_manifest
from tests.table_tops import INTRINSICS, Ball, look_at, render
from tests.training.grasp.tiny import SMALL, write_tiny


def never(inputs: Tensors) -> Tensors:
    raise AssertionError("ranges of depth images need no run of the graph")


NEVER: Run = never


@pytest.fixture
def manifest() -> Manifest:
    return grasp_manifest()


def write_scene(path: Path, x: float = 0.0) -> Path:
    """A real scene's file: a ball on a table, and the camera."""
    depth = render([Ball(x, 0, 0.035), Ball(0.1, 0.05, 0.03)], look_at([0.1, -0.2, 0.5]))
    np.savez(path, depth=depth, intrinsics_matrix=INTRINSICS)
    return path


def test_each_real_scene_is_one_call(manifest: Manifest, tmp_path: Path) -> None:
    for index in range(MOST_SCENES + 3):
        write_scene(tmp_path / f"{index:02}.npz", x=index / 200)
    calls = calibration_inputs(manifest, NEVER, tmp_path)
    assert [call["points"].shape for call in calls] == [(1, CLOUD.points, 3)] * MOST_SCENES
    digest = digest_of(manifest, tmp_path)
    assert digest.rows == MOST_SCENES
    write_scene(tmp_path / "00.npz", x=0.2)
    assert digest_of(manifest, tmp_path).sha256 != digest.sha256


def test_of_a_data_set_two_views_and_one_of_each_training_scene_are_taken(
    manifest: Manifest, tmp_path: Path
) -> None:
    tiny = write_tiny(tmp_path / "tiny", scenes=(0, 1, 100))
    manifest = msgspec.structs.replace(manifest, preprocessing=SMALL.cloud)
    calls = calibration_inputs(manifest, NEVER, tiny)
    assert [call["points"].shape for call in calls] == [(2, 512, 3), (1, 512, 3)]
    assert digest_of(manifest, tiny).rows == 3


def test_an_npz_of_the_models_inputs_is_taken_as_it_is(manifest: Manifest, tmp_path: Path) -> None:
    points = np.ones((2, CLOUD.points, 3), np.float32)
    np.savez(tmp_path / "inputs.npz", points=points)
    (call,) = calibration_inputs(manifest, NEVER, tmp_path / "inputs.npz")
    np.testing.assert_array_equal(call["points"], points)
    scene = write_scene(tmp_path / "scene.npz")
    (call,) = calibration_inputs(manifest, NEVER, scene)
    assert call["points"].shape == (1, CLOUD.points, 3)


def test_scenes_that_show_nothing_are_left_out_and_only_such_are_too_short(
    manifest: Manifest, tmp_path: Path
) -> None:
    empty = render([], look_at([0.1, -0.2, 0.5]))
    np.savez(tmp_path / "empty.npz", depth=empty, intrinsics_matrix=INTRINSICS)
    with pytest.raises(DataError, match="the model has nothing to do"):
        calibration_inputs(manifest, NEVER, tmp_path)
    write_scene(tmp_path / "full.npz")
    assert len(calibration_inputs(manifest, NEVER, tmp_path)) == 1


def test_a_folder_without_depth_is_refused_and_so_is_a_damaged_scene(
    manifest: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="holds no depth images"):
        calibration_inputs(manifest, NEVER, tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"PK")
    for path in (tmp_path, tmp_path / "broken.npz"):
        with pytest.raises(DataError, match=r"broken\.npz"):
            calibration_inputs(manifest, NEVER, path)


def test_what_is_wanted_is_named(manifest: Manifest) -> None:
    with pytest.raises(UsageError, match="none was given") as refused:
        check_wanted(manifest, None)
    assert "scenes with depth images" in refused.value.hint
