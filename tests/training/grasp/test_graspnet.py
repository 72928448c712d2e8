from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.grasp_frames import inverse_pose, transform_points
from limpet.training.grasp.graspnet import GraspNet, unpack
from limpet.training.grasp.label_cache import packed_arrays
from tests.training.grasp.layouts import (
    INTRINSICS,
    LATTICE,
    Labelled,
    looking_down,
    standing,
    write_objects,
    write_scene,
)

CAMERAS = [looking_down(0.5), looking_down(0.5, shift_m=0.05, tilt_rad=0.1)]
ON_TABLE = {5: standing(0.02), 2: standing(0.03, x_m=0.1)}  # not in order of their ids


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graspnet")
    rng = np.random.default_rng(0)
    scores = rng.choice([-1.0, 0.1, 0.4, 0.8, 1.2], size=(3, *LATTICE))
    self_collision = np.zeros((3, *LATTICE), np.bool_)
    self_collision[1] = True
    objects = {
        2: Labelled((0.04, 0.03, 0.06), np.zeros((2, 3))),
        5: Labelled((0.05, 0.03, 0.04), np.eye(3) * 0.01, scores, 0.05, self_collision),
    }
    write_objects(folder, objects)
    collides = np.zeros((3, *LATTICE), np.bool_)
    collides[2, :150] = True
    for scene in (0, 95, 131):
        write_scene(folder, scene, objects, ON_TABLE, CAMERAS, collisions={5: collides})
    return folder


@pytest.fixture(scope="module")
def data(root: Path, tmp_path_factory: pytest.TempPathFactory) -> GraspNet:
    return GraspNet(root, cache=tmp_path_factory.mktemp("cache"))


def test_scenes_belong_to_the_splits_of_their_numbers(data: GraspNet) -> None:
    assert data.scenes == [0, 95, 131]
    splits = ("train", "validation", "seen", "similar", "novel")
    assert [data.split(name) for name in splits] == [[0], [95], [], [131], []]
    with pytest.raises(UsageError, match="no split 'test'"):
        data.split("test")


def test_objects_are_in_the_order_of_poses_and_collisions(data: GraspNet) -> None:
    assert data.objects(0) == [5, 2]
    assert [len(one) for one in data.collisions(0)] == [3, 2]


def test_a_frame_holds_metres_labels_and_poses_that_agree(data: GraspNet) -> None:
    frame = data.frame(131, 1)
    assert data.views(131) == [0, 1]
    assert frame.object_ids == (5, 2)
    np.testing.assert_array_equal(frame.intrinsics, INTRINSICS)
    np.testing.assert_allclose(frame.pose_camera_in_table, CAMERAS[1], atol=1e-9)
    for one, pose in zip(frame.object_ids, frame.pose_object_in_camera, strict=True):
        np.testing.assert_allclose(frame.pose_camera_in_table @ pose, ON_TABLE[one], atol=1e-6)
    # The depth of what is labelled object 5 lies on its box.
    rows, columns = np.nonzero(frame.labels == 6)
    z = frame.depth_m[rows, columns].astype(np.float64)
    pixels = np.stack([columns * z, rows * z, z], 1)
    points = pixels @ np.linalg.inv(INTRINSICS).T
    inside = transform_points(points, inverse_pose(frame.pose_object_in_camera[0]))
    outside = np.abs(inside) - np.array([0.05, 0.03, 0.04]) / 2
    assert len(inside) > 50
    np.testing.assert_allclose(outside.max(1), 0, atol=1.5e-3)


def test_friction_is_in_tenths_and_zero_where_none_holds_or_the_object_is_hit(
    data: GraspNet,
) -> None:
    labels = data.labels(5)
    assert labels.points.shape == (3, 3)
    assert labels.friction.dtype == np.uint8
    assert set(np.unique(labels.friction[0])) == {0, 1, 4, 8, 12}
    assert not labels.friction[1].any()
    np.testing.assert_allclose(labels.width_m, 0.05, atol=1e-4)


def test_graspable_shares_count_what_holds_at_a_friction_of_0_8_and_is_free(
    data: GraspNet,
) -> None:
    shares = data.graspable_shares(0)
    friction = data.labels(5).friction
    holds = (friction > 0) & (friction <= 8) & ~data.collisions(0)[0]
    np.testing.assert_allclose(shares[0], holds.reshape(3, -1).mean(1), atol=1e-6)
    assert shares[0][0] == pytest.approx(0.6, abs=0.02)
    assert shares[0][1] == 0  # its own object is in the way
    assert shares[0][2] == pytest.approx(0.3, abs=0.02)  # half the views collide
    np.testing.assert_array_equal(shares[1], [0, 0])


def test_collisions_of_some_points_are_read_without_the_rest(data: GraspNet) -> None:
    bits = data.collision_bits(0)[0]
    np.testing.assert_array_equal(
        unpack(bits[[2]]).reshape(1, *LATTICE), data.collisions(0)[0][[2]]
    )


def test_labels_come_from_the_cache_until_the_file_changes(root: Path, tmp_path: Path) -> None:
    first = GraspNet(root, cache=tmp_path).labels(5)
    file = root / "grasp_label" / "005_labels.npz"
    content, hidden = file.read_bytes(), tmp_path / "hidden"
    status = file.stat()
    try:
        file.write_bytes(b"0" * len(content))  # no npz any more, but of the same size and time
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        again = GraspNet(root, cache=tmp_path).labels(5)
        np.testing.assert_array_equal(again.friction, first.friction)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        with pytest.raises(DataError, match=r"005_labels\.npz: not an npz"):
            GraspNet(root, cache=tmp_path).labels(5)
    finally:
        hidden.unlink(missing_ok=True)
        file.write_bytes(content)


def test_a_mesh_is_read_in_metres(data: GraspNet) -> None:
    vertices, triangles = data.mesh(5)
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [0.05, 0.03, 0.04], atol=1e-6)
    assert triangles.max() < len(vertices)


def test_another_folder_is_refused_with_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no scenes/scene_0000/kinect/meta"):
        GraspNet(tmp_path, camera="kinect")


def test_damage_is_told_with_its_file(root: Path, tmp_path: Path) -> None:
    data = GraspNet(root, cache=tmp_path)
    meta = root / "scenes/scene_0095/realsense/meta/0001.mat"
    content = meta.read_bytes()
    try:
        meta.write_bytes(content[:200])
        with pytest.raises(DataError, match=r"0001\.mat: not a \.mat that can be read"):
            data.frame(95, 1)
    finally:
        meta.write_bytes(content)
    with pytest.raises(DataError, match="scenes there: 0 to 131, 3 in all"):
        data.frame(7, 0)
    with pytest.raises(DataError, match=r"007_labels\.npz does not exist"):
        data.labels(7)


def test_labels_of_another_lattice_are_refused(root: Path, tmp_path: Path) -> None:
    file = root / "grasp_label" / "009_labels.npz"
    scores = np.ones((1, *LATTICE), np.float32)
    offsets = np.zeros((1, *LATTICE, 3), np.float32)  # every angle and depth 0
    np.savez(file, points=np.zeros((1, 3)), offsets=offsets, scores=scores)
    with pytest.raises(DataError, match=r"an angle is 2\.88 off the lattice"):
        GraspNet(root, cache=tmp_path).labels(9)
    np.savez(file, points=np.zeros((1, 3)), offsets=offsets[:, :100], scores=scores)
    with pytest.raises(DataError, match=r"offsets is \(1, 100, 12, 4, 3\)"):
        GraspNet(root, cache=tmp_path).labels(9)
    np.savez(file, points=np.zeros((1, 3)), scores=scores)
    with pytest.raises(DataError, match="has no offsets; arrays: points, scores"):
        GraspNet(root, cache=tmp_path).labels(9)
    assert not list(tmp_path.rglob("*.tmp"))


def test_damaged_bytes_within_labels_are_named(tmp_path: Path) -> None:
    file = tmp_path / "000_labels.npz"
    numbers = np.random.default_rng(0).integers(0, 3, (20_000, 3)).astype(np.float32)
    np.savez_compressed(file, points=numbers)
    whole = file.read_bytes()
    for start in range(200, len(whole) - 400, len(whole) // 20):
        damaged = bytearray(whole)
        damaged[start : start + 6] = bytes(255 - byte for byte in whole[start : start + 6])
        file.write_bytes(damaged)
        with (
            pytest.raises(DataError, match=r"000_labels\.npz"),
            packed_arrays(file, ("points",)) as arrays,
        ):
            arrays["points"].take(20_000)
