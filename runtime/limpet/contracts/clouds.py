"""From a depth camera's points to what a grasp model takes: one implementation for training and
robot.

The plane that the objects stand on is found; what stands out of it within reach is the foreground.
A model sees a fixed number of points: most of them foreground, the rest of the table around it,
thinned to one point a voxel. Everything is deterministic and independent of NumPy's version.

Dimension legend: V views, n points of any cloud, N points a model takes of each view, M of them
candidates for grasps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.cameras import back_project, check_distance, stride_for
from limpet.contracts.errors import ImplausibleError
from limpet.contracts.grasp_frames import transform_points
from limpet.contracts.planes import Plane
from limpet.contracts.point_sampling import (
    Float32,
    farthest_points,
    neighbours,
    shuffled,
    smallest,
    voxel_means,
)
from limpet.contracts.products import along
from limpet.contracts.registration import register
from limpet.contracts.workspaces import RingMap, Workspace

Float64 = NDArray[np.float64]

NoGrasp = Literal["", "out_of_reach", "empty_table", "none_holds"]
"""Why there is no grasp: nothing is near enough, nothing stands out of the table, or none of the
hypotheses is free of collision with something between the fingers. Empty: there is one."""

FEWEST_POINTS = 256
"""Points that a cloud needs: a depth image has tens of thousands."""
NEAR_RINGS = 4
"""Cells of a centimetre around the foreground from which a model gets the table first."""
RINGS = 10
"""Cells of a centimetre around the foreground within which a gripper may hit something."""
FEWEST_NEIGHBOURS = 3
"""Occupied voxels around one of the foreground, or it is noise."""


class CloudPreprocessing(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="cloud"
):
    """How depth becomes a grasp model's input; a manifest carries it.

    Attributes:
        points: Points of each view.
        candidates: How many of them, the first, are candidates for grasps.
        voxel_m: Side of the voxels of which each gives one point.
        observed_voxel_m: The same of the foreground that grippers must not touch.
        around_voxel_m: The same of the table and whatever else is around it: a finger of 1 × 2 cm
            cannot pass between points 8 mm apart.
        nearest_m, farthest_m: Distances along the optical axis between which points count.
        lowest_m, highest_m: Heights above the table between which something stands out of it.
        table_share: Part of the points that the table gets, where there is enough of both.
        fewest_foreground: Voxels of foreground below which nothing stands out.
        register_views: Whether what two views show of the same is laid on each other, which mends
            the error of their relative pose (`limpet.contracts.registration`).
        merge_views: Whether the points of two views become those of one, instead of being fused
            by the model.
    """

    points: int = 4096
    candidates: int = 1024
    voxel_m: float = 0.004
    observed_voxel_m: float = 0.005
    around_voxel_m: float = 0.008
    nearest_m: float = 0.15
    farthest_m: float = 1.5
    lowest_m: float = 0.006
    highest_m: float = 0.4
    table_share: float = 0.2
    fewest_foreground: int = 24
    register_views: bool = True
    merge_views: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCloud:
    """What a model takes of one or two views, and what a gripper must not touch.

    Attributes:
        points: In the reference camera's frame, metres; the first `candidates` of each view are
            foreground in farthest-point order, and the table where there is less of that. A view
            that sees none of the foreground is left out. None where there is nothing to grasp.
            (V, N, 3)
        observed: All that was seen around the foreground, of all views. (n, 3)
        plane: The table; None where none was seen.
        nothing: Why there is nothing to grasp; empty where there is.
        foreground: Voxels of foreground in each view. (V,)
        correction: How the second view's points were moved onto the first's, in the reference
            camera's frame; None where they were left as they were told. (4, 4)
    """

    points: Float32 | None = None
    observed: Float32 = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    plane: Plane | None = None
    nothing: NoGrasp = ""
    foreground: tuple[int, ...] = ()
    correction: Float64 | None = None


def depth_points(depth_m: Float32, intrinsics: Float64, how: CloudPreprocessing) -> Float32:
    """A depth image's points for `prepare`: about two of them along a voxel's side.

    Args:
        depth_m: As `metres` gives it. (H, W)
        intrinsics: As `check_intrinsics` gives them. (3, 3)
        how: The model's way.

    Returns:
        In the camera's frame, metres. (n, 3)
    """
    return back_project(depth_m, intrinsics, stride_for(depth_m, intrinsics, how.voxel_m / 2))


def prepare(
    clouds: Sequence[Float32], poses_in_ref: Sequence[Float64], how: CloudPreprocessing
) -> PreparedCloud:
    """Prepares the points of one or two views.

    Args:
        clouds: Points of each view in its own camera's frame, metres, as `depth_points` or
            `check_cloud` gives them; (n, 3) each.
        poses_in_ref: Of each camera in the reference camera's frame; (4, 4) each.
        how: The model's way.
    """
    seen = []
    for cloud, pose in zip(clouds, poses_in_ref, strict=True):
        near = cloud[(cloud[:, 2] >= how.nearest_m) & (cloud[:, 2] <= how.farthest_m)]
        seen.append(near if np.array_equal(pose, np.eye(4)) else transform_points(near, pose))
    if not all(map(len, seen)) or sum(map(len, seen)) < FEWEST_POINTS:
        return PreparedCloud(nothing="out_of_reach")
    space = Workspace(seen, how.lowest_m, how.highest_m)
    correction = None
    if how.register_views and len(seen) == 2:
        reference, auxiliary = (points[space.foreground(points)] for points in seen)
        correction = register(reference, auxiliary, poses_in_ref[1][:3, 3])
        if correction is not None:
            seen[1] = transform_points(seen[1], correction)
            space = Workspace(seen, how.lowest_m, how.highest_m)
    if how.merge_views:
        seen = [np.concatenate(seen)]
    objects, others = [], []
    for points in seen:
        out = space.foreground(points)
        voxels, keys, _ = voxel_means(points[out], how.voxel_m)
        objects.append(voxels[neighbours(keys) >= FEWEST_NEIGHBOURS])
        others.append(points[~out])
    counts = tuple(map(len, objects))
    if max(counts) < how.fewest_foreground:
        return PreparedCloud(
            plane=space.table, nothing="empty_table", foreground=counts, correction=correction
        )
    rings = RingMap(space.across(np.concatenate(objects)), RINGS)
    prepared, around = [], []
    for foreground, rest in zip(objects, others, strict=True):
        close = rest[rings.of(space.across(rest)) <= RINGS]
        voxels, _, _ = voxel_means(close, how.voxel_m)
        around.append(voxels)
        if len(foreground) < how.fewest_foreground:
            continue
        prepared.append(_sample(foreground, voxels, rings.of(space.across(voxels)), how))
    near, _, _ = voxel_means(np.concatenate(objects), how.observed_voxel_m)
    beside, _, _ = voxel_means(np.concatenate(around), how.around_voxel_m)
    return PreparedCloud(
        points=np.stack(prepared),
        observed=np.concatenate([near, beside]),
        plane=space.table,
        foreground=counts,
        correction=correction,
    )


def check_cloud(cloud: NDArray[np.floating], view: str = "") -> Float32:
    """The points of a cloud that are numbers, as float32. (n, 3)

    Args:
        cloud: Points in the camera's frame, metres. (n, 3)
        view: Which view, for the message.

    Raises:
        ImplausibleError: `cloud_small`, or `depth_unit` where they cannot be metres.
    """
    of = f"cloud of {view}" if view else "cloud"
    if cloud.ndim != 2 or cloud.shape[1] != 3 or cloud.dtype.kind != "f":
        raise ImplausibleError(
            "cloud_small", f"{of}: found {cloud.dtype} {list(cloud.shape)}, wanted floats [n, 3]"
        )
    points: Float32 = cloud.astype(np.float32, copy=False)
    points = points[np.isfinite(along(points, np.ones(3))) & (points[:, 2] > 0)]
    if len(points) < FEWEST_POINTS:
        raise ImplausibleError(
            "cloud_small",
            f"{of}: {len(points)} points in front of the camera of {len(cloud)}, wanted at least "
            f"{FEWEST_POINTS}",
            "send the whole cloud, in the camera's frame: x right, y down, z forward",
        )
    check_distance(float(np.median(points[:, 2])), of, "the cloud has to be in metres")
    return points


def _sample(
    foreground: Float32, around: Float32, rings: NDArray[np.int64], how: CloudPreprocessing
) -> Float32:
    """A view's points: candidates first, then other foreground, then the table. (N, 3)

    Where there are fewer voxels than points, they come again.
    """
    share = min(len(around), round(how.table_share * how.points))
    kept = foreground[smallest(shuffled(foreground, how.voxel_m), how.points - share)]
    near_first = (rings // NEAR_RINGS).astype(np.uint64) << np.uint64(60)
    keys = near_first | (shuffled(around, how.voxel_m) >> np.uint64(4))
    table = around[smallest(keys, how.points - len(kept))]
    first = farthest_points(kept, how.candidates)
    rest = np.ones(len(kept), bool)
    rest[first] = False
    points = np.concatenate([kept[first], kept[rest], table])
    return points[np.arange(how.points) % len(points)]
