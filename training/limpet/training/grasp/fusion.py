"""Fusing two views after the backbone: SimAli, CylReg and AltAtt.

Source: "A Cross-view Fusion Framework for Robust 6-DoF Grasp Pose Estimation" (arXiv 2606.06878).

Dimension legend: b scenes, v views, m candidates of a view, s seeds, t approaches of a seed,
k neighbours, c channels, g channels within a group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limpet.training.grasp.attention import Attention
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.grouping import single_precision

RADIUS_M = 0.05
"""Unit of lengths in a gripper's frame: half of the widest opening."""


class SimilarityAlignment(nn.Module):
    """SimAli: like points of the two views share their features.

    S_ij = -‖p_i - p_j‖² / scale² + λ cos(f_i, f_j) for i in one view and j in the other; a point's
    features become the mean of its own and of those with S_ij above the threshold. One view alone,
    or a threshold that no pair reaches (λ at the highest), changes nothing.
    """

    def __init__(self, config: GraspConfig) -> None:
        super().__init__()
        self.weight, self.scale_m = config.alignment, config.alignment_scale_m
        self.threshold = config.alignment_threshold

    def forward(self, points: Tensor, features: Tensor, embedded: Tensor) -> Tensor:
        """Averages features.

        Args:
            points: Metres, in one frame. (b, v, m, 3)
            features: (b, v, m, c)
            embedded: Rows of unit length, whose products are the cosines. (b, v, m, e)

        Returns:
            (b, v, m, c)
        """
        here = torch.arange(points.shape[1], device=points.device)
        there = points.shape[1] - 1 - here
        p = (points - points.mean((1, 2), keepdim=True)) / self.scale_m
        length, one = (p * p).sum(-1, keepdim=True), torch.ones_like(p[..., :1])
        # λ e·e' + 2 p·p' - ‖p‖² - ‖p'‖² as one product.
        left = torch.cat([self.weight * embedded, 2.0 * p, -length, one], -1)
        right = torch.cat([embedded, p, one, -length], -1).index_select(1, there)
        with single_precision(points):
            similarity = left @ right.transpose(-1, -2)  # (b, v, m, m)
        alike = (similarity > self.threshold) & (here != there)[:, None, None]
        pairs = alike.to(features.dtype)
        shared = pairs @ features.index_select(1, there)
        return (features + shared) / (1.0 + pairs.sum(-1, keepdim=True))


class CylindricalEmbedding(nn.Module):
    """CylReg: f̂ = f + MLP(θ, r, d) with θ = atan2(z, y), r = √(y² + z²), d = x.

    In the gripper's frame θ is a grasp's rotation, r its width and d its depth. The angle enters by
    its sine and cosine, which do not jump.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, channels), nn.ReLU(), nn.Linear(channels, channels)
        )

    def forward(self, offsets: Tensor) -> Tensor:
        """(..., 3) in the gripper's frame, metres → (..., g)"""
        x, y, z = (offsets / RADIUS_M).unbind(-1)
        radius = (y * y + z * z + 1e-6).sqrt()
        out: Tensor = self.layers(torch.stack([y / radius, z / radius, radius, x], -1))
        return out


class AlternatingAttention(nn.Module):
    """AltAtt: attention of a group's points to one another, then of the seeds, and again.

    What seeds tell one another goes back to every point of the seed's group.

    Args:
        channels: g
        rounds: How often.
    """

    def __init__(self, channels: int, rounds: int) -> None:
        super().__init__()
        self.within = nn.ModuleList(Attention(channels, 2) for _ in range(rounds))
        self.among = nn.ModuleList(Attention(channels, 4) for _ in range(rounds))
        self.back = nn.ModuleList(nn.Linear(channels, channels) for _ in range(rounds))

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, s, t, k, g) → (b, s, t, k, g)"""
        b, s, t, k, g = tokens.shape
        x = tokens.reshape(b * s * t, k, g)
        for within, among, back in zip(self.within, self.among, self.back, strict=True):
            x = within(x)
            seeds = among(x.amax(1).reshape(b, s * t, g))
            x = x + back(seeds).reshape(b * s * t, 1, g)
        return x.reshape(b, s, t, k, g)
