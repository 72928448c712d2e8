"""Depth and object labels of a scene, by ray casting from a hemisphere of views.

Frames: table (z up), camera (x right, y down, z along the optical axis). Depth is along z.

Dimension legend: N views, H rows, W columns, n objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from limpet.training.grasp.scenes.meshes import Mesh, ray_scene
from limpet.training.grasp.scenes.shapes import Float64

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

TABLE_HALF_M = 1.5
"""Beyond its edge there is nothing."""


class DepthCamera(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pinhole depth camera; by default a RealSense D435 at 640 × 360.

    Attributes:
        width, height: Pixels.
        focal_px: Focal length, pixels.
        baseline_m: Between its two imagers; the right one sees what the left one matches.
    """

    width: int = 640
    height: int = 360
    focal_px: float = 463.6
    baseline_m: float = 0.05

    @property
    def intrinsics(self) -> Float64:
        """(3, 3)"""
        return np.array(
            [
                [self.focal_px, 0.0, self.width / 2 - 0.5],
                [0.0, self.focal_px, self.height / 2 - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )

    def rays(self, pose_camera_in_table: Float64) -> Float32:
        """Rays through all pixels' centres: origin, then a direction of depth 1. (H, W, 6)"""
        across = (np.arange(self.width) - self.intrinsics[0, 2]) / self.focal_px
        down = (np.arange(self.height) - self.intrinsics[1, 2]) / self.focal_px
        rows, columns = np.meshgrid(down, across, indexing="ij")
        local = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
        out = np.empty((self.height, self.width, 6), np.float32)
        out[..., :3] = pose_camera_in_table[:3, 3]
        out[..., 3:] = local @ pose_camera_in_table[:3, :3].T
        return out


@dataclass(frozen=True)
class View:
    """What a camera sees without noise.

    Attributes:
        depth: m, 0 where nothing is. float32 (H, W)
        labels: 0 table or nothing, k + 1 the k-th object. uint8 (H, W)
        cos_incidence: Of the ray and the surface it meets, 1 = head-on. float32 (H, W)
        matched: Whether the right imager sees the same spot. bool (H, W)
    """

    depth: Float32
    labels: NDArray[np.uint8]
    cos_incidence: Float32
    matched: Bool


def hemisphere(number: int, rng: np.random.Generator) -> Float64:
    """Camera poses around the origin, in the table's frame: 0.4 to 0.7 m away, 30° to 70° up.

    So a camera on a wrist looks, whose gripper must not be in its way; what is taller hides what
    lies behind.
    Azimuths are spread evenly from a random one on; each camera looks near the origin and is rolled
    by a few degrees. (N, 4, 4)
    """
    poses = np.tile(np.eye(4), (number, 1, 1))
    first = rng.uniform(0, 2 * math.pi)
    # Elevations are stratified, so that each scene has low views and high ones.
    up = np.radians(30 + 40 * (rng.permutation(number) + rng.random(number)) / number)
    for k in range(number):
        around = first + 2 * math.pi * (k + rng.uniform(-0.2, 0.2)) / number
        away = rng.uniform(0.4, 0.7)
        target = np.array([*rng.normal(0.0, 0.015, 2), 0.03])
        place = target + away * np.array(
            [
                math.cos(up[k]) * math.cos(around),
                math.cos(up[k]) * math.sin(around),
                math.sin(up[k]),
            ]
        )
        z = (target - place) / away
        x = np.cross(z, [0.0, 0.0, 1.0])
        x /= np.linalg.norm(x)
        y = np.cross(z, x)
        roll = rng.normal(0.0, math.radians(4))
        cos, sin = math.cos(roll), math.sin(roll)
        poses[k, :3, :3] = np.stack([cos * x + sin * y, cos * y - sin * x, z], axis=1)
        poses[k, :3, 3] = place
    return poses


class SceneView:
    """A table and objects on it, ready to be looked at.

    Args:
        meshes: Of the objects, in their frames.
        poses: Of the objects in the table's frame. (n, 4, 4)
    """

    def __init__(self, meshes: Sequence[Mesh], poses: Float64) -> None:
        h = TABLE_HALF_M
        corners = np.array([[-h, -h, 0.0], [h, -h, 0.0], [h, h, 0.0], [-h, h, 0.0]])
        table = Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32))
        placed = [
            Mesh(mesh.vertices @ pose[:3, :3].T + pose[:3, 3], mesh.triangles)
            for mesh, pose in zip(meshes, poses, strict=True)
        ]
        self._scene = ray_scene(table, *placed)

    def look(self, camera: DepthCamera, pose_camera_in_table: Float64) -> View:
        """Depth, labels and what a stereo camera could match from one pose.

        Args:
            camera: Intrinsics, size and baseline.
            pose_camera_in_table: x right, y down, z ahead; m. (4, 4)
        """
        rays = camera.rays(pose_camera_in_table)
        hits = self._scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)
        depth = hits["t_hit"].numpy()
        seen = np.isfinite(depth)
        labels = np.where(seen, hits["geometry_ids"].numpy(), 0).astype(np.uint8)
        direction = rays[..., 3:] / np.linalg.norm(rays[..., 3:], axis=-1, keepdims=True)
        normals = hits["primitive_normals"].numpy()
        cos = np.abs(np.einsum("hwk,hwk->hw", normals, direction)) * seen
        depth = np.where(seen, depth, 0.0).astype(np.float32)
        points = rays[..., :3] + depth[..., None] * rays[..., 3:]
        right = pose_camera_in_table[:3, 3] + camera.baseline_m * pose_camera_in_table[:3, 0]
        towards = right.astype(np.float32) - points
        length = np.linalg.norm(towards, axis=-1, keepdims=True)
        ways = np.concatenate([points, towards / np.maximum(length, 1e-6)], axis=-1)
        # A ray starts 2 mm off its own surface, at grazing angles as well.
        hidden = self._scene.test_occlusions(
            o3d.core.Tensor.from_numpy(ways.astype(np.float32)), tnear=0.002, nthreads=1
        ).numpy()
        return View(depth, labels, cos.astype(np.float32), seen & ~hidden)
