"""Which views of a scene are judged, and which of them are hard.

A second camera looks on the scene from the side: of the other views the one whose line of sight is
nearest to a right angle with the reference's. A view is a *corner* where little of what could be
grasped is seen: the share of the scene's graspable label points that the reference camera sees. It
follows from the scene alone, not from how any method does.

Dimension legend: P grasp points, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from limpet.contracts.grasp_frames import inverse_pose, transform_points
from limpet.training.grasp.graspnet import Frame, GraspNet

AUXILIARY_ANGLE_DEG = 90.0
"""Between the lines of sight of reference and auxiliary view: what one does not see, the other
does."""

CORNER_SHARE = 0.2
"""Part of a split's views that are its corners: those that see least."""

SEEN_WITHIN_M = 0.01
"""How far behind the depth image's surface a point may be and still count as seen."""


@dataclass(frozen=True)
class ViewPair:
    """A view that is judged, and the one that helps it.

    Attributes:
        scene: Number of the scene.
        reference: Number of the view that grasps are in.
        auxiliary: Number of the other; None where the scene has one view.
        visible: Share of the scene's graspable points that the reference sees, 0 to 1.
    """

    scene: int
    reference: int
    auxiliary: int | None
    visible: float


def view_pairs(data: GraspNet, scene: int, views: int | None = None) -> list[ViewPair]:
    """The views of a scene that are judged.

    Args:
        data: The data set.
        scene: Number of the scene.
        views: How many, evenly spaced; None is all of them.
    """
    there = data.views(scene)
    count = len(there) if views is None else min(views, len(there))
    chosen = [there[index * len(there) // count] for index in range(count)]
    sights = {view: data.pose(scene, view)[:3, 2] for view in there}
    return [
        ViewPair(
            scene=scene,
            reference=view,
            auxiliary=auxiliary_view(view, sights),
            visible=visible_share(data, data.frame(scene, view)),
        )
        for view in chosen
    ]


def auxiliary_view(reference: int, sights: Mapping[int, NDArray[np.float64]]) -> int | None:
    """The view that helps another; None where there is none.

    Args:
        reference: Number of the other.
        sights: Line of sight of each view of the scene, of unit length. (3,) each
    """
    wanted = np.cos(np.deg2rad(AUXILIARY_ANGLE_DEG))
    others = [view for view in sights if view != reference]
    return min(
        others,
        key=lambda view: abs(float(sights[view] @ sights[reference]) - wanted),
        default=None,
    )


def visible_share(data: GraspNet, frame: Frame) -> float:
    """Share of the scene's graspable label points that a view sees; 0 where there is none."""
    seen = total = 0
    for object_id, pose, shares in zip(
        frame.object_ids,
        frame.pose_object_in_camera,
        data.graspable_shares(frame.scene),
        strict=True,
    ):
        points = data.labels(object_id).points[shares > 0]
        seen += int(np.count_nonzero(is_seen(transform_points(points, pose), frame)))
        total += len(points)
    return seen / total if total else 0.0


def is_seen(points: NDArray[np.floating], frame: Frame) -> NDArray[np.bool_]:
    """Whether the depth image shows each point: it is not behind what the camera saw. (P,)"""
    pixels = points @ frame.intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        where = np.rint(pixels[:, :2] / pixels[:, 2:])
    height, width = frame.depth_m.shape
    inside = (points[:, 2] > 0) & np.all((where >= 0) & (where < [width, height]), axis=1)
    columns, rows = np.where(inside[:, None], where, 0).astype(np.intp).T
    depth = frame.depth_m[rows, columns]
    found: NDArray[np.bool_] = inside & (depth > 0) & (points[:, 2] <= depth + SEEN_WITHIN_M)
    return found


def corners(pairs: Sequence[ViewPair]) -> set[tuple[int, int]]:
    """Scene and reference of the views that see least, at least one of them."""
    count = max(1, round(CORNER_SHARE * len(pairs))) if pairs else 0
    ranked = sorted(pairs, key=lambda pair: (pair.visible, pair.scene, pair.reference))
    return {(pair.scene, pair.reference) for pair in ranked[:count]}


def with_pose_error(frame: Frame, factor: float) -> Frame:
    """A view whose known pose errs so many times as much as it does; 0: not at all."""
    if factor == 1.0:
        return frame
    true = frame.true_pose_camera_in_scene
    off = inverse_pose(true) @ frame.pose_camera_in_scene
    scaled = np.eye(4)
    turn = Rotation.from_matrix(off[:3, :3]).as_rotvec()
    scaled[:3, :3] = Rotation.from_rotvec(factor * turn).as_matrix()
    scaled[:3, 3] = factor * off[:3, 3]
    return replace(frame, pose_camera_in_scene=true @ scaled)
