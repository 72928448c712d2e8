"""Where a second view's points belong, when cameras' poses are known to some millimetres only.

The surfaces that both views show are laid on each other by iterated closest points, a point to the
plane of its partner (Chen and Medioni, "Object modelling by registration of multiple range images",
1992). What surfaces leave open (a plate may slide on the table) stays as it was told: a correction
costs as much as the error of a hand-eye calibration is unlikely.

Dimension legend: n points of a view, s of them that are matched, v voxels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.grasp_frames import rotation_about, rotation_between_rad, transform_points
from limpet.contracts.point_sampling import Float32, shuffled, smallest, voxel_means, voxel_pairs
from limpet.contracts.products import product

Float64 = NDArray[np.float64]

VOXEL_M = 0.004
SAMPLES = 768
"""Points of the second view that look for a partner."""
REACHES_M = (0.016, 0.012, 0.008, 0.006, 0.005, 0.004, 0.004, 0.004)
"""How far a partner may be, in each round."""
LEAST_COSINE = 0.5
"""Of the angle between two partners' normals: the two sides of a thin thing are no partners."""
FEWEST = 64
"""Partners below which too little is seen of the same."""
LIKELY_M, LIKELY_RAD = 0.005, 0.01
"""What a camera's place and turn are off by, one standard deviation: 5 mm and 0.6°."""
MOST_M, MOST_RAD = 0.025, 0.06
"""Beyond which a correction is none: what was laid on each other is not the same."""
NOISE_M = 0.002
"""Of a point against its partner's plane."""
FEWEST_IN_PLANE = 5
"""Voxels, of one and the 26 around it, through which a plane is laid."""
TOGETHER = 16.0
"""Neighbouring points that are wrong together: so many partners count as one."""


def register(reference: Float32, auxiliary: Float32, viewpoint: Float64) -> Float64 | None:
    """How the second view's points have to move to lie on the first one's.

    Args:
        reference: What stands out of the table, in the reference camera's frame, metres. (n, 3)
        auxiliary: The same of the other view, in the same frame by the pose that is known. (n, 3)
        viewpoint: Where the other camera is in that frame. (3,)

    Returns:
        Pose to be applied to `auxiliary`; None where the views show too little of the same, or
        where it would be an unlikely one. (4, 4)
    """
    fixed, fixed_normals = _surface(reference, np.zeros(3))
    moving, moving_normals = _surface(auxiliary, viewpoint)
    if min(len(fixed), len(moving)) < FEWEST:
        return None
    chosen = smallest(shuffled(moving.astype(np.float32), VOXEL_M), SAMPLES)
    middle = moving.mean(0, dtype=np.float64)
    points, normals = moving[chosen] - middle, moving_normals[chosen]
    targets = fixed - middle
    pose = np.eye(4)
    for reach_m in REACHES_M:
        placed, turned = transform_points(points, pose), normals @ pose[:3, :3].T
        partner, apart_m = _nearest(placed, targets)
        facing = fixed_normals[partner]
        good = (apart_m <= reach_m) & (np.einsum("sk,sk->s", turned, facing) >= LEAST_COSINE)
        if np.count_nonzero(good) < FEWEST:
            return None
        pose = _closer(pose, placed[good], targets[partner[good]], facing[good])
    turned_rad = rotation_between_rad(np.eye(3), pose[:3, :3])
    if np.linalg.norm(pose[:3, 3]) > MOST_M or turned_rad > MOST_RAD:
        return None
    pose[:3, 3] += middle - pose[:3, :3] @ middle
    return pose


def _surface(points: Float32, viewpoint: Float64) -> tuple[Float64, Float64]:
    """Voxels and the normals of the planes through each and its neighbours, towards the viewpoint.

    Those with too few neighbours for a plane are left out. (n, 3) → (v, 3), (v, 3)
    """
    voxels, keys, _ = voxel_means(points, VOXEL_M)
    if not len(voxels):
        return np.zeros((0, 3)), np.zeros((0, 3))
    places = voxels.astype(np.float64)
    middle = places.mean(0)
    offsets = places - middle
    # Sums over each voxel and its neighbours: one, the place, and its products with itself.
    own = np.concatenate(
        [
            np.ones((len(places), 1)),
            offsets,
            (offsets[:, :, None] * offsets[:, None]).reshape(-1, 9),
        ],
        axis=1,
    )
    sums = own.copy()
    for one, other in voxel_pairs(keys):
        sums[one] += own[other]
        sums[other] += own[one]
    count = sums[:, :1]
    mean = sums[:, 1:4] / count
    spread = sums[:, 4:].reshape(-1, 3, 3) / count[:, None] - mean[:, :, None] * mean[:, None]
    normals: Float64 = np.linalg.eigh(spread)[1][:, :, 0]
    away = np.einsum("vk,vk->v", normals, places - viewpoint) > 0
    normals[away] *= -1
    enough = count[:, 0] >= FEWEST_IN_PLANE
    return places[enough], normals[enough]


def _nearest(points: Float64, targets: Float64) -> tuple[NDArray[np.intp], Float64]:
    """The nearest target of each point, and its distance, metres. (s, 3), (v, 3) → (s,), (s,)"""
    targets32 = targets.astype(np.float32)
    squared = product(points.astype(np.float32), -2 * targets32.T)
    squared += np.einsum("vk,vk->v", targets32, targets32)
    nearest: NDArray[np.intp] = squared.argmin(1)
    return nearest, np.linalg.norm(points - targets[nearest], axis=1)


def _closer(pose: Float64, points: Float64, targets: Float64, normals: Float64) -> Float64:
    """The pose after one step of least squares, with the whole correction held back by how unlikely
    it is.

    Args:
        pose: So far; its turn is about the frame's origin. (4, 4)
        points: As it places them. (s, 3)
        targets: Their partners. (s, 3)
        normals: At these. (s, 3)
    """
    away = np.einsum("sk,sk->s", points - targets, normals)
    rows = np.concatenate([np.cross(points, normals), normals], axis=1)  # (s, 6)
    doubt = np.maximum(np.abs(away) / NOISE_M, 1.0)  # Huber's loss
    weight = 1.0 / (doubt * NOISE_M**2 * TOGETHER)
    held = np.repeat([LIKELY_RAD**-2.0, LIKELY_M**-2.0], 3)
    so_far = np.concatenate([_rotation_vector(pose[:3, :3]), pose[:3, 3]])
    square = (rows * weight[:, None]).T @ rows + np.diag(held)
    step = -np.linalg.solve(square, rows.T @ (weight * away) + held * so_far)
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = rotation_about(step[:3]), step[3:]
    closer: Float64 = moved @ pose
    return closer


def _rotation_vector(rotation: Float64) -> Float64:
    """Of a small rotation: what `rotation_about` takes, to the third order. (3, 3) → (3,)"""
    vector: Float64 = 0.5 * np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    return vector
