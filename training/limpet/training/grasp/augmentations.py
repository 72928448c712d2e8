"""What a sample is changed by before a training step sees it.

Dimension legend: v views, N points of a view, n objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.grasp_frames import rotation_about
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.samples import Sample

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Seen:
    """A sample as one training step sees it.

    Attributes:
        points: With noise, in the turned frame. (v, N, 3)
        true: Where the candidates are without noise or error, in the same frame. (v, m, 3)
        rotations: Of each object in that frame. (n, 3, 3)
        origins: Of each object in that frame. (n, 3)
    """

    points: Float32
    true: Float32
    rotations: Float64
    origins: Float64

    @property
    def views(self) -> int:
        """How many views are left."""
        return len(self.points)


def augment(sample: Sample, config: GraspConfig, rng: np.random.Generator) -> Seen:
    """Leaves a view out, turns the camera, and adds noise.

    The turn is about the optical axis and then by a little about another: the network sees offsets
    alone, so where the frame's origin lies does not matter. Noise is of each point, and of the
    auxiliary camera's pose, which a robot knows to a millimetre or two.
    """
    v = len(sample.points)
    if v > 1 and rng.random() < config.single_share:
        v = 1
    roll, tilt = np.deg2rad([config.roll_deg, config.tilt_deg])
    turn = rotation_about(_across(rng) * tilt * rng.uniform(-1, 1)) @ rotation_about(
        [0.0, 0.0, roll * rng.uniform(-1, 1)]
    )
    turn_t = turn.T.astype(np.float32)
    points = sample.points[:v] @ turn_t
    points += rng.normal(0.0, config.noise_m, points.shape).astype(np.float32)
    if len(points) > 1:
        middle = points[1].mean(0)
        off = rotation_about(_unit(rng) * np.deg2rad(config.pose_noise_deg) * rng.normal())
        shift = rng.normal(0.0, config.pose_noise_m, 3).astype(np.float32)
        points[1] = (points[1] - middle) @ off.T.astype(np.float32) + middle + shift
    return Seen(
        points,
        sample.true[:v] @ turn_t,
        turn @ sample.poses[:, :3, :3],
        sample.poses[:, :3, 3] @ turn.T,
    )


def _unit(rng: np.random.Generator) -> Float64:
    direction = rng.normal(size=3)
    unit: Float64 = direction / np.linalg.norm(direction)
    return unit


def _across(rng: np.random.Generator) -> Float64:
    """An axis square to the optical one."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    return np.array([np.cos(angle), np.sin(angle), 0.0])
