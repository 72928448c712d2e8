"""Depth images of a table with boxes and balls on it, worked out in closed form.

The camera looks down at the table, tilted; frames as in `limpet.contracts.cameras`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.cameras import back_project
from limpet.contracts.grasp_frames import inverse_pose

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

WIDTH, HEIGHT = 320, 240
INTRINSICS = np.array([[310.0, 0, 160.5], [0, 310.0, 119.0], [0, 0, 1]])


@dataclass(frozen=True)
class Ball:
    """A ball that lies on the table, metres."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Box:
    """An upright box that stands on the table, metres."""

    x: float
    y: float
    size: tuple[float, float, float]


def look_at(eye: Sequence[float], target: Sequence[float] = (0, 0, 0.03)) -> Float64:
    """Pose of a camera in the table's frame (z up). (4, 4)"""
    forward = np.subtract(target, eye)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def render(
    things: Sequence[Ball | Box], pose_camera_in_table: Float64, table_radius_m: float = 1.0
) -> Float32:
    """Depth in metres, 0 beyond the table. (HEIGHT, WIDTH)"""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    k = INTRINSICS
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones(u.shape)], axis=-1)
    d = rays @ pose_camera_in_table[:3, :3].T  # its z in the camera's frame is 1: t is depth
    o = pose_camera_in_table[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = -o[2] / d[..., 2]
        hit = o + t[..., None] * d
        nearest = np.where(
            (t > 0) & (np.hypot(hit[..., 0], hit[..., 1]) < table_radius_m), t, np.inf
        )
        for thing in things:
            nearest = np.minimum(nearest, _hit(thing, o, d))
    return np.where(np.isfinite(nearest), nearest, 0).astype(np.float32)


def _hit(thing: Ball | Box, o: Float64, d: Float64) -> Float64:
    if isinstance(thing, Ball):
        to_centre = o - [thing.x, thing.y, thing.radius]
        a, b = (d * d).sum(-1), (d * to_centre).sum(-1)
        inside = b * b - a * (to_centre @ to_centre - thing.radius**2)
        return np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
    half = np.array(thing.size) / 2
    centre = np.array([thing.x, thing.y, half[2]])
    first, second = (centre - half - o) / d, (centre + half - o) / d
    enter, leave = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)


def cloud_of(things: Sequence[Ball | Box], pose_camera_in_table: Float64) -> Float32:
    """What the camera sees, as points in its frame. (n, 3)"""
    return back_project(render(things, pose_camera_in_table), INTRINSICS)


def relative_pose(reference: Float64, auxiliary: Float64) -> Float64:
    """Pose of the auxiliary camera in the reference camera's frame. (4, 4)"""
    pose: Float64 = inverse_pose(reference) @ auxiliary
    return pose
