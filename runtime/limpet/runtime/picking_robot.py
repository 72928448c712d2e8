"""A picking robot's node: sends what its depth cameras see, and gets gripper poses.

with PickingRobot("tcp://127.0.0.1:7730") as robot:
    found = robot.grasp("grasp", depth, intrinsics, pose_camera_in_base=pose)
    if found.nothing:
        print("no grasp:", found.nothing)
    else:
        arm.move_to(found.poses_base[0], opening_m=found.widths_m[0])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from limpet.contracts import grasp_model as wire
from limpet.contracts import messages
from limpet.contracts.errors import UsageError
from limpet.contracts.grasps import COLUMNS, SCORE, WIDTH
from limpet.contracts.tensors import Array, Tensors
from limpet.runtime.client import RobotClient


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundGrasps:
    """What a server found to grasp, score descending.

    Attributes:
        rows: GraspNet rows in the reference camera's frame. float32 (g, 17)
        poses_camera: Poses of the gripper in that frame; x axis: approach. (g, 4, 4)
        poses_base: The same in the robot's base frame; None where the camera's pose was not sent.
            (g, 4, 4)
        nothing: Why there is none: `out_of_reach`, `empty_table`, `none_holds` or what a later
            server may say; empty where there is one.
        embedding: Of the scene, unit length; None where nothing stood out.
        seed_embedding: Of each seed, rows of unit length. (s, size)
        hypotheses: Grasps that were looked at.
        free: How many of them fit around what was seen.
        views: Views that showed something to grasp.
        correction: How registering moved the second view's points, in the reference camera's frame:
            p_ref = correction · pose_aux_in_ref · p_aux. None where there is one view, or the
            views showed too little of the same. (4, 4)
        space_id: The embedding space.
        engine: What computed them.
        queue_s: Wait in the server.
        inference_s: Preprocessing, engine and decoding.
    """

    rows: NDArray[np.float32]
    poses_camera: NDArray[np.float64]
    poses_base: NDArray[np.float64] | None
    nothing: str
    embedding: NDArray[np.float32] | None
    seed_embedding: NDArray[np.float32] | None
    hypotheses: int
    free: int
    views: int
    correction: NDArray[np.float64] | None
    space_id: str
    engine: str
    queue_s: float
    inference_s: float

    @property
    def scores(self) -> NDArray[np.float32]:
        """0 to 1. (g,)"""
        return self.rows[:, SCORE]

    @property
    def widths_m(self) -> NDArray[np.float32]:
        """Openings of the gripper. (g,)"""
        return self.rows[:, WIDTH]


class PickingRobot(RobotClient):
    """A robot node that asks what to grasp, one scene at a time."""

    def grasp(
        self,
        model: str,
        depth: NDArray[Any],
        intrinsics: NDArray[Any] | None = None,
        *,
        depth_aux: NDArray[Any] | None = None,
        intrinsics_aux: NDArray[Any] | None = None,
        pose_aux_in_ref: NDArray[Any] | None = None,
        pose_camera_in_base: NDArray[Any] | None = None,
        depth_scale: float | None = None,
        capture_time_ns: int | None = None,
        max_age_s: float | None = None,
        timeout_s: float = 5.0,
    ) -> FoundGrasps:
        """Finds grasps in one or two views.

        Args:
            model: Name of a served grasp model.
            depth: Image of the reference view (H, W), or its cloud (n, 3) without `intrinsics`.
            intrinsics: Of the reference camera, pixels. (3, 3)
            depth_aux: The same of an auxiliary view.
            intrinsics_aux: Of its camera; None: the same. (3, 3)
            pose_aux_in_ref: p_ref = pose · p_aux. (4, 4)
            pose_camera_in_base: Of the reference camera, for poses in the base frame. (4, 4)
            depth_scale: Metres of one unit; by default 0.001 for integers and 1 for floats.
            capture_time_ns: When depth was measured, on this host's clock (Unix ns).
            max_age_s: Oldest scene still worth an answer.
            timeout_s: Longest wait for the reply.

        Raises:
            UsageError: An auxiliary view without its pose.
            RequestTimeoutError, StaleReplyError, RejectedError, FailedError: No answer, and why;
                `RejectedError.cause` names what cannot be so.
        """
        if (depth_aux is None) != (pose_aux_in_ref is None):
            raise UsageError("an auxiliary view and its pose go together")
        inputs = _inputs(depth, depth_aux, intrinsics, intrinsics_aux)
        for name, array in (
            (wire.RELATIVE_POSE, pose_aux_in_ref),
            (wire.BASE_POSE, pose_camera_in_base),
            (wire.DEPTH_SCALE, None if depth_scale is None else [depth_scale]),
        ):
            if array is not None:
                inputs[name] = np.asarray(array, np.float64)
        if capture_time_ns is not None:
            capture_time_ns = self.server_time_ns(capture_time_ns, timeout_s)
        reply, outputs = self.request(
            messages.Infer(
                id=self.next_id(),
                model=model,
                capture_time_ns=capture_time_ns,
                max_age_ns=None if max_age_s is None else round(max_age_s * 1e9),
            ),
            messages.Result,
            timeout_s,
            inputs,
        )
        return _found(reply, outputs)


def _inputs(
    depth: NDArray[Any],
    depth_aux: NDArray[Any] | None,
    intrinsics: NDArray[Any] | None,
    intrinsics_aux: NDArray[Any] | None,
) -> dict[str, Array]:
    if intrinsics is None:
        inputs: dict[str, Array] = {wire.CLOUD: depth}
        if depth_aux is not None:
            inputs[wire.CLOUD_AUX] = depth_aux
        return inputs
    matrices = [intrinsics]
    inputs = {wire.DEPTH: depth}
    if depth_aux is not None:
        inputs[wire.DEPTH_AUX] = depth_aux
        matrices.append(intrinsics if intrinsics_aux is None else intrinsics_aux)
    inputs[wire.INTRINSICS] = np.stack([np.asarray(matrix, np.float64) for matrix in matrices])
    return inputs


def _found(reply: messages.Result, outputs: Tensors) -> FoundGrasps:
    hypotheses, free, views = (int(n) for n in outputs.get(wire.COUNTS, np.zeros(3, np.int64)))
    none = np.zeros((0, 4, 4))
    nothing = "" if reply.nothing is UNSET else reply.nothing
    return FoundGrasps(
        rows=outputs.get(wire.GRASPS, np.zeros((0, COLUMNS), np.float32)),
        poses_camera=outputs.get(wire.POSES_CAMERA, none),
        poses_base=outputs.get(wire.POSES_BASE),
        nothing=nothing,
        embedding=outputs.get(wire.EMBEDDING),
        seed_embedding=outputs.get(wire.SEED_EMBEDDING),
        hypotheses=hypotheses,
        free=free,
        views=views,
        correction=outputs.get(wire.CORRECTION),
        space_id=reply.space_id,
        engine=reply.engine,
        queue_s=reply.queue_ns / 1e9,
        inference_s=reply.inference_ns / 1e9,
    )
