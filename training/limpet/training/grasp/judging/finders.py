"""Ways to grasps from views of a scene: a model in its three arms, and the control without one.

    two            both views, fused inside the network
    one            the reference view alone, with the same weights
    prefusion      both views' clouds merged outside into one, with the same weights
    antipodal_two  the antipodal sampler on both views' cloud
    antipodal_one  the same on the reference view's

Dimension legend: g grasps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.clouds import CloudPreprocessing, PreparedCloud, depth_points, prepare
from limpet.contracts.grasp_frames import transform_points
from limpet.contracts.grasp_model import (
    CLOUD,
    DEPTH,
    DEPTH_AUX,
    INTRINSICS,
    RELATIVE_POSE,
    GraspModel,
)
from limpet.contracts.grasps import COLUMNS
from limpet.contracts.tensors import Tensors
from limpet.training.grasp.graspnet import Frame
from limpet.training.grasp.judging.antipodal import AntipodalConfig, sample_antipodal
from limpet.training.grasp.samples import poses_in_reference

Arm = Literal["two", "one", "prefusion", "antipodal_two", "antipodal_one"]
ARMS: tuple[Arm, ...] = get_args(Arm)
ONE_VIEW: tuple[Arm, ...] = ("one", "antipodal_one")
"""Arms that do without the auxiliary view."""


@dataclass(frozen=True, eq=False)
class Found:
    """What one way found in one view.

    Attributes:
        rows: Grasps in the reference camera's frame, best first. (g, 17)
        prepare_ms, model_ms, decode_ms: Time of sampling, network and decoding.
    """

    rows: NDArray[Any]
    prepare_ms: float
    model_ms: float
    decode_ms: float


Finder = Callable[[Sequence[Frame]], Found]
"""Grasps of one view or two, the first of them the reference."""


def make_finder(arm: Arm, model: GraspModel) -> Finder:
    """The way of an arm. The control takes the model's preprocessing, and nothing else of it."""
    if arm in ("antipodal_one", "antipodal_two"):
        return lambda frames: find_antipodal(frames, model.how)

    def find(frames: Sequence[Frame]) -> Found:
        answer = model.infer(request_of(frames, model.how, merged=arm == "prefusion"))
        times = (answer.prepare_ns, answer.model_ns, answer.decode_ns)
        return Found(answer.grasps.rows, *(one / 1e6 for one in times))

    return find


def request_of(frames: Sequence[Frame], how: CloudPreprocessing, *, merged: bool) -> Tensors:
    """What a model takes of one view or two; `merged`: as one cloud."""
    if merged:
        clouds = [
            transform_points(depth_points(frame.depth_m, frame.intrinsics, how), pose)
            for frame, pose in zip(frames, poses_in_reference(frames), strict=True)
        ]
        return {CLOUD: np.concatenate(clouds)}
    request: dict[str, NDArray[Any]] = {
        DEPTH: frames[0].depth_m,
        INTRINSICS: np.stack([frame.intrinsics for frame in frames]),
    }
    if len(frames) > 1:
        request[DEPTH_AUX] = frames[1].depth_m
        request[RELATIVE_POSE] = poses_in_reference(frames)[1]
    return request


def find_antipodal(frames: Sequence[Frame], how: CloudPreprocessing) -> Found:
    """Grasps of the control."""
    started = time.perf_counter()
    clouds = [depth_points(frame.depth_m, frame.intrinsics, how) for frame in frames]
    seen = prepare(clouds, poses_in_reference(frames), how)
    prepared = time.perf_counter()
    rows = antipodal_rows(seen, how)
    return Found(rows, 1e3 * (prepared - started), 0.0, 1e3 * (time.perf_counter() - prepared))


def antipodal_rows(
    seen: PreparedCloud, how: CloudPreprocessing, config: AntipodalConfig | None = None
) -> NDArray[np.float64]:
    """Grasps of the control on a prepared cloud; none where there is nothing to grasp. (g, 17)"""
    points = foreground(seen, how)
    if not len(points):
        return np.zeros((0, COLUMNS))
    # Without a table the sight's own way is the only one known to be free.
    up = np.array([0.0, 0.0, -1.0]) if seen.plane is None else seen.plane.normal
    return sample_antipodal(points, seen.observed, up, config)


def foreground(seen: PreparedCloud, how: CloudPreprocessing) -> NDArray[np.float64]:
    """Points of all views that stand out of the table, each once. (n, 3)"""
    if seen.points is None:
        return np.zeros((0, 3))
    points = np.unique(seen.points.reshape(-1, 3).astype(np.float64), axis=0)
    return points if seen.plane is None else points[seen.plane.heights(points) > how.lowest_m]
