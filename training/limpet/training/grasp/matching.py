"""Points of a view and the grasp labels of the objects that they lie on.

What a point is (object or table), how graspable it is, and the 300 × 12 × 4 candidates of its
nearest grasp point, turned into the camera's frame.

Labels know approach directions of the object's frame. Turned by its pose they fall between the
camera frame's 300 directions: each of these takes the candidates of the turned direction nearest to
it, as GraspNet-baseline does, and the turns about the approach are counted from *this* direction's
own zero, so that a candidate's (direction, turn, depth) means in the camera frame what
`limpet.contracts.grasp_frames` says, within half a step. The exact rotation is returned as well.

Dimension legend: m points, k chosen ones, n objects, P grasp points, V = 300 directions, A = 12
turns, D = 4 depths.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from limpet.contracts.grasp_frames import (
    ANGLES,
    ANGLES_RAD,
    DEPTHS,
    VIEWS,
    approach_directions,
    inverse_pose,
    rotation_of,
    transform_points,
)
from limpet.contracts.grippers import Gripper
from limpet.training.grasp.graspnet import Frame, GraspNet, unpack
from limpet.training.grasp.surfaces import Surface

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

NO_OBJECT = -1
"""Object index of a point on the table, or on nothing."""

MAX_WIDTH_M = Gripper().opening_m
"""Widest opening of the gripper: a candidate that needs more is none."""


@dataclass(frozen=True, eq=False)
class Matches:
    """What points of a view are.

    Attributes:
        object_index: Which of the frame's objects a point lies on, else `NO_OBJECT`. (m,)
        grasp_point: Index of that object's nearest grasp point, -1 without. (m,)
        graspness: Share of that point's candidates that hold, scaled so that the points given span
            0 to 1; 0 without an object. (m,)
    """

    object_index: NDArray[np.intp]
    grasp_point: NDArray[np.intp]
    graspness: Float32

    @property
    def objectness(self) -> NDArray[np.bool_]:
        """Whether a point lies on an object. (m,)"""
        on_object: NDArray[np.bool_] = self.object_index != NO_OBJECT
        return on_object


@dataclass(frozen=True, eq=False)
class GraspTargets:
    """Candidates of chosen points, in the camera's frame.

    Attributes:
        score: `score_of` the friction; 0 where none holds, it collides, or is too wide.
            (k, V, A, D)
        width_m: Opening of the gripper. (k, V, A, D)
        rotation: The gripper's exact rotation at turn 0 of each direction: column 0 is the label's
            own direction, next to `approach_directions()[v]`; turn a is `ANGLES_RAD[a]` about it,
            up to half a revolution, which a two-finger gripper does not tell. (k, V, 3, 3)
    """

    score: Float32
    width_m: Float32
    rotation: Float32


def score_of(friction_tenths: NDArray[np.uint8]) -> Float32:
    """1 for a friction of 0.1, falling by 1/12 a tenth, and 0 where none holds."""
    tenths = friction_tenths.astype(np.float32)
    return np.where((tenths > 0) & (tenths < 13), (13 - tenths) / 12, np.float32(0))


def turned_views(rotation: Float64) -> tuple[NDArray[np.intp], NDArray[np.intp], Float64]:
    """How labels of an object become labels of a camera's frame.

    Args:
        rotation: Of the object in the camera. (3, 3)

    Returns:
        For each direction of the camera's frame: index of the label's direction (V,), which turn
        of the label each turn is (V, A), and the exact rotation at turn 0 (V, 3, 3).
    """
    mine = approach_directions()
    # Of all labelled directions, turned, the one nearest to each of the camera's.
    source = np.argmax(mine @ (rotation @ mine.T), axis=1)  # (V,)
    zero = rotation @ rotation_of(mine[source], np.zeros(VIEWS))  # (V, 3, 3)
    frame = rotation_of(mine, np.zeros(VIEWS))
    # Counted from this direction's zero: near the camera's axis neighbours' zeros differ widely.
    ahead = np.einsum("vj,vjk->vk", zero[:, :, 1], frame)  # the label's closing direction
    steps = np.rint(np.arctan2(ahead[:, 2], ahead[:, 1]) / ANGLES_RAD[1]).astype(np.intp)
    turns = (np.arange(ANGLES) - steps[:, None]) % ANGLES  # (V, A)
    angle = -steps * ANGLES_RAD[1]
    exact = rotation @ rotation_of(mine[source], angle)
    return source, turns, exact


class Matcher:
    """Matches points of views with the labels of a data set.

    Args:
        data: The data set.
        tolerance_m: How far off its surface a point may be and still be the object's: noise of a
            depth camera.
    """

    def __init__(self, data: GraspNet, tolerance_m: float = 0.006) -> None:
        self._data, self._tolerance_m = data, tolerance_m
        self._surface = lru_cache(maxsize=None)(self._make_surface)
        self._tree = lru_cache(maxsize=None)(self._make_tree)
        self._shares = lru_cache(maxsize=256)(data.graspable_shares)

    def match(self, frame: Frame, points: NDArray[Any]) -> Matches:
        """What points are.

        A point belongs to the nearest surface, an object's or the table's, if that is within the
        tolerance.

        Args:
            frame: The view.
            points: In the camera's frame, m. (m, 3)
        """
        points = np.asarray(points, np.float64)
        height = np.abs(transform_points(points, frame.pose_camera_in_table)[:, 2])
        nearest = np.minimum(height, self._tolerance_m)
        owner = np.full(len(points), NO_OBJECT)
        within = [
            transform_points(points, inverse_pose(pose)) for pose in frame.pose_object_in_camera
        ]  # in each object's frame
        for index, object_id in enumerate(frame.object_ids):
            distance = self._surface(object_id).distances(within[index], self._tolerance_m)
            closer = distance < nearest
            nearest[closer], owner[closer] = distance[closer], index
        grasp_point = np.full(len(points), -1)
        share = np.zeros(len(points), np.float32)
        shares = self._shares(frame.scene)
        for index, object_id in enumerate(frame.object_ids):
            mine = owner == index
            if mine.any():
                _, found = self._tree(object_id).query(within[index][mine])
                grasp_point[mine], share[mine] = found, shares[index][found]
        return Matches(owner, grasp_point, _scaled(share, owner != NO_OBJECT))

    def targets(self, frame: Frame, matches: Matches, chosen: NDArray[Any]) -> GraspTargets:
        """Candidates of some points; all zero for one without an object.

        Args:
            frame: The view.
            matches: Of its points.
            chosen: Indices of points. (k,)
        """
        shape = (len(chosen), VIEWS, ANGLES, DEPTHS)
        score, width = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        rotation: Float32 = np.empty((*shape[:2], 3, 3), np.float32)
        rotation[:] = rotation_of(approach_directions(), np.zeros(VIEWS))
        owner, grasp_point = matches.object_index[chosen], matches.grasp_point[chosen]
        bits = self._data.collision_bits(frame.scene)
        for index in np.unique(owner[owner != NO_OBJECT]):
            mine = np.flatnonzero(owner == index)
            labels = self._data.labels(frame.object_ids[index])
            # Several chosen points often share a grasp point: each is read once, in file order.
            rows, back = np.unique(grasp_point[mine], return_inverse=True)
            view, turn, exact = turned_views(frame.pose_object_in_camera[index, :3, :3])
            free = ~unpack(bits[index][rows]).reshape(-1, VIEWS, ANGLES, DEPTHS)
            opening = labels.width_m[rows].astype(np.float32)
            value = score_of(labels.friction[rows]) * (free & (opening <= MAX_WIDTH_M))
            at = (slice(None), view[:, None], turn)
            score[mine], width[mine] = value[at][back], opening[at][back]
            rotation[mine] = exact
        return GraspTargets(score, width, rotation)

    def _make_surface(self, object_id: int) -> Surface:
        return Surface(*self._data.mesh(object_id))

    def _make_tree(self, object_id: int) -> cKDTree:
        return cKDTree(self._data.labels(object_id).points)


def _scaled(share: Float32, on_object: NDArray[np.bool_]) -> Float32:
    """Shares of the points on objects, min-max scaled; 0 for the others.

    Source: GSNet (Wang et al., ICCV 2021), whose graspness is scaled over each view.
    """
    if not on_object.any():
        return np.zeros_like(share)
    low, high = share[on_object].min(), share[on_object].max()
    span = high - low if high > low else np.float32(1)
    return np.where(on_object, (share - low) / span, 0).astype(np.float32)
