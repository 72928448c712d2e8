"""The plane that objects stand on, found in a cloud: seeded, the same on every machine.

Dimension legend: n points, h hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.products import along, product

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

HYPOTHESES = 256
"""Planes tried. Where half of the points lie on one, a triple hits it with p = 1/8: 256 miss it
once in 10^15 clouds."""
POINTS = 2048
"""Points that vote; more cost time and change nothing."""
BELOW_WEIGHT = 0.5
"""What a point behind a plane takes from its votes: a table has nothing below, a box's side has."""
_REFINEMENTS = 3


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane, its normal towards the camera at the frame's origin.

    Attributes:
        normal: Unit vector. (3,)
        offset_m: Height of the origin above the plane: height = points · normal + offset.
        share: Part of the voters that lie on it, 0 to 1.
    """

    normal: Float64
    offset_m: float
    share: float

    def heights(self, points: NDArray[np.floating]) -> Float32:
        """Heights above the plane, metres; positive on the camera's side. (n, 3) → (n,)"""
        heights: Float32 = along(points.astype(np.float32, copy=False), self.normal)
        heights += np.float32(self.offset_m)
        return heights

    def axes(self) -> Float64:
        """Two unit vectors in the plane. (2, 3)"""
        smallest = np.eye(3)[np.argmin(np.abs(self.normal))]
        first = np.cross(self.normal, smallest)
        first /= np.linalg.norm(first)
        return np.stack([first, np.cross(self.normal, first)])


def scattered(count: int, seed: int = 0) -> NDArray[np.uint64]:
    """Numbers without pattern, the same with every version of NumPy. (count,)

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (SplitMix64).
    """
    z: NDArray[np.uint64] = np.arange(count, dtype=np.uint64) + np.uint64(seed * 0x9E3779B1 + 1)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def thin(points: Float32, most: int, seed: int = 0) -> Float32:
    """At most `most` of the points, without pattern. (n, 3) → (m, 3)"""
    if len(points) <= most:
        return points
    thinned: Float32 = points[scattered(most, seed) % np.uint64(len(points))]
    return thinned


def find_plane(
    points: Float32,
    *,
    within_m: float,
    least_share: float,
) -> Plane | None:
    """The plane that most of the points lie on, with few behind it.

    Args:
        points: In a camera's frame. (n, 3)
        within_m: How far from it a point counts as lying on it.
        least_share: Part of the points that has to lie on it.

    Returns:
        None where no plane holds that many.
    """
    voters = thin(points, POINTS, seed=1).astype(np.float64)  # (n, 3)
    if len(voters) < 3:
        return None
    triples = (scattered(3 * HYPOTHESES, seed=2) % np.uint64(len(voters))).reshape(3, -1)
    a, b, c = voters[triples]  # (h, 3) each
    normals = np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1)
    good = length > 1e-6  # a square millimetre: the three are no line
    normals, a = normals[good] / length[good, None], a[good]
    offsets = -np.einsum("hk,hk->h", normals, a)
    side = np.where(offsets < 0, -1.0, 1.0)
    normals, offsets = normals * side[:, None], offsets * side
    if not len(normals):
        return None
    heights = product(voters.astype(np.float32), normals.T.astype(np.float32))  # (n, h)
    heights += offsets.astype(np.float32)
    on = (np.abs(heights) <= within_m).sum(0)
    below = (heights < -4 * within_m).sum(0)
    best = int(np.argmax(on - BELOW_WEIGHT * below))
    normal, offset = normals[best], float(offsets[best])
    for _ in range(_REFINEMENTS):
        on_plane = voters[np.abs(along(voters, normal) + offset) <= within_m]
        if len(on_plane) < 3:
            return None
        centre = on_plane.mean(0)
        spread = on_plane - centre
        _, directions = np.linalg.eigh(spread.T @ spread)
        normal = directions[:, 0]  # of the smallest variance
        offset = -float(normal @ centre)
        if offset < 0:
            normal, offset = -normal, -offset
    share = float((np.abs(along(voters, normal) + offset) <= within_m).mean())
    return Plane(normal, offset, share) if share >= least_share else None
