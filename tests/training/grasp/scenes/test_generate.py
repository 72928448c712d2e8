"""A small data set, from settling to files in GraspNet's layout."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import open3d as o3d
import pytest
import scipy.io
from click.testing import CliRunner
from PIL import Image

from limpet.contracts.errors import UsageError
from limpet.contracts.grasp_frames import ANGLES_RAD, DEPTHS_M
from limpet.training.grasp.graspnet import GraspNet
from limpet.training.grasp.judging.view_pairs import with_pose_error
from limpet.training.grasp.scenes import labels as labelling
from limpet.training.grasp.scenes import settle as settling
from limpet.training.grasp.scenes.generate import (
    Summary,
    SyntheticConfig,
    command,
    generate,
    in_turn,
    settled_scene,
    use_in,
)
from limpet.training.grasp.scenes.layout import read_labels
from limpet.training.grasp.scenes.lift import read_settled
from limpet.training.grasp.scenes.objects import use_of
from limpet.training.grasp.scenes.rendering import DepthCamera

CONFIG = SyntheticConfig(views=2, camera=DepthCamera(width=160, height=90, focal_px=116.0))
SCENE = 160


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene of two objects with few points."""
    root = tmp_path_factory.mktemp("grasp")
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        (report,) = generate(root, CONFIG, [SCENE])
    assert report.objects == report.labelled == 2
    assert 0 < report.free < report.holds
    return root


def small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settling, "FEWEST", 2)
    patch.setattr(settling, "MOST", 2)
    patch.setattr(labelling, "LEAST_POINTS", 5)
    patch.setattr(labelling, "MOST_POINTS", 5)


def contents(root: Path) -> dict[str, bytes]:
    return {
        file.relative_to(root).as_posix(): file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def test_the_folder_is_laid_out_as_graspnets(root: Path) -> None:
    ids = (root / f"scenes/scene_{SCENE:04}/object_id_list.txt").read_text().split()
    names = set(contents(root))
    images = f"scenes/scene_{SCENE:04}/realsense"
    wanted = {"synthetic.json", f"collision_label/scene_{SCENE:04}/collision_labels.npz"}
    wanted |= {f"models/{int(k):03}/nontextured.ply" for k in ids}
    wanted |= {f"grasp_label/{int(k):03}_labels.npz" for k in ids}
    arrays = ("camK", "camera_poses", "true_camera_poses", "cam0_wrt_table")
    wanted |= {f"{images}/{name}.npy" for name in arrays}
    wanted |= {
        f"{images}/{kind}/{view:04}.{suffix}"
        for kind, suffix in (("depth", "png"), ("label", "png"), ("meta", "mat"))
        for view in (0, 1)
    }
    assert names == wanted | {f"scenes/scene_{SCENE:04}/object_id_list.txt"}


def test_views_poses_and_labels_agree(root: Path) -> None:
    """Every pixel of an object, put into the object's frame by the files alone, is on its mesh."""
    folder = root / f"scenes/scene_{SCENE:04}/realsense"
    ids = [int(k) for k in (folder.parent / "object_id_list.txt").read_text().split()]
    to_first, to_table = (
        np.load(folder / "true_camera_poses.npy"),
        np.load(folder / "cam0_wrt_table.npy"),
    )
    np.testing.assert_allclose(to_first[0], np.eye(4), atol=1e-12)
    for view in (0, 1):
        meta = scipy.io.loadmat(folder / f"meta/{view:04}.mat")
        depth = np.asarray(Image.open(folder / f"depth/{view:04}.png"))
        label = np.asarray(Image.open(folder / f"label/{view:04}.png"))
        assert (depth.dtype, label.dtype) == (np.uint16, np.uint8)
        assert meta["cls_indexes"].ravel().tolist() == [k + 1 for k in ids]
        k = meta["intrinsic_matrix"]
        np.testing.assert_array_equal(k, np.load(folder / "camK.npy"))
        z = depth / meta["factor_depth"].item()
        rows, columns = np.indices(z.shape)
        points = np.stack(
            [(columns - k[0, 2]) * z / k[0, 0], (rows - k[1, 2]) * z / k[1, 1], z], -1
        )
        pose_in_table = to_table @ to_first[view]
        table = points[(label == 0) & (z > 0) & (z < 1)] @ pose_in_table[:3, :3].T
        assert np.median(np.abs(table[:, 2] + pose_in_table[2, 3])) < 0.01
        for index, number in enumerate(ids):
            seen = points[(label == number + 1) & (z > 0)]
            assert len(seen) > 20
            pose = meta["poses"][:, :, index]
            local = (seen - pose[:, 3]) @ pose[:, :3]
            mesh = o3d.t.io.read_triangle_mesh(str(root / f"models/{number:03}/nontextured.ply"))
            scene = o3d.t.geometry.RaycastingScene(nthreads=1)
            scene.add_triangles(mesh)
            off = scene.compute_distance(o3d.core.Tensor.from_numpy(local.astype(np.float32)))
            assert np.median(off.numpy()) < 0.006  # a camera of 160 columns is 4 times as noisy


def test_known_poses_err_and_what_is_judged_does_not(root: Path) -> None:
    frame = GraspNet(root, cache=root / "cache").frame(SCENE, 1)
    known, true = frame.pose_camera_in_scene, frame.true_pose_camera_in_scene
    assert 1e-5 < np.abs(known - true).max() < 0.05
    first = GraspNet(root, cache=root / "cache").frame(SCENE, 0)
    np.testing.assert_allclose(first.pose_camera_in_scene, np.eye(4), atol=1e-12)
    # Objects lie where they lie, whichever camera says so.
    one = first.pose_camera_in_table @ first.pose_object_in_camera
    np.testing.assert_allclose(
        frame.pose_camera_in_table @ frame.pose_object_in_camera, one, atol=1e-5
    )
    np.testing.assert_allclose(with_pose_error(frame, 0.0).pose_camera_in_scene, true, atol=1e-12)
    twice = with_pose_error(frame, 2.0).pose_camera_in_scene
    np.testing.assert_allclose(np.linalg.inv(known) @ twice, np.linalg.inv(true) @ known, atol=2e-4)


def test_labels_have_graspnets_shapes_and_values(root: Path) -> None:
    settled = read_settled(root, SCENE)
    with np.load(root / f"collision_label/scene_{SCENE:04}/collision_labels.npz") as collisions:
        assert collisions.files == ["arr_0", "arr_1"]
        for k, number in enumerate(settled.objects):
            with np.load(root / f"grasp_label/{number:03}_labels.npz") as found:
                shape = (5, 300, 12, 4)
                assert found["points"].shape == (5, 3)
                assert found["offsets"].shape == (*shape, 3)
                assert collisions[f"arr_{k}"].shape == found["collision"].shape == shape
                values = {round(value, 3) for value in np.unique(found["scores"]).tolist()}
                assert values <= {-1.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2}
                offsets = found["offsets"][2, 7]
                np.testing.assert_allclose(offsets[:, 1, 0], ANGLES_RAD, rtol=1e-6)
                np.testing.assert_allclose(offsets[5, :, 1], DEPTHS_M, rtol=1e-6)
            labels = read_labels(root, number)
            width = labels.width[labels.friction > 0]
            assert 0 < width.min() < width.max() <= 0.1 + 1e-6
            free = ~collisions[f"arr_{k}"]
            assert not (free & ~labels.holds).any()


def test_a_scene_read_back_is_the_scene_that_settled(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    truth, found = settled_scene(SCENE), read_settled(root, SCENE)
    assert found.objects == truth.objects
    np.testing.assert_allclose(found.poses, truth.poses, atol=1e-6)


def test_the_same_configuration_writes_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    list(generate(tmp_path, CONFIG, [SCENE]))
    assert contents(tmp_path) == contents(root)


def test_what_is_there_is_kept_and_another_configuration_refused(root: Path) -> None:
    before = contents(root)
    assert list(generate(root, CONFIG, [SCENE])) == []
    assert contents(root) == before
    with pytest.raises(UsageError, match="tells of another configuration"):
        list(generate(root, SyntheticConfig(seed=1), [SCENE]))


def test_splits_are_written_in_turn_and_hold_their_own_objects() -> None:
    scenes = in_turn({"train": 6, "validation": 0, "seen": 2, "similar": 1, "novel": 2})
    assert sorted(scenes) == [0, 1, 2, 3, 4, 5, 100, 101, 130, 160, 161]
    assert {100, 160} <= set(scenes[:5])
    uses = {scene: use_in(scene) for scene in (0, 95, 110, 140, 170)}
    assert list(uses.values()) == ["train", "train", "train", "similar", "novel"]
    assert use_of(3) == "similar"
    with pytest.raises(UsageError, match="31 seen scenes: there are at most 30"):
        in_turn({"seen": 31})


def test_the_command_reports_what_was_kept(root: Path) -> None:
    arguments = [
        "--out",
        str(root),
        *["--train", "0", "--validation", "0", "--seen", "0", "--similar", "0"],
    ]
    config = msgspec.json.decode((root / "synthetic.json").read_bytes(), type=SyntheticConfig)
    assert config == CONFIG
    result = CliRunner().invoke(command, [*arguments, "--novel", "0", "--json"])
    assert isinstance(result.exception, UsageError)  # the command's camera is the D435
    (root / "synthetic.json").unlink()
    result = CliRunner().invoke(command, [*arguments, "--novel", "1", "--json"])
    assert result.exit_code == 0
    summary = msgspec.json.decode(result.stdout, type=Summary)
    assert (summary.made, summary.kept) == (0, 1)
