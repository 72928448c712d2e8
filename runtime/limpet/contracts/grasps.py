"""From a grasp model's outputs to grasps that fit around what was seen.

A row has GraspNet's 17 numbers: score, width, height, depth, rotation (9, row by row), translation
(3), object id (-1: unknown); metres, in the reference camera's frame, x axis the approach.

Dimension legend: s seeds, t approaches of a seed, A angles, D depths, g grasps, n observed points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.clouds import NoGrasp
from limpet.contracts.contacts import slopes_of
from limpet.contracts.grasp_frames import ANGLES_RAD, DEPTHS_M, poses_of, rotation_of
from limpet.contracts.grippers import Gripper, fit_of, place_fingers
from limpet.contracts.tensors import Tensors

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Ints = NDArray[np.intp]

COLUMNS = 17
SCORE, WIDTH, HEIGHT, DEPTH = range(4)
ROTATION, TRANSLATION = slice(4, 13), slice(13, 16)
OBJECT = 16
UNKNOWN_OBJECT = -1.0
MOST_ROWS = 1024


class GraspDecoding(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="grasp"
):
    """Which outputs carry what, and which of the hypotheses become grasps.

    The input is points [views, points, 3], one or two views. The outputs are `embedding` [size],
    `seeds` [s, 3], `seed_embedding` [s, size], `objectness` [s], `graspness` [s],
    `approach` [s, t, 3], `score` [s, t, 12, 4] and `width` [s, t, 12, 4].

    Attributes:
        gripper: Its sizes.
        hypotheses: How many, the best, are looked at.
        per_approach: Most of one seed and approach: the best of its 12 angles, 30° apart, each with
            the best of its 4 depths; at most 4.
        graspness_power: A grasp's score is the graph's, times its seed's graspness · objectness to
            this power: what holds at one point tells little where nothing near it does.
        width_factor: What a width is multiplied by.
        finger_shift_m: How far a finger may move to a place that is free; 0: not at all.
        clearance_m: Room around fingers and base: what was seen is thinned to voxels.
        fewest_held: Observed points between the fingers, or the grip is empty.
        enough_held: Where fewer than these are between them, the score falls in proportion: so
            little is soon missed. 0: it does not.
        square_power: A score is times the cosine of the angle at which the object's outline leans
            against each finger, to this power; 0: outlines do not count.
        nms_translation_m, nms_rotation_rad: Of two grasps nearer than both the better stays.
        rows: Most grasps.
    """

    embedding: str = "embedding"
    seeds: str = "seeds"
    seed_embedding: str = "seed_embedding"
    objectness: str = "objectness"
    graspness: str = "graspness"
    approach: str = "approach"
    score: str = "score"
    width: str = "width"
    gripper: Gripper = Gripper()
    hypotheses: int = 2048
    per_approach: int = 2
    graspness_power: float = 0.5
    width_factor: float = 1.0
    finger_shift_m: float = 0.02
    clearance_m: float = 0.002
    fewest_held: int = 10
    enough_held: int = 40
    square_power: float = 4.0
    nms_translation_m: float = 0.03
    nms_rotation_rad: float = float(np.pi / 6)
    rows: int = MOST_ROWS

    @property
    def names(self) -> list[str]:
        """The outputs' names, in order."""
        return [
            self.embedding, self.seeds, self.seed_embedding, self.objectness, self.graspness,
            self.approach, self.score, self.width,
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Grasps:
    """What a model found to grasp.

    Attributes:
        rows: GraspNet rows, score descending. float32 (g, 17)
        hypotheses: How many were looked at.
        free: How many of them fit around what was seen, with something between the fingers.
        nothing: Why there is none; empty where there is one.
        views: Views that were used.
    """

    rows: Float32
    hypotheses: int = 0
    free: int = 0
    nothing: NoGrasp = ""
    views: int = 0

    def poses_in_camera(self) -> Float64:
        """Poses of the gripper in the reference camera's frame. (g, 4, 4)"""
        return poses_of(rotations_of(self.rows), self.rows[:, TRANSLATION])

    def poses_in_base(self, pose_camera_in_base: Float64) -> Float64:
        """Poses of the gripper in the robot's base frame. (g, 4, 4)"""
        poses: Float64 = pose_camera_in_base @ self.poses_in_camera()
        return poses


def no_grasps(why: NoGrasp, hypotheses: int = 0, views: int = 0) -> Grasps:
    """The named state that there is no grasp."""
    empty = np.zeros((0, COLUMNS), np.float32)
    return Grasps(rows=empty, hypotheses=hypotheses, nothing=why, views=views)


def rotations_of(rows: NDArray[Any]) -> NDArray[Any]:
    """Rotations of rows. (g, 17) → (g, 3, 3)"""
    return rows[:, ROTATION].reshape(-1, 3, 3)


def rows_of(
    score: NDArray[Any],
    width_m: NDArray[Any],
    depth_m: NDArray[Any],
    rotation: NDArray[Any],
    translation_m: NDArray[Any],
    height_m: float,
) -> Float32:
    """Rows of grasps on unknown objects. (g,) thrice, (g, 3, 3), (g, 3) → (g, 17)"""
    rows = np.empty((len(score), COLUMNS), np.float32)
    rows[:, SCORE], rows[:, WIDTH], rows[:, DEPTH] = score, width_m, depth_m
    rows[:, HEIGHT], rows[:, OBJECT] = height_m, UNKNOWN_OBJECT
    rows[:, ROTATION], rows[:, TRANSLATION] = rotation.reshape(-1, 9), translation_m
    return rows


def suppress(
    rows: NDArray[Any], translation_m: float = 0.03, rotation_rad: float = float(np.pi / 6)
) -> Ints:
    """Indices of grasps without those that nearly are a better one, score descending.

    Of two whose points are nearer than `translation_m` and whose rotations differ by less than
    `rotation_rad`, the one of the lower score goes, as in GraspNet's evaluator. (g, 17) → (k,)
    """
    order: Ints = np.argsort(-rows[:, SCORE], kind="stable")
    ranked = rows[order].astype(np.float64)
    rotation, place = ranked[:, ROTATION], ranked[:, TRANSLATION]
    least_trace = 1 + 2 * np.cos(rotation_rad)
    left = np.ones(len(order), bool)
    kept = []
    for index in range(len(order)):
        if not left[index]:
            continue
        kept.append(index)
        offset = place - place[index]
        near = np.einsum("gk,gk->g", offset, offset) < translation_m**2
        trace = np.einsum("gk,k->g", rotation, rotation[index])
        left[near & (trace > least_trace)] = False
    return order[kept]


def hypotheses_of(outputs: Tensors, decoding: GraspDecoding) -> Float32:
    """The best hypotheses of a model's outputs as rows, before any of them is checked. (g, 17)"""
    score = np.asarray(outputs[decoding.score], np.float32)
    s, t = score.shape[:2]
    likely = np.clip(outputs[decoding.graspness], 0, 1) * np.asarray(outputs[decoding.objectness])
    score = score * (likely.astype(np.float32) ** decoding.graspness_power)[:, None, None, None]
    score = score.reshape(s * t, len(ANGLES_RAD), len(DEPTHS_M))
    angles = _best_angles(score.max(2), decoding.per_approach)  # (s t, count)
    of, angle = np.repeat(np.arange(s * t), angles.shape[1]), angles.reshape(-1)
    depth = score[of, angle].argmax(1)
    values = score[of, angle, depth]
    order = np.lexsort((angle, of, -values))[: decoding.hypotheses]
    of, angle, depth = of[order], angle[order], depth[order]
    approach = np.asarray(outputs[decoding.approach]).reshape(s * t, 3)[of]
    width = np.asarray(outputs[decoding.width]).reshape(score.shape)[of, angle, depth]
    return rows_of(
        values[order],
        np.clip(width * decoding.width_factor, 0, decoding.gripper.opening_m),
        DEPTHS_M[depth],
        rotation_of(approach, ANGLES_RAD[angle]),
        np.asarray(outputs[decoding.seeds])[of // t],
        decoding.gripper.height_m,
    )


def _best_angles(scores: Float32, count: int) -> Ints:
    """The best turns about each approach, each at least two steps (30°) from those before: nearer
    ones are the same grasp to whoever suppresses. (s t, A) → (s t, count)
    """
    left = scores.copy()
    each = np.arange(len(left))
    turns = left.shape[1]
    chosen = []
    for _ in range(min(count, turns // 3)):
        best = left.argmax(1)
        chosen.append(best)
        for near in (-1, 0, 1):
            left[each, (best + near) % turns] = -np.inf
    return np.stack(chosen, axis=1)


def fit_rows(rows: Float32, observed: Float32, decoding: GraspDecoding) -> Float32:
    """Those rows whose gripper fits around what was seen, with something between its fingers.

    Fingers may have moved: widths and translations differ then. Scores fall where little is held,
    or where it leans against the fingers. (g, 17) → (k, 17)
    """
    if decoding.finger_shift_m > 0:
        rotation = rotations_of(rows)
        placed = place_fingers(
            rotation,
            rows[:, TRANSLATION],
            rows[:, DEPTH],
            rows[:, WIDTH],
            observed,
            decoding.gripper,
            decoding.finger_shift_m,
            decoding.clearance_m,
        )
        fits = placed.fits & (placed.held >= decoding.fewest_held)
        rows = rows[fits]
        rows[:, WIDTH] = placed.width_m[fits]
        rows[:, TRANSLATION] += placed.shift_m[fits, None] * rotation[fits, :, 1]
        # Bins are coarse: what counts is how the gripper fits where it is now.
    fit = fit_of(
        rotations_of(rows),
        rows[:, TRANSLATION],
        rows[:, DEPTH],
        rows[:, WIDTH],
        observed,
        decoding.gripper,
        decoding.clearance_m,
    )
    fits = ~fit.collides & (fit.held >= decoding.fewest_held)
    rows, held = rows[fits], fit.held[fits]
    if decoding.enough_held > 0:
        rows[:, SCORE] *= np.minimum(held / decoding.enough_held, 1)
    if decoding.square_power > 0:
        rows[:, SCORE] *= _squareness(rows, observed, decoding) ** decoding.square_power
    return rows


def _squareness(rows: Float32, observed: Float32, decoding: GraspDecoding) -> Float32:
    """Product of the cosines of the angles at which outlines lean against both fingers. (g,)"""
    slopes = slopes_of(
        rotations_of(rows),
        rows[:, TRANSLATION],
        rows[:, DEPTH],
        rows[:, WIDTH],
        observed,
        decoding.gripper,
    )
    square: Float32 = np.prod(1 / np.sqrt(1 + np.square(slopes)), axis=1)
    return square


def decode(outputs: Tensors, observed: Float32, decoding: GraspDecoding, views: int = 1) -> Grasps:
    """Grasps of a model's outputs.

    Args:
        outputs: Of the graph, by name.
        observed: What a gripper must not touch, in the reference camera's frame. (n, 3)
        decoding: The model's way.
        views: Views that were used, for the result.
    """
    hypotheses = hypotheses_of(outputs, decoding)
    free = fit_rows(hypotheses, observed, decoding)
    if not len(free):
        return no_grasps("none_holds", len(hypotheses), views)
    kept = suppress(free, decoding.nms_translation_m, decoding.nms_rotation_rad)[: decoding.rows]
    return Grasps(rows=free[kept], hypotheses=len(hypotheses), free=len(free), views=views)
