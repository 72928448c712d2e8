"""GraspNet's parametrisation of two-finger grasps: approach, angle, depth, and the gripper's frame.

A grasp is a point on or near a surface, one of 300 approach directions, one of 12 turns about the
approach and one of 4 depths. The gripper's frame has its x axis along the approach (towards the
object), y along the closing direction and z along the fingers' height; its origin is that point,
and the fingertips reach `depth` beyond it. Turns cover half a revolution: a two-finger gripper
turned by pi grasps the same way.

Source: Fang et al., "GraspNet-1Billion", CVPR 2020, and the behaviour of its public evaluator,
whose labels know views (away from the object); an approach is the opposite of a view.

Dimension legend: V directions, A angles, D depths, j rows and k columns of a matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from limpet.contracts.products import along

Float64 = NDArray[np.float64]

VIEWS = 300
"""Approach directions of a grasp label."""
ANGLES = 12
"""Turns about the approach of a grasp label."""
DEPTHS = 4
"""Depths of a grasp label."""

ANGLES_RAD: Float64 = np.arange(ANGLES, dtype=np.float64) * (np.pi / ANGLES)
"""Turns about the approach, radians, 0 to below pi. (A,)"""
DEPTHS_M: Float64 = np.arange(1, DEPTHS + 1, dtype=np.float64) * 0.01
"""How far the fingertips reach beyond the grasp's point, metres. (D,)"""
for _constant in (ANGLES_RAD, DEPTHS_M):
    _constant.setflags(write=False)

_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def view_directions() -> Float64:
    """Unit vectors from the object to where a gripper comes from: a Fibonacci lattice. (V, 3)

    Index i of a label belongs to row i. Source: Gonzalez, arXiv 0912.4540.
    """
    i = np.arange(VIEWS)
    z = (2 * i + 1) / VIEWS - 1
    around = 2 * np.pi * _GOLDEN * i
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(around), radius * np.sin(around), z], axis=1)


def approach_directions() -> Float64:
    """Unit vectors along which a gripper moves towards the object, in the labels' order. (V, 3)"""
    return -view_directions()


def rotation_of(approach: ArrayLike, angle_rad: ArrayLike) -> Float64:
    """Rotation of the gripper in the frame that `approach` is given in.

    At angle 0 the closing direction lies in the xy plane, square to the approach, on its left seen
    from +z; where the approach is along z it is +y. A positive angle turns it about the approach.

    Args:
        approach: Directions, towards the object, of any length above 0. (..., 3)
        angle_rad: Turns about them, radians; broadcasts with their leading axes. (...)

    Returns:
        Columns approach, closing direction and height. (..., 3, 3)
    """
    towards = np.asarray(approach, np.float64)
    x = towards / np.linalg.norm(towards, axis=-1, keepdims=True)
    left = np.stack([-x[..., 1], x[..., 0], np.zeros(x.shape[:-1])], axis=-1)
    length = np.linalg.norm(left, axis=-1, keepdims=True)
    vertical = length == 0
    left = np.where(vertical, [0.0, 1.0, 0.0], left / np.where(vertical, 1.0, length))
    up = np.cross(x, left)
    angle = np.asarray(angle_rad, np.float64)[..., None]
    cos, sin = np.cos(angle), np.sin(angle)
    closing, height = cos * left + sin * up, cos * up - sin * left
    return np.stack([np.broadcast_to(x, closing.shape), closing, height], axis=-1)


def turn_from(zero: NDArray[Any], rotation: NDArray[Any]) -> Float64:
    """Turn about their common approach from one rotation to another, -pi to pi.

    (..., 3, 3) twice → (...)
    """
    closing = np.einsum("...j,...jk->...k", rotation[..., :, 1], zero)
    angle: Float64 = np.arctan2(closing[..., 2], closing[..., 1])
    return angle


def nearest_view(approach: ArrayLike) -> NDArray[np.intp]:
    """Index of the approach direction nearest to each. (..., 3) → (...)"""
    nearest: NDArray[np.intp] = np.argmax(np.asarray(approach) @ approach_directions().T, axis=-1)
    return nearest


def rotation_about(vector: ArrayLike) -> Float64:
    """Rotation about a vector by its length, radians (Rodrigues). (3,) → (3, 3)"""
    turn = np.asarray(vector, np.float64)
    angle = float(np.linalg.norm(turn))
    if angle == 0.0:
        return np.eye(3)
    x, y, z = turn / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation: Float64 = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation


def rotation_between_rad(first: NDArray[Any], second: NDArray[Any]) -> Float64:
    """Angle of the turn that takes one rotation to another, 0 to pi. (..., 3, 3) → (...)"""
    trace = np.einsum("...jk,...jk->...", first.astype(np.float64), second.astype(np.float64))
    angle: Float64 = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    return angle


def poses_of(rotation: NDArray[Any], translation_m: NDArray[Any]) -> Float64:
    """Poses of rotations and translations. (..., 3, 3), (..., 3) → (..., 4, 4)"""
    poses = np.zeros((*rotation.shape[:-2], 4, 4))
    poses[..., :3, :3], poses[..., :3, 3], poses[..., 3, 3] = rotation, translation_m, 1.0
    return poses


def transform_points(points: NDArray[Any], pose_source_in_target: NDArray[Any]) -> NDArray[Any]:
    """Points of one frame in another, in their own dtype. (..., 3), (4, 4) → (..., 3)"""
    pose = pose_source_in_target.astype(points.dtype)
    flat = points.reshape(-1, 3)
    moved: NDArray[Any] = np.stack([along(flat, row) for row in pose[:3, :3]], axis=1)
    moved += pose[:3, 3]
    return moved.reshape(points.shape)


def inverse_pose(pose: NDArray[Any]) -> Float64:
    """The pose of the target frame in the source's. (..., 4, 4)"""
    turned = np.swapaxes(pose[..., :3, :3].astype(np.float64), -1, -2)
    return poses_of(turned, -np.einsum("...jk,...k->...j", turned, pose[..., :3, 3]))
