"""Points of a view and the grasp labels of the objects that they lie on.

What a point is (object or table), how graspable it is, and which grasp point is nearest to it;
`targets` reads that one's candidates.

Dimension legend: m points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from limpet.contracts.grasp_frames import inverse_pose, transform_points
from limpet.contracts.grippers import Gripper
from limpet.training.grasp.graspnet import Frame, GraspNet
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


def score_of(friction_tenths: NDArray[np.uint8]) -> Float32:
    """1 for a friction of 0.1, falling by 1/12 a tenth, 0 where none holds (0); same shape."""
    tenths = friction_tenths.astype(np.float32)
    return np.where((tenths > 0) & (tenths < 13), (13 - tenths) / 12, np.float32(0))


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
