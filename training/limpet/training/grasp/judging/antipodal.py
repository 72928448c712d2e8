"""The control without learning: grasps between antipodal points of the observed cloud.

Pairs of points whose connecting line lies in both friction cones; several approaches square to that
line, away from the camera and from above the table; a gripper that opens half a centimetre more on
each side and is free of the observed cloud. A pair's score is the cosine of its worse angle.

It sees what the network sees: the same cloud, the same gripper, the same rows.

Dimension legend: n points, p pairs, a approaches of each, g grasps, w observed points.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from limpet.contracts.grasp_frames import DEPTHS_M
from limpet.contracts.grasps import COLUMNS, rotations_of, suppress
from limpet.contracts.grippers import Gripper, fit_of
from limpet.training.grasp.judging.normals import estimate_normals

Float64 = NDArray[np.float64]


class AntipodalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How grasps are sampled.

    Attributes:
        anchors: Points that pairs are sought for, at most.
        partners: Best partners of each.
        friction: Friction coefficient of the widest cones: the evaluation's largest. A camera
            seldom sees both sides of an object, and the normals at the edge of what it sees lean:
            on training scenes AP is 51 with one view and 63 with two, 31 and 61 with 0.5 instead.
        clearance_m: Between a finger and its contact.
        beyond_m: How far the fingertips reach beyond the pair: 5 mm was best of 0, 5 and 10 on
            training scenes.
        approaches: Turns about the closing direction, over a whole revolution.
        narrowest_m: Distance of a pair below which it is noise.
        pairs: Pairs whose approaches are tried, best first, at most.
        grasps: Grasps after suppression, at most.
        seed: Of the anchors.
        gripper: Its sizes.
    """

    anchors: int = 800
    partners: int = 4
    friction: float = 1.2
    clearance_m: float = 0.005
    beyond_m: float = 0.005
    approaches: int = 12
    narrowest_m: float = 0.008
    pairs: int = 600
    grasps: int = 200
    seed: int = 0
    gripper: Gripper = Gripper()


def sample_antipodal(
    points: NDArray[Any],
    observed: NDArray[Any],
    up: NDArray[Any],
    config: AntipodalConfig | None = None,
    normals: NDArray[Any] | None = None,
) -> Float64:
    """Grasps on a cloud, best first. (g, 17)

    Args:
        points: What stands out of the table, camera frame, m. (n, 3)
        observed: What the gripper must not touch, the table among it, m. (w, 3)
        up: The table's normal, towards the camera. (3,)
        config: How.
        normals: Of the points; by default estimated. (n, 3)
    """
    config = config or AntipodalConfig()
    # A small cloud comes with its points repeated.
    points, first_of = np.unique(np.asarray(points, np.float64), axis=0, return_index=True)
    normals = estimate_normals(points) if normals is None else normals[first_of]
    first, second, cosine = _pairs(points, normals, config)
    rows = _rows(points[first], points[second], cosine, up, config)
    fit = fit_of(
        rotations_of(rows),
        rows[:, 13:16],
        rows[:, 3],
        rows[:, 1],
        np.asarray(observed, np.float32),
        config.gripper,
    )
    rows = rows[~fit.collides]
    return rows[suppress(rows)][: config.grasps]


def _pairs(
    points: Float64, normals: NDArray[Any], config: AntipodalConfig
) -> tuple[NDArray[np.intp], NDArray[np.intp], Float64]:
    """Pairs and the cosine of the worse angle between line and normal, best first."""
    rng = np.random.default_rng(config.seed)
    known = np.flatnonzero(np.isfinite(normals).all(1))
    anchors = rng.permutation(known)[: config.anchors]
    least = 1 / np.hypot(1, config.friction)
    widest = config.gripper.opening_m - 2 * config.clearance_m
    firsts, seconds, cosines = [], [], []
    tree = cKDTree(points)
    for anchor in anchors:
        near = np.asarray(tree.query_ball_point(points[anchor], widest), np.intp)
        line = points[near] - points[anchor]
        length = np.linalg.norm(line, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            line /= length[:, None]
            # Fingers push against the normals, which point out of the object.
            worse = np.minimum(-line @ normals[anchor], (line * normals[near]).sum(1))
        good = np.flatnonzero((length > config.narrowest_m) & (worse >= least))
        best = good[np.argsort(-worse[good], kind="stable")[: config.partners]]
        firsts.append(np.full(len(best), anchor))
        seconds.append(near[best])
        cosines.append(worse[best])
    if not firsts:
        return np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0)
    first, second, cosine = map(np.concatenate, (firsts, seconds, cosines))
    order = np.argsort(-cosine, kind="stable")[: config.pairs]
    return first[order], second[order], cosine[order]


def _rows(
    first: Float64, second: Float64, cosine: Float64, up: NDArray[Any], config: AntipodalConfig
) -> Float64:
    """All approaches and depths of pairs that come from the camera's side, above the table."""
    line = second - first
    length = np.linalg.norm(line, axis=1)
    y = line / length[:, None]  # (p, 3)
    side = np.cross(y, np.eye(3)[np.argmin(np.abs(y), axis=1)])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    turn = np.arange(config.approaches) * (2 * np.pi / config.approaches)
    x = (
        np.cos(turn)[:, None] * side[:, None] + np.sin(turn)[:, None] * np.cross(y, side)[:, None]
    )  # (p, a, 3)
    centre = (first + second) / 2
    sight = centre / np.linalg.norm(centre, axis=1, keepdims=True)
    with_sight = np.einsum("paj,pj->pa", x, sight)
    index, which = np.nonzero((with_sight > 0) & (x @ np.asarray(up, np.float64) < 0))
    approach, closing = x[index, which], y[index]
    rotation = np.stack([approach, closing, np.cross(approach, closing)], 2)
    rows = np.zeros((len(index), len(DEPTHS_M), COLUMNS))
    reach = config.beyond_m - DEPTHS_M  # from the pair to the grasp's point, along the approach
    # Among the approaches of a pair the one along the line of sight goes first: it is seen to be
    # free.
    rows[..., 0] = (cosine[index] * (0.98 + 0.02 * with_sight[index, which]))[:, None]
    rows[..., 1] = (length[index] + 2 * config.clearance_m)[:, None]
    rows[..., 2], rows[..., 3], rows[..., 16] = config.gripper.height_m, DEPTHS_M, -1
    rows[..., 4:13] = rotation.reshape(-1, 1, 9)
    rows[..., 13:16] = centre[index][:, None] + reach[:, None] * approach[:, None]
    return rows.reshape(-1, COLUMNS)
