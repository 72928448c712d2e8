"""A model that finds grasps: what one request carries, and the way from it to gripper poses.

A request holds depth images of one or two views, or their clouds; its result has embeddings,
GraspNet rows and the poses of the gripper, or a named reason why there is nothing to grasp.

Dimension legend: V views, H rows and W columns of a depth image, n points, g grasps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.cameras import (
    FARTHEST_BASE_M,
    FARTHEST_VIEW_M,
    check_intrinsics,
    check_pose,
    metres,
)
from limpet.contracts.clouds import NoGrasp, PreparedCloud, check_cloud, depth_points, prepare
from limpet.contracts.errors import BundleError, TensorError
from limpet.contracts.grasps import COLUMNS, GraspDecoding, Grasps, decode, no_grasps
from limpet.contracts.manifest import Manifest
from limpet.contracts.tensors import Array, Tensors, TensorSpec
from limpet.contracts.workspaces import check_views_agree

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

DEPTH, DEPTH_AUX = "depth", "depth_aux"
CLOUD, CLOUD_AUX = "cloud", "cloud_aux"
INTRINSICS, DEPTH_SCALE = "intrinsics", "depth_scale"
RELATIVE_POSE, BASE_POSE = "pose_aux_in_ref", "pose_camera_in_base"

GRASPS, POSES_CAMERA, POSES_BASE, COUNTS = "grasps", "poses_camera", "poses_base", "counts"
EMBEDDING, SEED_EMBEDDING = "embedding", "seed_embedding"
CORRECTION = "correction"

INPUTS = [
    TensorSpec(name=DEPTH, dtype="float32", shape=["rows", "columns"], unit="m", frame="ref"),
    TensorSpec(
        name=DEPTH_AUX, dtype="float32", shape=["rows_aux", "columns_aux"], unit="m", frame="aux"
    ),
    TensorSpec(name=CLOUD, dtype="float32", shape=["points", 3], unit="m", frame="ref"),
    TensorSpec(name=CLOUD_AUX, dtype="float32", shape=["points_aux", 3], unit="m", frame="aux"),
    TensorSpec(name=INTRINSICS, dtype="float64", shape=["views", 3, 3], unit="pixel"),
    TensorSpec(name=DEPTH_SCALE, dtype="float64", shape=[1], unit="m"),
    TensorSpec(name=RELATIVE_POSE, dtype="float64", shape=[4, 4], unit="m", frame="ref"),
    TensorSpec(name=BASE_POSE, dtype="float64", shape=[4, 4], unit="m", frame="base"),
]
"""What a request may carry: `depth` and `intrinsics`, or `cloud`; the rest where there is a second
view or a base. `depth` may be uint16 too, in units of `depth_scale`, by default a millimetre."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """A request, checked.

    Attributes:
        clouds: Points of each view in its camera's frame; (n, 3) each.
        poses_in_ref: Of each camera; (4, 4) each.
        pose_camera_in_base: Of the reference camera, where it is known. (4, 4)
    """

    clouds: list[Float32]
    poses_in_ref: list[Float64]
    pose_camera_in_base: Float64 | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class GraspAnswer:
    """What became of one request.

    Attributes:
        grasps: Rows, counts, and the reason where there is none.
        views: The request, checked.
        seen: What preprocessing made of it.
        tensors: The result's: what there is of `GraspModel.outputs`.
        prepare_ns: Time of checks and sampling.
        model_ns: Time of the graph.
        decode_ns: Time of decoding and collision checks.
    """

    grasps: Grasps
    views: Views
    seen: PreparedCloud
    tensors: Tensors
    prepare_ns: int
    model_ns: int = 0
    decode_ns: int = 0

    @property
    def nothing(self) -> NoGrasp:
        """Why there is no grasp; empty where there is one."""
        return self.grasps.nothing


class GraspModel:
    """One request at a time through preprocessing, graph and decoding.

    Args:
        manifest: With `CloudPreprocessing` and `GraspDecoding`.
        run: Executes the graph.

    Attributes:
        inputs, outputs: The tensors that a request may, and its result can carry.

    Raises:
        BundleError: The model finds no grasps.
    """

    def __init__(self, manifest: Manifest, run: Callable[[Tensors], Tensors]) -> None:
        self.how = manifest.cloud()
        if not isinstance(manifest.decoding, GraspDecoding):
            raise BundleError(f"model {manifest.name!r} has no decoding of grasps")
        self.decoding = manifest.decoding
        self._points, self._run = manifest.inputs[0].name, run
        graph = {spec.name: spec for spec in manifest.outputs}
        self.inputs = INPUTS
        self.outputs = [
            msgspec.structs.replace(graph[self.decoding.embedding], name=EMBEDDING),
            msgspec.structs.replace(graph[self.decoding.seed_embedding], name=SEED_EMBEDDING),
            TensorSpec(
                name=GRASPS, dtype="float32", shape=["grasps", COLUMNS], unit="m", frame="ref"
            ),
            TensorSpec(
                name=POSES_CAMERA, dtype="float64", shape=["grasps", 4, 4], unit="m", frame="ref"
            ),
            TensorSpec(
                name=POSES_BASE, dtype="float64", shape=["grasps", 4, 4], unit="m", frame="base"
            ),
            TensorSpec(name=COUNTS, dtype="int64", shape=[3]),
            TensorSpec(name=CORRECTION, dtype="float64", shape=[4, 4], unit="m", frame="ref"),
        ]

    def infer(self, request: Tensors) -> GraspAnswer:
        """Finds the grasps of one request.

        Raises:
            TensorError: A tensor is missing or unknown.
            ImplausibleError: One is there and cannot be so.
        """
        started_ns = time.monotonic_ns()
        views = self.read(request)
        seen = prepare(views.clouds, views.poses_in_ref, self.how)
        prepared_ns = time.monotonic_ns()
        if seen.points is None:
            return GraspAnswer(
                grasps=no_grasps(seen.nothing),
                views=views,
                seen=seen,
                tensors={},
                prepare_ns=prepared_ns - started_ns,
            )
        outputs = self._run({self._points: seen.points})
        ran_ns = time.monotonic_ns()
        grasps = decode(outputs, seen.observed, self.decoding, len(seen.points))
        tensors = {
            EMBEDDING: outputs[self.decoding.embedding],
            SEED_EMBEDDING: outputs[self.decoding.seed_embedding],
            COUNTS: np.array([grasps.hypotheses, grasps.free, grasps.views], np.int64),
        }
        if seen.correction is not None:
            tensors[CORRECTION] = seen.correction
        if not grasps.nothing:
            tensors[GRASPS] = grasps.rows
            tensors[POSES_CAMERA] = grasps.poses_in_camera()
            if views.pose_camera_in_base is not None:
                tensors[POSES_BASE] = grasps.poses_in_base(views.pose_camera_in_base)
        return GraspAnswer(
            grasps=grasps,
            views=views,
            seen=seen,
            tensors=tensors,
            prepare_ns=prepared_ns - started_ns,
            model_ns=ran_ns - prepared_ns,
            decode_ns=time.monotonic_ns() - ran_ns,
        )

    def read(self, request: Tensors) -> Views:
        """Checks a request and turns depth into points.

        Raises:
            TensorError: A tensor is missing or unknown.
            ImplausibleError: One is there and cannot be so.
        """
        check_names(request)
        relative, base = request.get(RELATIVE_POSE), request.get(BASE_POSE)
        poses = [np.eye(4)]
        if relative is not None:
            poses.append(check_pose(relative, RELATIVE_POSE, "relative_pose", FARTHEST_VIEW_M))
        if CLOUD in request:
            names = [name for name in (CLOUD, CLOUD_AUX) if name in request]
            clouds = [check_cloud(request[name], _view(name, names)) for name in names]
        else:
            names = [name for name in (DEPTH, DEPTH_AUX) if name in request]
            clouds = self._project(request, names)
        if len(clouds) > 1:
            check_views_agree(clouds, poses[1])
        return Views(
            clouds=clouds,
            poses_in_ref=poses,
            pose_camera_in_base=None
            if base is None
            else check_pose(base, BASE_POSE, "base_pose", FARTHEST_BASE_M),
        )

    def _project(self, request: Tensors, names: list[str]) -> list[Float32]:
        intrinsics = _each_view(request[INTRINSICS], len(names))
        scale = _scale(request.get(DEPTH_SCALE))
        clouds = []
        for name, matrix in zip(names, intrinsics, strict=True):
            view = _view(name, names)
            depth = metres(request[name], scale, view)
            height, width = depth.shape
            k = check_intrinsics(matrix, width, height, view)
            clouds.append(depth_points(depth, k, self.how))
        return clouds


def check_names(request: Mapping[str, object]) -> None:
    """Whether a request's tensors are, together, one or two views.

    Raises:
        TensorError: One is missing, unknown, or does not go with another.
    """
    known = {spec.name for spec in INPUTS}
    wanted = (
        f"wanted {DEPTH} and {INTRINSICS}, or {CLOUD}; with a second view {DEPTH_AUX} or "
        f"{CLOUD_AUX}, and {RELATIVE_POSE}; {DEPTH_SCALE} and {BASE_POSE} where they are known"
    )
    found = ", ".join(sorted(request)) or "no tensors"
    if not known.issuperset(request):
        unknown = ", ".join(sorted(set(request) - known))
        raise TensorError(f"unknown tensor {unknown} among {found}", wanted)
    if (DEPTH in request) == (CLOUD in request):
        raise TensorError(f"found {found}", wanted)
    is_cloud = CLOUD in request
    stray = {DEPTH_AUX, INTRINSICS, DEPTH_SCALE} if is_cloud else {CLOUD_AUX}
    if stray.intersection(request):
        raise TensorError(f"found {found}: depth and clouds together", wanted)
    if not is_cloud and INTRINSICS not in request:
        raise TensorError(f"{INTRINSICS} are missing, found {found}", wanted)
    second = (CLOUD_AUX if is_cloud else DEPTH_AUX) in request
    if second != (RELATIVE_POSE in request):
        missing = RELATIVE_POSE if second else (CLOUD_AUX if is_cloud else DEPTH_AUX)
        raise TensorError(f"{missing} is missing, found {found}", wanted)


def _view(name: str, names: list[str]) -> str:
    """How a view is called in messages; nothing where it is the only one."""
    if len(names) == 1:
        return ""
    return "the reference view" if name in (DEPTH, CLOUD) else "the auxiliary view"


def _each_view(intrinsics: Array, count: int) -> Array:
    """One matrix a view; (3, 3) stands for all of them."""
    if intrinsics.ndim == 2:
        return np.repeat(intrinsics[None], count, axis=0)
    if intrinsics.ndim != 3 or len(intrinsics) != count:
        raise TensorError(
            f"{INTRINSICS} have shape {list(intrinsics.shape)} for {count} view(s), wanted "
            f"[{count}, 3, 3]"
        )
    return intrinsics


def _scale(scale: Array | None) -> float | None:
    if scale is None:
        return None
    value = float(scale.reshape(-1)[0]) if scale.size == 1 and scale.dtype.kind in "fiu" else 0.0
    if not 0 < value < np.inf:
        raise TensorError(
            f"{DEPTH_SCALE} is {scale.reshape(-1)[:4].tolist()}, wanted one number above 0: metres "
            "of one unit of depth"
        )
    return value
