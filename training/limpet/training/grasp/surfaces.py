"""An object's surface: how far points are from it, and where two fingers that close on it touch.

Dimension legend: n points or grasps, 2 fingers, v vertices, t triangles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import MissingExtraError

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Contacts:
    """Where the two fingers of each grasp first touch.

    Attributes:
        found: Whether both touch, at two places. (n,)
        points: Where, m; NaN where not. (n, 2, 3)
        normals: Of the surface there, unit length, either way round; NaN where none. (n, 2, 3)
    """

    found: NDArray[np.bool_]
    points: Float64
    normals: Float64


class Surface:
    """A triangle mesh that rays and points are tested against, in its own frame.

    Args:
        vertices: Corners, m. (v, 3)
        triangles: Indices of three vertices each. (t, 3)

    Raises:
        MissingExtraError: Open3D is not installed.
    """

    def __init__(self, vertices: NDArray[Any], triangles: NDArray[Any]) -> None:
        try:
            import open3d as o3d
        except ModuleNotFoundError as error:
            raise MissingExtraError("training", "open3d") from error
        self.low, self.high = vertices.min(0), vertices.max(0)
        self._tensor = o3d.core.Tensor.from_numpy
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        self._scene.add_triangles(
            self._tensor(np.ascontiguousarray(vertices, np.float32)),
            self._tensor(np.ascontiguousarray(triangles, np.uint32)),
        )

    def distances(self, points: NDArray[Any], within_m: float) -> Float64:
        """Distance of points from the surface, m; infinite beyond `within_m`. (n, 3) → (n,)"""
        near = np.all((points > self.low - within_m) & (points < self.high + within_m), axis=1)
        found = np.full(len(points), np.inf)
        if near.any():
            query = self._tensor(np.ascontiguousarray(points[near], np.float32))
            found[near] = self._scene.compute_distance(query, nthreads=1).numpy()
            found[found > within_m] = np.inf
        return found

    def contacts(
        self, centres: NDArray[Any], axes: NDArray[Any], widths_m: NDArray[Any]
    ) -> Contacts:
        """Closes two points, `widths_m` apart, towards the middle between them.

        Each moves along `axes` from its end to the middle and no further; the first surface that it
        meets is its contact. A finger that finds none until then touches nothing.

        Args:
            centres: Middle between the fingertips, m. (n, 3)
            axes: Closing direction, unit length. (n, 3)
            widths_m: Opening. (n,)

        Source: behaviour of `ParallelJawPtGrasp3D.close_fingers` in the public evaluator, which
        steps through a signed distance grid of 1 to 2 mm; here the mesh itself is met.
        """
        half = np.asarray(widths_m, np.float64)[:, None] / 2
        starts = np.stack([centres - half * axes, centres + half * axes], 1)  # (n, 2, 3)
        ways = np.stack([axes, -np.asarray(axes)], 1)
        rays = np.concatenate([starts, ways], 2).reshape(-1, 6).astype(np.float32)
        hit = self._scene.cast_rays(self._tensor(rays), nthreads=1)
        travelled = hit["t_hit"].numpy().astype(np.float64).reshape(-1, 2)
        touched = travelled <= half
        normals = hit["primitive_normals"].numpy().astype(np.float64).reshape(-1, 2, 3)
        # Both fingers at one point of the surface hold nothing between them.
        between = np.abs(2 * half[:, 0] - np.where(touched, travelled, 0).sum(1))
        found = touched.all(1) & (between > 1e-9)
        travelled = np.where(found[:, None], travelled, np.nan)
        return Contacts(
            found=found,
            points=starts + travelled[..., None] * ways,
            normals=np.where(found[:, None, None], normals, np.nan),
        )
