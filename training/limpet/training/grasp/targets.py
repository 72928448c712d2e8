"""What the labels of a scene say of seeds, in a frame that may be turned.

Labels know approach directions of an object's frame; turned by its pose they lie between the 300
directions that the network scores. Each of these takes the labelled direction nearest to it. A
grasp, however, is judged in the exact frame of its label, so that angles and depths are the
label's own.

Dimension legend: n objects of a scene, P grasp points of all of them, s seeds, t approaches,
V = 300 directions, A = 12 angles, D = 4 depths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.grasp_frames import (
    ANGLES,
    DEPTHS,
    VIEWS,
    approach_directions,
    nearest_view,
    rotation_of,
)
from limpet.training.grasp.graspnet import GRASPABLE_TENTHS, GraspNet, unpack
from limpet.training.grasp.matching import MAX_WIDTH_M, NO_OBJECT, score_of

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]

_EACH = ANGLES * DEPTHS
_ROWS_AT_ONCE = 256
_SMOOTH_DEG = 15.0
"""How far around a direction its neighbours speak for it when the best is sought: counts are small
and many directions share the highest."""


@dataclass(frozen=True, eq=False)
class Graded:
    """Candidates of seeds in chosen directions.

    Attributes:
        score: 1 for the lowest friction, 0 where none holds, it collides or is too wide.
            (s, t, A, D)
        width_m: Opening of the gripper. (s, t, A, D)
        frames: Approach, closing direction at angle 0, height, as columns. (s, t, 3, 3)
    """

    score: Float32
    width_m: Float32
    frames: Float32


class SceneLabels:
    """Labels of one scene; candidates are read from the files when they are asked for.

    Args:
        data: The data set.
        scene: Number of the scene.
    """

    def __init__(self, data: GraspNet, scene: int) -> None:
        self.scene = scene
        self._labels = [data.labels(object_id) for object_id in data.objects(scene)]
        self._bits = data.collision_bits(scene)
        self._first = np.cumsum([0, *(len(each.points) for each in self._labels)])
        self.shares = self._count_shares()
        self.best = _best_directions(self.shares)

    def _count_shares(self) -> NDArray[np.uint8]:
        """Of each grasp point and direction, how many of the 48 candidates hold. (P, V)"""
        counts = np.zeros((int(self._first[-1]), VIEWS), np.uint8)
        for labels, bits, first in zip(self._labels, self._bits, self._first[:-1], strict=True):
            for start in range(0, len(bits), _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                friction = labels.friction[rows].reshape(-1, VIEWS, _EACH)
                holds = (friction > 0) & (friction <= GRASPABLE_TENTHS)
                holds &= labels.width_m[rows].reshape(-1, VIEWS, _EACH) <= MAX_WIDTH_M
                holds &= ~unpack(bits[rows]).reshape(-1, VIEWS, _EACH)
                counts[first + start : first + start + len(holds)] = holds.sum(-1)
        return counts

    def rows(self, owner: Indices, grasp_point: Indices) -> Indices:
        """Place of each grasp point among those of the whole scene; 0 without an object. (s,)"""
        return np.where(owner == NO_OBJECT, 0, self._first[owner] + grasp_point)

    def sources(self, rotations: Float64) -> Indices:
        """Which labelled direction each of the network's takes. (n, 3, 3) → (n, V)"""
        return nearest_view(approach_directions() @ rotations)  # in the objects' frames

    def places(
        self, owner: Indices, grasp_point: Indices, rotations: Float64, origins: Float64
    ) -> Float32:
        """Where grasp points are in the network's frame; 0 without an object. (s, 3)

        Args:
            owner: Object of each, `NO_OBJECT` for none. (s,)
            grasp_point: Which of that object. (s,)
            rotations: Of each object in that frame. (n, 3, 3)
            origins: The same. (n, 3)
        """
        points = np.zeros((len(owner), 3))
        for index in np.unique(owner[owner != NO_OBJECT]):
            mine = owner == index
            within = self._labels[index].points[grasp_point[mine]]
            points[mine] = within @ rotations[index].T + origins[index]
        return points.astype(np.float32)

    def view_scores(self, owner: Indices, grasp_point: Indices, sources: Indices) -> Float32:
        """Share of the candidates in each direction that hold, scaled to 0 … 1 for each seed.

        Source: GSNet (Wang et al., ICCV 2021), whose view-wise graspness is scaled at each point.

        Returns:
            0 without an object. (s, V)
        """
        rows = self.rows(owner, grasp_point)
        counts = self.shares[rows[:, None], sources[owner]].astype(np.float32)
        low, high = counts.min(1, keepdims=True), counts.max(1, keepdims=True)
        scaled: Float32 = (counts - low) / np.maximum(high - low, 1.0)
        scaled[owner == NO_OBJECT] = 0.0
        return scaled

    def grade(
        self,
        owner: Indices,
        grasp_point: Indices,
        views: Indices,
        sources: Indices,
        rotations: Float64,
    ) -> Graded:
        """Candidates of seeds in some of the network's directions.

        Args:
            owner: Object of each seed, `NO_OBJECT` for none. (s,)
            grasp_point: Its nearest grasp point. (s,)
            views: Indices of the network's directions. (s, t)
            sources: As `sources` gives them. (n, V)
            rotations: Of each object in the network's frame. (n, 3, 3)
        """
        s, t = views.shape
        score = np.zeros((s, t, ANGLES, DEPTHS), np.float32)
        width = np.zeros((s, t, ANGLES, DEPTHS), np.float32)
        frames = _ZERO_FRAMES[views]
        for index in np.unique(owner[owner != NO_OBJECT]):
            mine = np.flatnonzero(owner == index)
            labels, bits = self._labels[index], self._bits[index]
            source, row = sources[index][views[mine]], grasp_point[mine][:, None]
            width[mine] = labels.width_m[row, source]
            taken = bits.reshape(len(bits), VIEWS, _EACH // 8)[row, source]
            free = ~np.unpackbits(taken, axis=-1).view(np.bool_).reshape(-1, t, ANGLES, DEPTHS)
            holds = score_of(labels.friction[row, source])
            score[mine] = holds * (free & (width[mine] <= MAX_WIDTH_M))
            frames[mine] = rotations[index] @ _ZERO_FRAMES[source]
        return Graded(score, width, frames.astype(np.float32))


_ZERO_FRAMES: Float64 = rotation_of(approach_directions(), np.zeros(VIEWS))
_ZERO_FRAMES.setflags(write=False)


def _best_directions(shares: NDArray[np.uint8]) -> Float32:
    """Direction of the object's frame from which each grasp point is grasped best. (P, 3)

    Any at all where no candidate holds.
    """
    mine = approach_directions()
    angle = np.rad2deg(np.arccos(np.clip(mine @ mine.T, -1.0, 1.0)))
    near = np.exp(-0.5 * (angle / _SMOOTH_DEG) ** 2).astype(np.float32)
    best: Float32 = mine[np.argmax(shares.astype(np.float32) @ near, axis=1)].astype(np.float32)
    return best
