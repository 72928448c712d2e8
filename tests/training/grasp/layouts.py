"""Scenes of boxes written in GraspNet-1Billion's folder layout, as its own files are.

Dimension legend: n objects, P grasp points, v vertices, t triangles, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open3d as o3d
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from limpet.contracts.grasp_frames import ANGLES_RAD, DEPTHS_M, inverse_pose

LATTICE = (300, 12, 4)
HEIGHT, WIDTH = 90, 120
INTRINSICS = np.array([[110.0, 0, 60], [0, 110, 45], [0, 0, 1]])


@dataclass
class Labelled:
    """An object: a box about the origin, and labels of its grasp points."""

    extent_m: tuple[float, float, float]
    points: NDArray[np.float64]  # (P, 3)
    scores: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (P, 300, 12, 4)
    width_m: float = 0.04
    self_collision: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if not self.scores.size:
            self.scores = np.full((len(self.points), *LATTICE), -1.0)


def box_mesh(extent_m: Sequence[float], spacing_m: float = 0.004) -> o3d.geometry.TriangleMesh:
    """A box about the origin with vertices as close as those of a scanned object."""
    mesh = o3d.geometry.TriangleMesh.create_box(*extent_m)
    mesh.translate(-np.asarray(extent_m) / 2)
    longest = max(extent_m) * np.sqrt(2)
    halvings = int(np.ceil(np.log2(longest / spacing_m)))
    return mesh.subdivide_midpoint(max(halvings, 0))


def looking_down(height_m: float, shift_m: float = 0.0, tilt_rad: float = 0.0) -> NDArray[Any]:
    """Pose of a camera above the table, in the table's frame; its z axis points down."""
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    cos, sin = np.cos(tilt_rad), np.sin(tilt_rad)
    pose[:3, :3] = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]]) @ pose[:3, :3]
    pose[:3, 3] = [shift_m, 0, height_m]
    return pose


def standing(z_m: float, x_m: float = 0.0, y_m: float = 0.0) -> NDArray[Any]:
    """Pose of an object on the table, its axes those of the table."""
    pose = np.eye(4)
    pose[:3, 3] = [x_m, y_m, z_m]
    return pose


def write_objects(root: Path, objects: Mapping[int, Labelled]) -> None:
    """Meshes and grasp labels."""
    for object_id, one in objects.items():
        folder = root / "models" / f"{object_id:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        o3d.io.write_triangle_mesh(str(folder / "nontextured.ply"), box_mesh(one.extent_m))
        shape = one.scores.shape
        offsets = np.zeros((*shape, 3), np.float32)
        offsets[..., 0] = ANGLES_RAD[:, None]
        offsets[..., 1] = DEPTHS_M
        offsets[..., 2] = one.width_m
        arrays: dict[str, NDArray[Any]] = {
            "points": one.points.astype(np.float32),
            "offsets": offsets,
            "scores": one.scores.astype(np.float32),
            "collision": np.zeros(shape, np.bool_)
            if one.self_collision is None
            else one.self_collision,
        }
        folder = root / "grasp_label"
        folder.mkdir(exist_ok=True)
        np.savez_compressed(folder / f"{object_id:03d}_labels.npz", **arrays)


def write_scene(
    root: Path,
    scene: int,
    objects: Mapping[int, Labelled],
    poses_in_table: Mapping[int, NDArray[Any]],
    cameras_in_table: Sequence[NDArray[Any]],
    *,
    collisions: Mapping[int, NDArray[np.bool_]] | None = None,
    camera: str = "realsense",
    noise: np.random.Generator | None = None,
) -> None:
    """One scene; its collision labels are false where `collisions` does not say otherwise.

    With noise, depth errs by up to 2 mm, and no two points are equally far from a third.
    """
    ids = list(poses_in_table)
    folder = root / "scenes" / f"scene_{scene:04d}" / camera
    for name in ("depth", "label", "meta"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    # The list of a scene is in another order than its poses here, as nothing promises otherwise.
    (folder.parent / "object_id_list.txt").write_text("".join(f"{one}\n" for one in sorted(ids)))
    cameras = np.stack(cameras_in_table)
    np.save(folder / "camK.npy", INTRINSICS)
    np.save(folder / "camera_poses.npy", inverse_pose(cameras[0]) @ cameras)
    np.save(folder / "cam0_wrt_table.npy", cameras[0])
    for view, pose in enumerate(cameras):
        in_camera = np.stack([inverse_pose(pose) @ poses_in_table[one] for one in ids])
        depth, label = _render(objects, ids, in_camera, pose)
        if noise is not None:
            off = noise.integers(-2, 3, depth.shape)
            depth = np.where(depth > 0, depth + off, 0).astype(np.uint16)
        Image.fromarray(depth).save(folder / "depth" / f"{view:04d}.png")
        Image.fromarray(label).save(folder / "label" / f"{view:04d}.png")
        scipy.io.savemat(
            folder / "meta" / f"{view:04d}.mat",
            {
                "intrinsic_matrix": INTRINSICS,
                "factor_depth": np.array([[1000.0]]),
                "cls_indexes": np.array([[one + 1 for one in ids]], np.int64),
                "poses": np.moveaxis(in_camera[:, :3], 0, 2).astype(np.float32),
            },
        )
    labels = [
        np.zeros(objects[one].scores.shape, np.bool_)
        if collisions is None or one not in collisions
        else collisions[one]
        for one in ids
    ]
    target = root / "collision_label" / f"scene_{scene:04d}"
    target.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target / "collision_labels.npz", *labels)


def _render(
    objects: Mapping[int, Labelled],
    ids: Sequence[int],
    in_camera: NDArray[Any],
    camera_in_table: NDArray[Any],
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Depth in millimetres and labels of boxes on a table of 1 m."""
    scene = o3d.t.geometry.RaycastingScene()
    table = o3d.geometry.TriangleMesh.create_box(1, 1, 0.01)
    table.translate([-0.5, -0.5, -0.01]).transform(inverse_pose(camera_in_table))
    label_of = {scene.add_triangles(o3d.t.geometry.TriangleMesh.from_legacy(table)): 0}
    for one, pose in zip(ids, in_camera, strict=True):
        mesh = o3d.geometry.TriangleMesh.create_box(*objects[one].extent_m)
        mesh.translate(-np.asarray(objects[one].extent_m) / 2).transform(pose)
        label_of[scene.add_triangles(o3d.t.geometry.TriangleMesh.from_legacy(mesh))] = one + 1
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.zeros((HEIGHT, WIDTH, 6), np.float32)
    pixels = np.stack([columns, rows, np.ones_like(rows)], -1)
    rays[..., 3:] = pixels @ np.linalg.inv(INTRINSICS).T  # z is 1: a hit's distance is its depth
    hit = scene.cast_rays(o3d.core.Tensor(rays))
    distance, geometry = hit["t_hit"].numpy(), hit["geometry_ids"].numpy()
    depth = np.where(np.isfinite(distance), np.rint(distance * 1000), 0).astype(np.uint16)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    for index, value in label_of.items():
        label[geometry == index] = value
    return depth, label
