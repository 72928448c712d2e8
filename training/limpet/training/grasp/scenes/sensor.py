"""What a stereo depth camera returns of a scene: noise, quantisation and missing returns.

A stereo camera measures disparity d = f b / z, so an error of δ pixels is z² δ / (f b) in depth:
0.9 mm at 0.5 m and 3.6 mm at 1 m for 0.08 pixels of a D435 at 640 columns. It returns nothing where
only one imager sees the spot, on many pixels of a depth edge, and at grazing angles.

And what a robot knows of where its cameras are, which is not quite where they are.

Dimension legend: H rows, W columns, N views.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter
from scipy.spatial.transform import Rotation

from limpet.training.grasp.scenes.rendering import DepthCamera, View
from limpet.training.grasp.scenes.shapes import Float64

Float32 = NDArray[np.float32]


class DepthNoise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a sensor deviates from the truth.

    Attributes:
        disparity_px: Standard deviation of the disparity; neighbouring pixels err alike.
        correlation_px: How far: standard deviation of the smoothing.
        step_px: Quantisation of the disparity.
        lateral_px: Standard deviation of where a pixel looks.
        edge_m: A step of depth between neighbours that counts as an edge.
        edge_loss: Share of an edge's pixels that return nothing.
        grazing_cos: Below this cosine of incidence the chance of a return falls to none at 0.
        holes: Share of pixels in holes without any cause.
        speckle: Share of pixels that are off by up to `speckle_m`.
        speckle_m: See there.
    """

    disparity_px: float = 0.08
    correlation_px: float = 1.2
    step_px: float = 1 / 32
    lateral_px: float = 0.5
    edge_m: float = 0.012
    edge_loss: float = 0.5
    grazing_cos: float = 0.3
    holes: float = 0.003
    speckle: float = 0.0003
    speckle_m: float = 0.03


class PoseError(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the pose of one camera in another, as a robot knows it, is from the truth.

    Two cameras are calibrated each by itself, or an arm whose joints err carries one on a wrist
    whose calibration errs: with care that leaves some tenths of a degree and a millimetre or two.
    0.3° move what lies at 0.55 m by up to 3 mm, so the clouds of two views are some 4 mm apart.

    Attributes:
        turn_deg: Standard deviation of the angle, about any axis.
        shift_m: Standard deviation along each axis.
    """

    turn_deg: float = 0.3
    shift_m: float = 0.002


def known_poses(cameras: Float64, error: PoseError, rng: np.random.Generator) -> Float64:
    """Cameras' poses as a robot knows them: each errs in its own frame, independently.

    Args:
        cameras: True poses. (N, 4, 4)
        error: Of one in another: each errs by 1/√2 of it.
        rng: Of the error.
    """
    axes = rng.normal(size=(len(cameras), 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = np.deg2rad(error.turn_deg) * rng.normal(size=(len(cameras), 1)) / math.sqrt(2)
    off = np.tile(np.eye(4), (len(cameras), 1, 1))
    off[:, :3, :3] = Rotation.from_rotvec(angles * axes).as_matrix()
    off[:, :3, 3] = error.shift_m * rng.normal(size=(len(cameras), 3)) / math.sqrt(2)
    known: Float64 = cameras @ off
    return known


def measure(
    view: View, camera: DepthCamera, noise: DepthNoise, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Depth in millimetres as the sensor's PNG holds it, 0 where nothing returned. (H, W)"""
    shape = view.depth.shape
    rows, columns = np.indices(shape)
    shift = np.rint(rng.normal(0.0, noise.lateral_px, (2, *shape))).astype(np.intp)
    at = (
        np.clip(rows + shift[0], 0, shape[0] - 1),
        np.clip(columns + shift[1], 0, shape[1] - 1),
    )
    depth = view.depth[at]
    seen = depth > 0
    fb = camera.focal_px * camera.baseline_m
    disparity = fb / np.where(seen, depth, 1.0)
    disparity += noise.disparity_px * _smooth(shape, noise.correlation_px, rng)
    disparity = np.maximum(np.round(disparity / noise.step_px) * noise.step_px, noise.step_px)
    measured = fb / disparity
    outlier = rng.random(shape) < noise.speckle
    measured[outlier] += rng.uniform(-noise.speckle_m, noise.speckle_m, int(outlier.sum()))
    lost = ~seen | ~view.matched | (rng.random(shape) < _edge_loss(view.depth, noise))
    lost |= rng.random(shape) > view.cos_incidence / noise.grazing_cos
    lost |= _holes(shape, noise.holes, rng)
    return np.where(lost, 0.0, np.clip(np.rint(1000 * measured), 0, 65535)).astype(np.uint16)


def _smooth(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Float32:
    """Gaussian noise of standard deviation 1 whose neighbours are alike. (H, W)"""
    field = gaussian_filter(rng.standard_normal(shape).astype(np.float32), sigma)
    return np.asarray(field / field.std())


def _edge_loss(depth: Float32, noise: DepthNoise) -> Float32:
    """Chance that an edge takes the pixel: `edge_loss` on it, none elsewhere. (H, W)"""
    step = maximum_filter(depth, 3) - minimum_filter(depth, 3)
    loss: Float32 = np.where(step > noise.edge_m, np.float32(noise.edge_loss), np.float32(0))
    return loss


def _holes(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Blobs a few pixels wide that cover so much of the image. (H, W)"""
    if share <= 0:
        return np.zeros(shape, bool)
    field = _smooth(shape, 2.5, rng)
    return np.asarray(field > np.quantile(field, 1 - share))
