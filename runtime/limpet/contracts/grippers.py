"""A two-finger gripper, and whether it fits around what was seen.

In the gripper's frame (x approach, y closing direction, z height, origin the grasp's point) two
fingers and a base that joins them are boxes, as GraspNet's evaluator has them:

    fingers  -base_m < x < depth             width/2 < |y| < width/2 + finger_m   |z| < height_m/2
    base     -base_m - finger_m < x ≤ -base_m         |y| < width/2 + finger_m   |z| < height_m/2

What lies between the fingers is held.

Dimension legend: g grasps, n observed points, b bins along the closing direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.point_sampling import voxel_keys
from limpet.contracts.products import product

Float32 = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]

BIN_M = 0.0025
"""Side of the bins in which free places for fingers are looked for."""
_GROUP_M = 0.05  # grasps in one cell of this side look at the same points
_SLACK = 1e-6


class Gripper(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A parallel gripper, metres.

    Attributes:
        opening_m: Widest that its fingers open.
        finger_m: Thickness of a finger along the closing direction, and of the base.
        height_m: Of fingers and base.
        base_m: From the grasp's point back to the base.
    """

    opening_m: float = 0.10
    finger_m: float = 0.01
    height_m: float = 0.02
    base_m: float = 0.02


@dataclass(frozen=True, eq=False)
class Fit:
    """How grippers fit around what was seen.

    Attributes:
        collides: Whether a finger or the base holds an observed point. (g,)
        held: Observed points between the fingers. (g,)
    """

    collides: Bools
    held: Ints


def fit_of(
    rotation: NDArray[Any],
    translation_m: NDArray[Any],
    depth_m: NDArray[Any],
    width_m: NDArray[Any],
    observed: Float32,
    gripper: Gripper,
    clearance_m: float = 0.0,
) -> Fit:
    """How grippers as they stand fit around observed points.

    Args:
        rotation: Columns approach, closing direction, height. (g, 3, 3)
        translation_m: Grasps' points, in the frame of `observed`. (g, 3)
        depth_m: How far the fingertips reach beyond them. (g,)
        width_m: Openings. (g,)
        observed: Points that nothing may touch. (n, 3)
        gripper: Its sizes.
        clearance_m: How near to fingers and base a point may not be. Points that stand for a voxel
            are up to half of its side from those that it holds.
    """
    collides, held = np.zeros(len(depth_m), bool), np.zeros(len(depth_m), np.intp)
    half = np.asarray(width_m, np.float32) / 2
    depth = np.asarray(depth_m, np.float32)
    base, room = -gripper.base_m, clearance_m
    edge = gripper.opening_m / 2 + gripper.finger_m + room
    seen = seen_from(rotation, translation_m, observed, gripper, depth_m, edge, room)
    for which, (x, y, z) in seen:
        reach, tip, inner = np.abs(y), depth[which, None], half[which, None]
        high = np.abs(z)
        near = (high < gripper.height_m / 2 + room) & (x < tip + room)
        near &= (x > base - gripper.finger_m - room) & (reach < inner + gripper.finger_m + room)
        solid = (reach > inner - room) | (x <= base + room)
        collides[which] = (near & solid).any(1)
        between = (high < gripper.height_m / 2) & (x > base) & (x < tip) & (reach <= inner)
        held[which] = between.sum(1)
    return Fit(collides, held)


@dataclass(frozen=True, eq=False)
class Placed:
    """Fingers put where nothing was seen.

    Attributes:
        fits: Whether there is room for both, and for the base. (g,)
        shift_m: How far the grasp's point moves along the closing direction. (g,)
        width_m: Opening. (g,)
        held: Observed points between the fingers. (g,)
    """

    fits: Bools
    shift_m: Float32
    width_m: Float32
    held: Ints


def place_fingers(
    rotation: NDArray[Any],
    translation_m: NDArray[Any],
    depth_m: NDArray[Any],
    width_m: NDArray[Any],
    observed: Float32,
    gripper: Gripper,
    farthest_m: float,
    clearance_m: float,
) -> Placed:
    """Moves each finger along the closing direction to the nearest place that is free.

    A hypothesis' width is a guess to a few millimetres, and a point of the object's own surface or
    of a neighbour in a finger's way can be seen: moving the finger mends both. A finger stays where
    it is where that is free.

    Args:
        rotation: Columns approach, closing direction, height. (g, 3, 3)
        translation_m: Grasps' points. (g, 3)
        depth_m: How far the fingertips reach beyond them. (g,)
        width_m: Openings that are asked for. (g,)
        observed: Points that nothing may touch. (n, 3)
        gripper: Its sizes.
        farthest_m: How far a finger may move.
        clearance_m: Room around fingers and base.
    """
    count = len(depth_m)
    edge = round((gripper.opening_m / 2 + gripper.finger_m + clearance_m + farthest_m) / BIN_M)
    bins = 2 * edge
    body = np.zeros((count, bins), np.int64)
    base = np.zeros((count, bins), np.int64)
    depth = np.asarray(depth_m, np.float32)
    room = clearance_m
    seen = seen_from(rotation, translation_m, observed, gripper, depth_m, edge * BIN_M, room)
    for which, (x, y, z) in seen:
        near = (np.abs(z) < gripper.height_m / 2 + room) & (x < depth[which, None] + room)
        near &= x > -gripper.base_m - gripper.finger_m - room
        row, at = np.nonzero(near)
        column = np.floor(y[row, at] * np.float32(1 / BIN_M)).astype(np.int64) + edge
        inside = (column >= 0) & (column < bins)
        row, at, column = row[inside], at[inside], column[inside]
        on_base = x[row, at] <= -gripper.base_m + room
        for counts, chosen in ((body, ~on_base), (base, on_base)):
            flat = row[chosen] * bins + column[chosen]
            found = np.bincount(flat, minlength=len(which) * bins)
            counts[which] = found.reshape(len(which), bins)
    return _choose(body, base, np.asarray(width_m), gripper, edge, farthest_m, clearance_m)


def _choose(
    body: NDArray[np.int64],
    base: NDArray[np.int64],
    width_m: NDArray[Any],
    gripper: Gripper,
    edge: int,
    farthest_m: float,
    clearance_m: float,
) -> Placed:
    """Places of both fingers of each grasp, from the points in each bin. (g, b) twice"""
    count, bins = body.shape
    need = int(np.ceil((gripper.finger_m + 2 * clearance_m) / BIN_M - _SLACK))
    slack_m = need * BIN_M - gripper.finger_m  # a finger stands in the middle of its free bins
    total = np.zeros((count, bins + 1), np.int64)
    np.cumsum(body, axis=1, out=total[:, 1:])
    starts = bins - need + 1
    free = total[:, need:] == total[:, :starts]  # (g, starts): bins [s, s + need) hold nothing
    start = np.arange(starts)
    # Inner faces, metres from the hypothesis' middle, of a finger on either side in those bins.
    right_face = (start - edge) * BIN_M + slack_m / 2
    left_face = (start + need - edge) * BIN_M - slack_m / 2
    half = np.asarray(width_m, np.float64)[:, None] / 2
    right_off = np.where(free & (right_face > 0), np.abs(right_face - half), np.inf)
    left_off = np.where(free & (left_face < 0), np.abs(left_face + half), np.inf)
    right, left = right_off.argmin(1), left_off.argmin(1)
    each = np.arange(count)
    fits = np.maximum(right_off[each, right], left_off[each, left]) <= farthest_m + BIN_M / 2
    r, el = right_face[right], left_face[left]
    width, shift = r - el, (r + el) / 2
    fits &= width <= gripper.opening_m + _SLACK
    held = total[each, right] - total[each, np.minimum(left + need, bins)]
    blocked = np.zeros((count, bins + 1), np.int64)
    np.cumsum(base, axis=1, out=blocked[:, 1:])
    fits &= blocked[each, np.minimum(right + need, bins)] == blocked[each, left]
    return Placed(fits, shift.astype(np.float32), width.astype(np.float32), held)


def seen_from(
    rotation: NDArray[Any],
    translation_m: NDArray[Any],
    observed: Float32,
    gripper: Gripper,
    depth_m: NDArray[Any],
    half_m: float,
    room_m: float,
) -> Iterator[tuple[Ints, tuple[Float32, Float32, Float32]]]:
    """Coordinates of nearby points in the grippers' frames, for some grasps at a time.

    Args:
        rotation: Columns approach, closing direction, height. (g, 3, 3)
        translation_m: Grasps' points. (g, 3)
        observed: Points, in the same frame. (n, 3)
        gripper: Its sizes.
        depth_m: How far the fingertips reach beyond the grasps' points. (g,)
        half_m: How far points may be to either side along the closing direction, at least.
        room_m: Room around fingers and base.

    Yields:
        Indices of grasps (k,), and x, y, z of the points near them (k, m) each.
    """
    if not len(depth_m) or not len(observed):
        return
    turned = np.swapaxes(rotation, 1, 2).astype(np.float32)  # rows are the gripper's axes
    place = np.asarray(translation_m, np.float32)
    longest = max(gripper.base_m + gripper.finger_m, float(np.max(depth_m))) + room_m
    upward = gripper.height_m / 2 + room_m
    reach = float(np.sqrt(half_m**2 + longest**2 + upward**2))
    _, group = np.unique(voxel_keys(place, _GROUP_M), return_inverse=True)
    order = np.argsort(group, kind="stable")
    bounds = np.flatnonzero(np.diff(group[order], prepend=-1, append=-1))
    low = np.minimum.reduceat(place[order], bounds[:-1])
    high = np.maximum.reduceat(place[order], bounds[:-1])
    middles = (low + high) / 2  # (groups, 3)
    radii = reach + np.linalg.norm(high - low, axis=1) / 2
    squares = np.einsum("nk,nk->n", observed, observed)
    to_all = product(-2 * middles, observed.T)  # (groups, n)
    to_all += squares
    to_all += np.einsum("gk,gk->g", middles, middles)[:, None]
    is_near = to_all < radii[:, None] ** 2
    for centre, close, first, last in zip(middles, is_near, bounds[:-1], bounds[1:], strict=True):
        which = order[first:last]
        near = observed[np.flatnonzero(close)] - centre
        axes = turned[which]  # (k, 3, 3)
        own = np.einsum("kij,kj->ki", axes, place[which] - centre)
        seen = product(axes.reshape(-1, 3), near.T).reshape(len(which), 3, -1)
        seen -= own[..., None]
        yield which, (seen[:, 0], seen[:, 1], seen[:, 2])
