"""Average precision of grasps in a scene whose objects are known, as GraspNet's evaluator has it.

The order of the steps matters and is the public evaluator's:

1. Widths are clipped to 0 … 0.1 m.
2. Of grasps within 3 cm and 30° of a better one, the better one stays.
3. A grasp belongs to the object with the nearest model point (vertices in voxels of 8 mm).
4. The ten best of each object stay, then those that score at least as the 50th best.
5. A grasp fails if a point of the scene or the table is inside the gripper, or fewer than ten are
   between its fingers. Only points within 5 cm of the object's bounding box count.
6. Otherwise its friction is the lowest of 0.2, 0.4 … 1.2 with force closure on that object.
7. Precision at k, for k of 1 to 50, is the share of the k best that hold at a friction of at most
   μ, **divided by k even where there are fewer grasps**. AP is the mean over views, k and μ.

Where this may differ from the evaluator's own numbers: contacts and normals are those of the mesh,
where it has a signed distance grid of 1 to 2 mm and fits planes to some of its cells, so it rounds
edges; at equal scores the order is the given one, where it is a sort's that keeps no order; a mesh
with triangles longer than 4 mm is filled with points, where it takes the vertices alone (scanned
objects, GraspNet's among them, have none).

Source: graspnetAPI 1.2.11, behaviour of `GraspNetEval.eval_scene` and `eval_grasp`.

Dimension legend: g grasps, n objects, q model points of an object, w scene points near an object,
K = 50 ranks, F = 6 friction coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from limpet.contracts.errors import TensorError
from limpet.contracts.grasp_frames import inverse_pose, transform_points
from limpet.contracts.grasps import COLUMNS, suppress
from limpet.contracts.grippers import Gripper
from limpet.training.grasp.graspnet import Frame, GraspNet
from limpet.training.grasp.judging.force_closure import FRICTIONS, NONE, lowest_friction
from limpet.training.grasp.surfaces import Surface

Float64 = NDArray[np.float64]

RANKS = 50
"""How many of the best grasps of a view count."""

GRIPPER = Gripper()
"""The evaluator's, whatever the robot's is."""

_PER_OBJECT = 10
_VOXEL_M = 0.008
_FILL_M = 0.004
_AROUND_M = 0.05
_FEWEST_BETWEEN = 10

Outcome = Literal["holds", "slips", "collides", "empty"]
OUTCOMES: tuple[Outcome, ...] = ("holds", "slips", "collides", "empty")


@dataclass(frozen=True, eq=False)
class Model:
    """An object as the evaluation sees it.

    Attributes:
        points: One in each voxel of 8 mm, object frame, m. (q, 3)
        surface: Its mesh.
    """

    points: Float64
    surface: Surface


@dataclass(frozen=True, eq=False)
class Judged:
    """The grasps of one view that count, best first.

    Attributes:
        rows: The grasps, widths clipped. (g, 17)
        object_index: Which object each belongs to. (g,)
        friction: The lowest at which each holds, `NONE` where it fails. (g,)
        outcome: Index into `OUTCOMES`. (g,)
    """

    rows: Float64
    object_index: NDArray[np.intp]
    friction: Float64
    outcome: NDArray[np.intp]

    def accuracy(self) -> Float64:
        """Precision at each rank and friction. (K, F)"""
        holds = (self.friction[:, None] > 0) & (self.friction[:, None] <= np.asarray(FRICTIONS))
        hits = np.zeros((RANKS, len(FRICTIONS)))
        hits[: len(holds)] = holds[:RANKS]
        precision: Float64 = np.cumsum(hits, axis=0) / np.arange(1, RANKS + 1)[:, None]
        return precision


@dataclass(frozen=True, kw_only=True)
class AveragePrecision:
    """Means over views, in percent.

    Attributes:
        ap: Over ranks and the six friction coefficients.
        ap_08: Over ranks, at 0.8.
        ap_04: Over ranks, at 0.4.
    """

    ap: float
    ap_08: float
    ap_04: float


def average_precision(accuracies: Sequence[Float64]) -> AveragePrecision:
    """Figures of views. Each (K, F); NaN where there is none."""
    if not accuracies:
        return AveragePrecision(ap=np.nan, ap_08=np.nan, ap_04=np.nan)
    by_friction = 100 * np.mean(accuracies, axis=(0, 1))  # (F,)
    return AveragePrecision(
        ap=float(by_friction.mean()),
        ap_08=float(by_friction[FRICTIONS.index(0.8)]),
        ap_04=float(by_friction[FRICTIONS.index(0.4)]),
    )


class Judge:
    """Judges grasps in the scenes of a data set.

    Args:
        data: The data set; its meshes are read when they are needed.
    """

    def __init__(self, data: GraspNet) -> None:
        self._data = data
        self.model = lru_cache(maxsize=None)(self._model)

    def judge(self, frame: Frame, rows: NDArray[Any]) -> Judged:
        """Grasps of one view, in its camera's frame. (g, 17)

        Raises:
            TensorError: `rows` is of another shape, or not finite.
        """
        models = [self.model(object_id) for object_id in frame.object_ids]
        table = transform_points(table_points(), inverse_pose(frame.pose_camera_in_table))
        return judge_grasps(rows, models, frame.pose_object_in_camera, table)

    def _model(self, object_id: int) -> Model:
        return make_model(*self._data.mesh(object_id))


def make_model(vertices: NDArray[Any], triangles: NDArray[Any]) -> Model:
    """An object's points and surface from its mesh.

    Args:
        vertices: Object frame, m. (v, 3)
        triangles: Indices of vertices. (t, 3)
    """
    import open3d as o3d

    cloud = o3d.geometry.PointCloud()
    cloud.points = o3d.utility.Vector3dVector(_filled(vertices, triangles))
    points = np.asarray(cloud.voxel_down_sample(_VOXEL_M).points)
    return Model(points=points, surface=Surface(vertices, triangles))


def table_points() -> Float64:
    """Points of the table, 1 m × 1 m and 5 cm thick, in its own frame, m. (q, 3)"""
    across = np.linspace(0, 1, int(1 / _VOXEL_M)) - 0.5
    down = np.linspace(0, 0.05, int(0.05 / _VOXEL_M)) - 0.05
    return np.stack(np.meshgrid(across, across, down, indexing="ij"), -1).reshape(-1, 3)


def judge_grasps(
    rows: NDArray[Any],
    models: Sequence[Model],
    pose_object_in_camera: NDArray[Any],
    table: NDArray[Any],
) -> Judged:
    """Steps 1 to 6.

    Args:
        rows: Grasps in the camera's frame. (g, 17)
        models: Of the scene's objects.
        pose_object_in_camera: Of each. (n, 4, 4)
        table: Points of the table in the camera's frame, m. (q, 3)

    Raises:
        TensorError: `rows` is of another shape, or not finite.
    """
    rows = np.array(rows, np.float64)
    if rows.ndim != 2 or rows.shape[1] != COLUMNS:
        raise TensorError(f"grasps are {rows.shape}, wanted (g, {COLUMNS})")
    if not np.isfinite(rows).all():
        raise TensorError("a grasp has a value that is no number")
    rows[:, 1] = np.clip(rows[:, 1], 0, GRIPPER.opening_m)
    rows = rows[suppress(rows)]
    points = [
        transform_points(model.points, pose)
        for model, pose in zip(models, pose_object_in_camera, strict=True)
    ]
    rows, owner = _chosen(rows, points)
    scene = np.concatenate([*points, table])
    friction, outcome = np.full(len(rows), NONE), np.zeros(len(rows), np.intp)
    for index in np.unique(owner):
        mine = np.flatnonzero(owner == index)
        friction[mine], outcome[mine] = _judge_object(
            rows[mine], models[index], pose_object_in_camera[index], points[index], scene
        )
    order = np.argsort(-rows[:, 0], kind="stable")
    return Judged(rows[order], owner[order], friction[order], outcome[order])


def _chosen(rows: Float64, points: Sequence[Float64]) -> tuple[Float64, NDArray[np.intp]]:
    """Ten of each object, then those that score at least as the 50th best of these."""
    of_point = np.repeat(np.arange(len(points)), [len(one) for one in points])
    if not len(rows):
        return rows, np.zeros(0, np.intp)
    owner = of_point[cKDTree(np.concatenate(points)).query(rows[:, 13:16])[1]]
    kept = np.concatenate(
        [
            mine[np.argsort(-rows[mine, 0], kind="stable")][:_PER_OBJECT]
            for mine in (np.flatnonzero(owner == index) for index in range(len(points)))
        ]
    )
    least = np.sort(rows[kept, 0])[::-1][min(RANKS, len(kept)) - 1]
    kept = kept[rows[kept, 0] >= least]
    return rows[kept], owner[kept]


def _judge_object(
    rows: Float64, model: Model, pose: Float64, points: Float64, scene: Float64
) -> tuple[Float64, NDArray[np.intp]]:
    """Friction and outcome of one object's grasps."""
    near = np.all((scene > points.min(0) - _AROUND_M) & (scene < points.max(0) + _AROUND_M), 1)
    collides, between = gripper_points(rows, scene[near])
    empty = between < _FEWEST_BETWEEN
    rotation, depth = rows[:, 4:13].reshape(-1, 3, 3), rows[:, 3]
    centre = rows[:, 13:16] + depth[:, None] * rotation[:, :, 0]
    friction = lowest_friction(
        model.surface,
        transform_points(centre, inverse_pose(pose)),
        rotation[:, :, 1] @ pose[:3, :3],
        rows[:, 1],
    )
    names = np.select([collides, empty, friction == NONE], ["collides", "empty", "slips"], "holds")
    friction = np.where(collides | empty, NONE, friction)
    return friction, np.array([OUTCOMES.index(str(name)) for name in names], np.intp)


def gripper_points(
    rows: Float64, points: NDArray[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Whether points are inside a finger or the base, and how many are between the fingers.

    Args:
        rows: Grasps. (g, 17)
        points: Of the scene, in the frame of the grasps, m. (w, 3)

    Returns:
        (g,), (g,)
    """
    rotation = rows[:, 4:13].reshape(-1, 3, 3)
    local = (points[None] - rows[:, None, 13:16]) @ rotation  # (g, w, 3), in the gripper's frame
    ahead, aside = local[..., 0], np.abs(local[..., 1])
    half, depth = rows[:, 1, None] / 2, rows[:, 3, None]
    level = np.abs(local[..., 2]) < GRIPPER.height_m / 2
    reach = level & (ahead > -GRIPPER.base_m) & (ahead < depth)
    finger = reach & (aside > half) & (aside < half + GRIPPER.finger_m)
    behind = (ahead > -(GRIPPER.base_m + GRIPPER.finger_m)) & (ahead < -GRIPPER.base_m)
    base = level & behind & (aside < half + GRIPPER.finger_m)
    return np.any(finger | base, axis=1), np.count_nonzero(reach & (aside <= half), axis=1)


def _filled(vertices: NDArray[Any], triangles: NDArray[Any]) -> Float64:
    """Vertices, and points on triangles with an edge longer than `_FILL_M`, that far apart."""
    corners = vertices[triangles].astype(np.float64)  # (t, 3, 3)
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    pieces = np.ceil(longest / _FILL_M).astype(np.intp)
    added = [np.asarray(vertices, np.float64)]
    for count in np.unique(pieces[pieces > 1]):
        i, j = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
        inside = i + j <= count
        weights = np.stack([i, j, count - i - j], -1)[inside] / count  # barycentric
        added.append(np.einsum("wk,tkj->twj", weights, corners[pieces == count]).reshape(-1, 3))
    return np.concatenate(added)
