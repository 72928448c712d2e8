"""A layout's geometry, ready to be looked at: rays from many poses at once, through Open3D.

Nothing here depends on an appearance, so one look serves any number of them.

Dimension legend: N poses, H rows, W columns, B beams, T triangles, X texels, K luxels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import LimpetError, MissingExtraError
from limpet.training.navigation.camera import Camera, Lidar
from limpet.training.navigation.layouts import Layout
from limpet.training.navigation.surfaces import Float32, Int32, Surfaces, flatten

try:
    import open3d as o3d
except ModuleNotFoundError as error:
    raise MissingExtraError("training", error.name or "open3d") from error
except (ImportError, OSError) as error:
    raise LimpetError(
        f"Open3D cannot be loaded: {error}",
        "on Debian: apt-get install libusb-1.0-0 libgl1 libgomp1 libx11-6",
    ) from error

NEAREST_M = 1e-3
"""How far off a surface light is gathered, so that it does not shade itself."""
OPEN_AIR_M = 1.0
"""Range of ambient occlusion: what is farther away does not darken a corner."""
OCCLUSION_RAYS = 16


@dataclass(frozen=True)
class Sightings:
    """What a camera and a LiDAR meet from some poses.

    Attributes:
        camera: Which camera looked.
        texels: Texel that each pixel shows, in the table of all levels. int32 (N, H, W)
        triangles: Triangle that each pixel shows; the last entry of every per-triangle table
            stands for "nothing". int32 (N, H, W)
        depth: Depth along the optical axis, m, infinite where nothing is. float32 (N, H, W)
        ranges: True ranges of the LiDAR, m, infinite where nothing is; no beams where no LiDAR was
            asked for. float32 (N, B)
    """

    camera: Camera
    texels: Int32
    triangles: Int32
    depth: Float32
    ranges: Float32


class SceneGeometry:
    """Triangles, texels and luxels of a layout, and what rays meet.

    Args:
        layout: What to build.
        threads: Threads that cast rays, 0 for all cores.
    """

    def __init__(self, layout: Layout, threads: int = 1) -> None:
        self.layout, self._threads = layout, threads
        opaque, panes = layout.rectangles()
        self.panes = len(panes)  # the last patches
        self.surfaces = flatten([*opaque, *panes])
        self._scene = _scene(self.surfaces, len(self.surfaces.triangles), threads)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Segmentation class of each triangle, and 255 for nothing. (T + 1,)"""
        return np.append(self.surfaces.label[self.surfaces.patch_of], np.uint8(255))

    def look(
        self,
        poses_N3: NDArray[np.float64],
        camera: Camera,
        lidar: Lidar | None = None,
        jitter_N2: NDArray[np.float64] | None = None,
    ) -> Sightings:
        """Casts all rays of some poses.

        Args:
            poses_N3: x, y (m), yaw (rad).
            camera: Which camera looks.
            lidar: Which LiDAR measures from the same poses, if any.
            jitter_N2: The camera's deviations, as `Camera.jitter` draws them; none by default.
        """
        number = len(poses_N3)
        jitter = np.zeros((number, 2)) if jitter_N2 is None else jitter_N2
        rays = camera.rays(poses_N3, jitter).reshape(-1, 6)
        pixels = len(rays)
        if lidar is not None:
            rays = np.concatenate([rays, lidar.rays(poses_N3).reshape(-1, 6)])
        hits = self._cast(rays)
        reached = hits["t_hit"]
        depth = reached[:pixels]
        # Open3D's "nothing" is the largest uint32: it becomes the entry after the last triangle.
        triangles = np.minimum(hits["primitive_ids"][:pixels], len(self.surfaces.triangles)).astype(
            np.int32
        )
        shape = (number, camera.height, camera.width)
        texels = self._texels(triangles, hits["primitive_uvs"][:pixels], depth, camera)
        return Sightings(
            camera,
            texels.reshape(shape),
            triangles.reshape(shape),
            depth.reshape(shape),
            reached[pixels:].reshape(number, -1),
        )

    def ranges(self, poses_N3: NDArray[np.float64], lidar: Lidar) -> Float32:
        """True ranges of a LiDAR alone, m, infinite where nothing is. (N, B)"""
        hits = self._cast(lidar.rays(poses_N3).reshape(-1, 6))
        return np.asarray(hits["t_hit"].reshape(len(poses_N3), -1))

    def _cast(self, rays: Float32) -> dict[str, NDArray[Any]]:
        """Open3D's answer for each ray. (n, 6)"""
        hits = self._scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=self._threads)
        return {name: hit.numpy() for name, hit in hits.items()}

    @cached_property
    def _tables(self) -> tuple[Float32, Int32]:
        return _texel_tables(self.surfaces)

    def _texels(
        self, triangles: Int32, barycentric: Float32, depth: Float32, camera: Camera
    ) -> Int32:
        corners, sizes = self._tables
        corner = corners.take(triangles, axis=0)  # (n, 8): texels along u and v, fineness
        b, c = barycentric[:, 0], barycentric[:, 1]
        x = (corner[:, 0] + b * corner[:, 2] + c * corner[:, 4]).astype(np.int32)
        y = (corner[:, 1] + b * corner[:, 3] + c * corner[:, 5]).astype(np.int32)
        # A pixel wider than a texel shows a coarser level, so that patterns do not flicker.
        wide = depth * camera.pixel_rad * corner[:, 6]
        level = (wide > 1.5).astype(np.int32) + (wide > 3.0) + (wide > 6.0)
        start_and_columns = sizes.reshape(-1, 2).take(triangles * len(sizes[0]) + level, axis=0)
        x >>= level
        y >>= level
        y *= start_and_columns[:, 1]
        y += start_and_columns[:, 0]
        y += x
        return np.asarray(y)

    @cached_property
    def luxels(self) -> tuple[Int32, Float32, Float32]:
        """Patch (K,), place just off the surface (K, 3) and normal (K, 3) of each luxel."""
        s = self.surfaces
        patch, column, row = s.luxels.points()
        # Corners of the patch are drawn in a little: there walls meet and all is dark.
        along_u = _inset(column, s.luxels.columns[patch], s.sides[patch, 0])
        along_v = _inset(row, s.luxels.rows[patch], s.sides[patch, 1])
        normal = s.normal[patch]
        place = s.origin[patch] + along_u * s.u[patch] + along_v * s.v[patch] + NEAREST_M * normal
        return patch, place.astype(np.float32), normal.astype(np.float32)

    @cached_property
    def openness(self) -> Float32:
        """Share of a luxel's cosine-weighted surroundings with nothing within 1 m, 0 to 1. (K,)"""
        _, place, normal = self.luxels
        rng = np.random.default_rng(self.layout.seed)
        number = len(place)
        open_rays = np.zeros(number, np.float32)
        for i in range(OCCLUSION_RAYS):
            # Malley's method: uniform in the disc, lifted to the hemisphere; strata in angle.
            radius = np.sqrt(rng.random(number, np.float32))
            angle = np.float32(2 * math.pi) * (rng.random(number, np.float32) + i) / OCCLUSION_RAYS
            direction = _about(normal, radius * np.cos(angle), radius * np.sin(angle))
            open_rays += ~self.blocked(place, direction, OPEN_AIR_M)
        return np.asarray(open_rays / OCCLUSION_RAYS, np.float32)

    def blocked(self, places: Float32, directions: Float32, reach: float) -> NDArray[np.bool_]:
        """Whether anything but a window pane lies within `reach` directions. (n,)"""
        rays = o3d.core.Tensor.from_numpy(np.concatenate([places, directions], axis=1))
        hit: NDArray[np.bool_] = self._shadow_scene.test_occlusions(
            rays, tnear=1e-3, tfar=reach, nthreads=self._threads
        ).numpy()
        return hit

    @cached_property
    def _shadow_scene(self) -> o3d.t.geometry.RaycastingScene:
        # Panes are rectangles, two triangles each, and rectangles come before discs.
        s = self.surfaces
        opaque = s.patch_of < len(s.origin) - self.panes
        return _scene(s, opaque, self._threads)


def _scene(
    surfaces: Surfaces, chosen: NDArray[np.bool_] | int, threads: int
) -> o3d.t.geometry.RaycastingScene:
    scene = o3d.t.geometry.RaycastingScene(nthreads=threads)
    triangles = surfaces.triangles[chosen] if isinstance(chosen, np.ndarray) else surfaces.triangles
    scene.add_triangles(
        o3d.core.Tensor.from_numpy(surfaces.vertices),
        o3d.core.Tensor.from_numpy(np.ascontiguousarray(triangles)),
    )
    return scene


def _texel_tables(s: Surfaces) -> tuple[Float32, Int32]:
    """Per triangle (and nothing): chart coordinates in texels, and where each level's chart is."""
    patch = s.patch_of
    counts = np.stack([s.texels[0].columns, s.texels[0].rows], axis=1)[patch].astype(np.float32)
    # A hair inside, so that rounding cannot reach the neighbour's chart.
    inside = (s.corners.reshape(-1, 3, 2) * (1 - 2e-4)) * counts[:, None]
    inside[:, 0] += 1e-4 * counts
    fineness = counts[:, 0] / s.sides[patch, 0].astype(np.float32)
    corners = np.zeros((len(patch) + 1, 8), np.float32)
    corners[:-1, :6] = inside.reshape(-1, 6)
    corners[:-1, 6] = fineness
    corners[-1, 6] = 1.0  # nothing is infinitely far away, which times 0 would be no number
    sizes = np.zeros((len(patch) + 1, len(s.texels), 2), np.int32)
    begin = 0
    for level, charts in enumerate(s.texels):
        sizes[:-1, level, 0] = begin + charts.start[patch]
        sizes[:-1, level, 1] = charts.columns[patch]
        begin += int(charts.start[-1])
    sizes[-1, :, 0] = begin  # the last texel is "nothing"
    return corners, sizes


def _inset(index: Int32, count: Int32, side: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places 0 to 1 of grid points, at most 2 cm (and a fifth) from the ends."""
    edge = np.minimum(0.02 / side, 0.2)
    return np.asarray(edge + (1 - 2 * edge) * index / (count - 1))[:, None]


def _about(normal: Float32, a: Float32, b: Float32) -> Float32:
    """Unit vectors whose components across the normal are a and b (a² + b² ≤ 1)."""
    flat = np.abs(normal[:, 2]) > 0.9
    helper = np.where(flat[:, None], (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)).astype(np.float32)
    first = np.cross(helper, normal)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(normal, first)
    up = np.sqrt(np.maximum(0.0, 1 - a * a - b * b))
    vectors = a[:, None] * first + b[:, None] * second + up[:, None] * normal
    return vectors.astype(np.float32)
