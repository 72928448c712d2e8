"""The point backbone: a cloud → features of its candidates, the same weights for every view.

Dimension legend: b clouds, n points, m candidates, k neighbours, c channels.

A cloud's candidates are its first points, in farthest-point order, so that the first quarter of the
candidates is a sparser cloud of its own, and its first quarter another: the levels need no sampling
in the graph. Offsets alone are seen, so features do not change when a cloud is moved.

A layer that takes the maximum over neighbours j of relu(a_j - c_i) is relu(max_j a_j - c_i): what
depends on pairs is a gather and a maximum, all products are on points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limpet.training.grasp.attention import Attention
from limpet.training.grasp.grouping import (
    QUADRATIC,
    nearest,
    single_precision,
    strongest,
    surface_forms,
    take,
)

NEAR_M, MIDDLE_M, FAR_M, WIDE_M = 0.01, 0.025, 0.05, 0.1
"""Units of offsets at each level."""
SURFACE_NEIGHBOURS = 24
NEIGHBOURS = 16
COARSENING = 4


@dataclass(frozen=True)
class Features:
    """What the backbone makes of clouds.

    Attributes:
        points: Candidates, metres, as they were given. (b, m, 3)
        features: (b, m, c)
        forms: How the surface lies around each, as `surface_forms`. (b, m, 6)
        scene: Features of the coarsest points. (b, m / 16, c)
    """

    points: Tensor
    features: Tensor
    forms: Tensor
    scene: Tensor


class Backbone(nn.Module):
    """Clouds → features.

    Args:
        candidates: First points of a cloud that get features; divisible by 16.
        channels: Of a feature.
    """

    def __init__(self, candidates: int, channels: int) -> None:
        super().__init__()
        self.candidates = candidates
        narrow = channels // 2
        self.surface = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU())
        self.start = nn.Linear(64 + QUADRATIC, narrow)
        self.local = Neighbourhood(narrow, narrow, MIDDLE_M)
        self.local_mix = Mix(narrow)
        self.sparser = Neighbourhood(narrow, channels, FAR_M)
        self.sparse = Neighbourhood(channels, channels, FAR_M)
        self.sparse_mix = Mix(channels)
        self.coarser = Neighbourhood(channels, channels, WIDE_M)
        self.place = nn.Linear(3, channels)
        self.coarse = nn.Sequential(Attention(channels, 4), Mix(channels))
        self.up_sparse = Joined(channels, channels, channels)
        self.up = Joined(channels, narrow, channels)
        self.last = Neighbourhood(channels, channels, MIDDLE_M)
        self.last_mix = Mix(channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, points: Tensor) -> Features:
        """Describes the candidates.

        Args:
            points: Metres, candidates first in farthest-point order. (b, n, 3)
        """
        m = self.candidates
        # Distances are differences of squares, so the numbers should be small.
        cloud = points - points.mean(1, keepdim=True)
        fine = cloud[:, :m]
        index = nearest(fine, cloud, SURFACE_NEIGHBOURS)
        offsets = take(cloud, index) - fine[:, :, None]  # (b, m, k, 3)
        forms = surface_forms(offsets)
        unit = offsets / NEAR_M
        length = (unit * unit).sum(-1, keepdim=True).sqrt()
        shape = strongest(self.surface(torch.cat([unit, length], -1)), 2)
        f_fine = self.start(torch.cat([shape, forms], -1))
        around = nearest(fine, fine, NEIGHBOURS)
        f_fine = f_fine + self.local(f_fine, fine, fine, around)
        f_fine = self.local_mix(f_fine)

        sparse = fine[:, : m // COARSENING]
        f_sparse = self.sparser(f_fine, fine, sparse, around[:, : m // COARSENING])
        between = nearest(sparse, sparse, NEIGHBOURS)
        f_sparse = f_sparse + self.sparse(f_sparse, sparse, sparse, between)
        f_sparse = self.sparse_mix(f_sparse)

        coarse = sparse[:, : m // COARSENING**2]
        f_coarse = self.coarser(f_sparse, sparse, coarse, between[:, : m // COARSENING**2])
        f_coarse = f_coarse + self.place(coarse / WIDE_M)
        f_coarse = self.coarse(f_coarse)

        f_sparse = self.up_sparse(f_coarse, coarse, f_sparse, sparse)
        f_fine = self.up(f_sparse, sparse, f_fine, fine)
        f_fine = self.last_mix(f_fine + self.last(f_fine, fine, fine, around))
        return Features(points[:, :m], self.norm(f_fine), forms, f_coarse)


class Neighbourhood(nn.Module):
    """relu(max over neighbours of W (f_j, p_j - p_i)), and a product after it.

    Args:
        channels: Of the neighbours' features.
        out: Of the result.
        unit_m: Unit of the offsets.
    """

    def __init__(self, channels: int, out: int, unit_m: float) -> None:
        super().__init__()
        self.unit_m = unit_m
        self.norm = nn.LayerNorm(channels)
        self.features = nn.Linear(channels, out)
        self.offsets = nn.Linear(3, out, bias=False)
        self.after = nn.Linear(out, out)

    def forward(self, features: Tensor, points: Tensor, centres: Tensor, index: Tensor) -> Tensor:
        """(b, n, c), (b, n, 3), (b, m, 3), (b, m, k) → (b, m, out)"""
        with single_precision(points):  # what counts is the difference of these two
            places = self.offsets(points / self.unit_m)
            origins = self.offsets(centres / self.unit_m)
        most = strongest(take(self.features(self.norm(features)) + places, index), 2) - origins
        out: Tensor = self.after(most.relu())
        return out


class Mix(nn.Module):
    """f + W relu(V f), point by point."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(..., c) → (..., c)"""
        out: Tensor = features + self.layers(features)
        return out


class Joined(nn.Module):
    """Features of a sparser cloud at the points of a finer one, joined with its own.

    The three nearest count by their inverse squared distance (PointNet++, arXiv 1706.02413).
    """

    def __init__(self, sparse: int, fine: int, out: int) -> None:
        super().__init__()
        self.sparse = nn.Linear(sparse, out)
        self.fine = nn.Linear(fine, out)

    def forward(self, f_sparse: Tensor, sparse: Tensor, f_fine: Tensor, fine: Tensor) -> Tensor:
        """(b, m, c), (b, m, 3), (b, n, c'), (b, n, 3) → (b, n, out)"""
        index = nearest(fine, sparse, 3)
        offsets = (take(sparse, index) - fine[:, :, None]) / NEAR_M
        weights = 1.0 / ((offsets * offsets).sum(-1, keepdim=True) + 0.01)
        weights = weights / weights.sum(2, keepdim=True)
        spread = (take(self.sparse(f_sparse), index) * weights).sum(2)
        out: Tensor = (spread + self.fine(f_fine)).relu()
        return out
