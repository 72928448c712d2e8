"""Camera and LiDAR: where they sit on the robot and which rays they cast.

Frames: world (x, y, z up); robot (x forward, y left, origin on the floor); image (rows downward).
A pose is x (m), y (m) and yaw (rad, counter-clockwise from the world's x axis).

Dimension legend: N poses, H rows, W columns, B beams.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Camera(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pinhole camera that looks forward.

    Attributes:
        width, height: Pixels.
        fov_deg: Horizontal field of view, degrees.
        above_floor_m: Height of the pinhole.
        pitch_deg: How far it looks down, degrees.
        pitch_jitter_deg: Standard deviation of the pitch from frame to frame, degrees.
        height_jitter_m: The same of the height.
    """

    width: int = 128
    height: int = 128
    fov_deg: float = 90.0
    above_floor_m: float = 0.38
    pitch_deg: float = 0.0
    pitch_jitter_deg: float = 1.0
    height_jitter_m: float = 0.01

    def jitter(self, number: int, rng: np.random.Generator) -> Float64:
        """Deviations of height (m) and pitch (rad) of so many frames. (N, 2)"""
        spread = (self.height_jitter_m, math.radians(self.pitch_jitter_deg))
        return np.asarray(rng.normal(size=(number, 2)) * spread)

    @property
    def pixel_rad(self) -> float:
        """Width of a pixel at the image's centre, as a share of its depth."""
        return 2 * math.tan(math.radians(self.fov_deg) / 2) / self.width

    def rays(self, poses_N3: Float64, jitter_N2: Float64) -> Float32:
        """Rays through all pixels' centres: origin, then a direction of depth 1. (N, H, W, 6)

        The parameter at which such a ray hits is the depth along the optical axis, m.
        """
        pixel = self.pixel_rad
        right = ((np.arange(self.width) + 0.5 - self.width / 2) * pixel).astype(np.float32)
        down = ((np.arange(self.height) + 0.5 - self.height / 2) * pixel).astype(np.float32)
        yaw = poses_N3[:, 2]
        pitch = math.radians(self.pitch_deg) + jitter_N2[:, 1]
        cos, sin = np.cos(yaw), np.sin(yaw)
        zero = np.zeros_like(cos)
        forward = np.stack([cos * np.cos(pitch), sin * np.cos(pitch), -np.sin(pitch)], axis=1)
        to_right = np.stack([sin, -cos, zero], axis=1)
        to_down = np.stack([-cos * np.sin(pitch), -sin * np.sin(pitch), -np.cos(pitch)], axis=1)
        origin = np.concatenate([poses_N3[:, :2], self.above_floor_m + jitter_N2[:, :1]], axis=1)
        rays = np.empty((len(poses_N3), self.height, self.width, 6), np.float32)
        rays[..., :3] = origin[:, None, None]
        rows = forward[:, None] + down[:, None] * to_down[:, None]  # (N, H, 3)
        columns = right[:, None] * to_right[:, None]  # (N, W, 3)
        np.add(rows[:, :, None], columns[:, None], out=rays[..., 3:], casting="same_kind")
        return rays


class Lidar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A horizontal LiDAR that turns about the robot's origin.

    Attributes:
        beams: Beams of a turn; the first looks forward, the others follow counter-clockwise.
        range_m: Largest range; a beam that returns nothing reads this.
        above_floor_m: Height of its plane.
        noise_m: Standard deviation of a range.
        dropout: Share of beams that return nothing.
    """

    beams: int = 180
    range_m: float = 6.0
    above_floor_m: float = 0.22
    noise_m: float = 0.01
    dropout: float = 0.005

    @property
    def angles(self) -> Float64:
        """Bearing of each beam in the robot frame, rad in [0, 2π). (B,)"""
        return 2 * math.pi * np.arange(self.beams) / self.beams

    def rays(self, poses_N3: Float64) -> Float32:
        """One ray a beam: origin, unit direction. (N, B, 6)"""
        rays = np.zeros((len(poses_N3), self.beams, 6), np.float32)
        rays[..., 0] = poses_N3[:, :1]
        rays[..., 1] = poses_N3[:, 1:2]
        rays[..., 2] = self.above_floor_m
        bearing = poses_N3[:, 2:] + self.angles
        rays[..., 3], rays[..., 4] = np.cos(bearing), np.sin(bearing)
        return rays

    def measure(self, ranges_NB: Float32, rng: np.random.Generator | None) -> Float32:
        """What the sensor reads where the truth is `ranges_NB` (infinite where nothing is).

        Args:
            ranges_NB: True ranges, m.
            rng: Source of noise, None for none.
        """
        seen = ranges_NB
        if rng is not None:
            noise = rng.standard_normal(seen.shape, np.float32) * np.float32(self.noise_m)
            lost = rng.random(seen.shape, np.float32) < self.dropout
            seen = np.where(lost, np.float32(np.inf), seen + noise)
        return np.clip(seen, 0.0, self.range_m).astype(np.float32)
