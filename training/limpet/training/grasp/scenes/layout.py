"""Writing GraspNet-1Billion's folder layout, whole files or none, the same bytes for the same data.

    models/000/nontextured.ply           mesh, object frame, m
    grasp_label/000_labels.npz           points, offsets, scores, collision
    collision_label/scene_0000/collision_labels.npz    arr_0, arr_1 … in the order of the ids
    scenes/scene_0000/object_id_list.txt
    scenes/scene_0000/realsense/         camK.npy camera_poses.npy cam0_wrt_table.npy
                     true_camera_poses.npy (GraspNet has none: its poses are those of its tables)
                     depth/0000.png label/0000.png meta/0000.mat

Dimension legend: N views, n objects, P points, V approaches, A angles, D depths, H rows, W columns.
"""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from PIL import Image

from limpet.contracts.grasp_frames import ANGLES_RAD, DEPTHS_M, inverse_pose
from limpet.contracts.whole_files import write_whole
from limpet.training.grasp.graspnet import TRUE_POSES
from limpet.training.grasp.scenes.labels import GraspLabels
from limpet.training.grasp.scenes.meshes import Mesh
from limpet.training.grasp.scenes.rendering import DepthCamera
from limpet.training.grasp.scenes.shapes import Float64

CAMERA = "realsense"
FACTOR_DEPTH = 1000.0
_MAT_TEXT = b"MATLAB 5.0 MAT-file, written by limpet".ljust(116)


def model_file(root: Path, number: int) -> Path:
    """Where an object's mesh lies."""
    return root / "models" / f"{number:03}" / "nontextured.ply"


def grasp_file(root: Path, number: int) -> Path:
    """Where an object's labels lie."""
    return root / "grasp_label" / f"{number:03}_labels.npz"


def collision_file(root: Path, scene: int) -> Path:
    """Where a scene's collision labels lie."""
    return root / "collision_label" / f"scene_{scene:04}" / "collision_labels.npz"


def scene_folder(root: Path, scene: int) -> Path:
    """Where a scene's images lie; it is there only when they all are."""
    return root / "scenes" / f"scene_{scene:04}"


def _whole(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, content)


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An npz, compressed lightly: a third larger than numpy's, written five times as fast."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy_format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def write_mesh(root: Path, number: int, mesh: Mesh) -> None:
    """Writes a binary PLY."""
    head = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(mesh.vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(mesh.triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.empty(len(mesh.triangles), np.dtype([("n", "u1"), ("corners", "<i4", 3)]))
    faces["n"], faces["corners"] = 3, mesh.triangles
    body = mesh.vertices.astype("<f4").tobytes() + faces.tobytes()
    _whole(model_file(root, number), head.encode() + body)


def write_labels(root: Path, number: int, labels: GraspLabels) -> None:
    """Writes an object's grasp labels; a score is the lowest friction, -1 where none holds."""
    offsets = np.empty((*labels.friction.shape, 3), np.float32)  # (P, V, A, D, 3)
    offsets[..., 0] = ANGLES_RAD[:, None]
    offsets[..., 1] = DEPTHS_M
    offsets[..., 2] = labels.width
    tenths = np.append(np.float32(-1), (np.arange(1, 13) / 10).astype(np.float32))
    arrays = {
        "points": labels.points,
        "offsets": offsets,
        "scores": tenths[labels.friction],
        "collision": labels.collision,
    }
    _whole(grasp_file(root, number), npz_bytes(arrays))


def read_labels(root: Path, number: int) -> GraspLabels:
    """Reads what `write_labels` wrote."""
    with np.load(grasp_file(root, number), allow_pickle=False) as found:
        friction = np.rint(10 * np.maximum(found["scores"], 0)).astype(np.uint8)
        width = np.ascontiguousarray(found["offsets"][..., 2])
        return GraspLabels(found["points"], friction, width, found["collision"])


def write_collisions(root: Path, scene: int, collisions: Sequence[NDArray[np.bool_]]) -> None:
    """Writes a scene's collision labels in the order of its objects."""
    named = {f"arr_{k}": array for k, array in enumerate(collisions)}
    _whole(collision_file(root, scene), npz_bytes(named))


def write_scene(
    root: Path,
    scene: int,
    objects: Sequence[int],
    poses_in_table: Float64,
    camera: DepthCamera,
    cameras_in_table: Float64,
    known_in_table: Float64,
    depths_mm: Sequence[NDArray[np.uint16]],
    labels: Sequence[NDArray[np.uint8]],
) -> None:
    """Writes a scene's images and poses; the folder appears when all is there.

    Args:
        root: Of the data set.
        scene: Its number.
        objects: Numbers of its objects.
        poses_in_table: Of the objects. (n, 4, 4)
        camera: Which camera looked.
        cameras_in_table: From where. (N, 4, 4)
        known_in_table: From where the robot thinks that it looked. (N, 4, 4)
        depths_mm: What it measured. (H, W) each
        labels: 0 for the table, k + 1 for the k-th object. (H, W) each
    """
    final = scene_folder(root, scene)
    folder = final.with_name(f".{final.name}.{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    images = folder / CAMERA
    for name in ("depth", "label", "meta"):
        (images / name).mkdir(parents=True)
    ids = "".join(f"{number}\n" for number in objects)
    (folder / "object_id_list.txt").write_text(ids, encoding="ascii")
    first_in_table = cameras_in_table[0]
    np.save(images / "camK.npy", camera.intrinsics)
    np.save(images / "camera_poses.npy", inverse_pose(known_in_table[0]) @ known_in_table)
    np.save(images / TRUE_POSES, inverse_pose(first_in_table) @ cameras_in_table)
    np.save(images / "cam0_wrt_table.npy", first_in_table)
    to_id = np.concatenate([[0], np.asarray(objects) + 1]).astype(np.uint8)
    for k, (pose, depth, label) in enumerate(zip(cameras_in_table, depths_mm, labels, strict=True)):
        Image.fromarray(depth).save(images / "depth" / f"{k:04}.png")
        Image.fromarray(to_id[label]).save(images / "label" / f"{k:04}.png")
        in_camera = inverse_pose(pose) @ poses_in_table
        meta = {
            "intrinsic_matrix": camera.intrinsics,
            "factor_depth": np.array([[FACTOR_DEPTH]]),
            "cls_indexes": np.asarray(objects, np.int64)[None] + 1,
            "poses": np.moveaxis(in_camera[:, :3], 0, -1).astype(np.float32),
        }
        (images / "meta" / f"{k:04}.mat").write_bytes(_mat_bytes(meta))
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)


def _mat_bytes(variables: Mapping[str, NDArray[Any]]) -> bytes:
    """A MATLAB file without the time it was written at."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, dict(variables))
    return _MAT_TEXT + buffer.getvalue()[len(_MAT_TEXT) :]
