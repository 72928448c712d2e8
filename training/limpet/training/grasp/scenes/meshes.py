"""A union of solids as one closed triangle mesh, and what its mass is and where.

The union's distance field is sampled on a grid and its zero level triangulated (flying edges, in
Open3D), so that overlapping solids leave no surface inside: rays that leave a mesh are rays that
leave the object. Edges come out bevelled by less than a pitch, as real objects' are.

Dimension legend: v vertices, t triangles, (x, y, z) cells of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import LimpetError, MissingExtraError
from limpet.training.grasp.scenes.shapes import Float64, Solid

try:
    import open3d as o3d
except ModuleNotFoundError as error:
    raise MissingExtraError("training", error.name or "open3d") from error
except (ImportError, OSError) as error:
    raise LimpetError(
        f"Open3D cannot be loaded: {error}",
        "on Debian: apt-get install libusb-1.0-0 libgl1 libgomp1 libx11-6",
    ) from error

PITCH_M = 0.0015
"""Of the grid: half of the thinnest wall or less."""
TRIANGLES = 4000
"""To how many a mesh is simplified."""


@dataclass(frozen=True)
class Mesh:
    """A closed surface whose triangles turn counter-clockwise seen from outside.

    Attributes:
        vertices: m, object frame. float64 (v, 3)
        triangles: Indices of vertices. int32 (t, 3)
    """

    vertices: Float64
    triangles: NDArray[np.int32]

    @property
    def volume_m3(self) -> float:
        """Enclosed volume, above 0 since triangles face outwards."""
        corners = self.vertices[self.triangles]
        normals = np.cross(corners[:, 1], corners[:, 2])
        return float(np.einsum("tk,tk->", corners[:, 0], normals) / 6)


@dataclass(frozen=True)
class Bulk:
    """How a body's volume is spread, for a density of 1.

    Attributes:
        volume_m3: Its volume.
        centroid: m. (3,)
        inertia: About the centroid, m⁵. (3, 3)
    """

    volume_m3: float
    centroid: Float64
    inertia: Float64


def mesh_of(solids: Sequence[Solid], pitch_m: float = PITCH_M) -> tuple[Mesh, Bulk]:
    """The surface of a union, and its bulk.

    Args:
        solids: At least one.
        pitch_m: Of the grid.
    """
    bounds = [solid.bounds() for solid in solids]
    low = np.min([first for first, _ in bounds], axis=0) - 2.37 * pitch_m
    high = np.max([last for _, last in bounds], axis=0) + 2.37 * pitch_m
    axes = [np.arange(a, b + pitch_m, pitch_m) for a, b in zip(low, high, strict=True)]
    shape = tuple(len(axis) for axis in axes)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    field = np.full(len(points), np.inf)
    for solid, (first, last) in zip(solids, bounds, strict=True):
        # Beyond two cells of a solid its distance does not move the zero level.
        near = np.all((points > first - 3 * pitch_m) & (points < last + 3 * pitch_m), axis=1)
        field[near] = np.minimum(field[near], solid.distance(points[near]))
    field[np.isinf(field)] = 4 * pitch_m
    found = o3d.t.geometry.TriangleMesh.create_isosurfaces(
        o3d.core.Tensor.from_numpy(field.reshape(shape).astype(np.float32)), [0.0]
    )
    # The grid's axes come back in reverse order, which turns the triangles to face outwards.
    vertices = found.vertex.positions.numpy()[:, ::-1].astype(np.float64) * pitch_m + low
    triangles = found.triangle.indices.numpy()
    return _simplified(vertices, triangles), _bulk(points[field < 0], pitch_m)


def _simplified(vertices: Float64, triangles: NDArray[np.int64]) -> Mesh:
    whole = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(np.ascontiguousarray(vertices)),
        o3d.utility.Vector3iVector(np.ascontiguousarray(triangles, np.int32)),
    )
    fewer = whole.simplify_quadric_decimation(TRIANGLES)
    # Closed is enough: slivers of a coplanar face may cross by less than a rounding error.
    closed = fewer.is_edge_manifold(allow_boundary_edges=False) and fewer.is_vertex_manifold()
    kept = fewer if closed else whole
    return Mesh(np.asarray(kept.vertices).copy(), np.asarray(kept.triangles).astype(np.int32))


def _bulk(inside: Float64, pitch_m: float) -> Bulk:
    cell = pitch_m**3
    centroid = inside.mean(axis=0)
    offset = inside - centroid
    second = offset.T @ offset * cell + np.eye(3) * (len(inside) * cell * pitch_m**2 / 12)
    return Bulk(len(inside) * cell, centroid, np.eye(3) * np.trace(second) - second)


def ray_scene(*meshes: Mesh) -> o3d.t.geometry.RaycastingScene:
    """Open3D's scene of some meshes, numbered from 0 in their order; one thread casts."""
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    for mesh in meshes:
        scene.add_triangles(
            o3d.core.Tensor.from_numpy(mesh.vertices.astype(np.float32)),
            o3d.core.Tensor.from_numpy(mesh.triangles.astype(np.uint32)),
        )
    return scene
