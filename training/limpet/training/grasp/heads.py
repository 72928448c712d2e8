"""Which seeds, from where, and how good each grasp there is.

Dimension legend: b scenes, n candidates of all views, s seeds, t approaches of a seed, k points of
a group, a angles, c channels, g channels within a group, h channels of the judgement.

Approaches, angles and depths are those of `limpet.contracts.grasp_frames`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from limpet.contracts.grasp_frames import (
    ANGLES,
    ANGLES_RAD,
    DEPTHS,
    VIEWS,
    approach_directions,
    rotation_of,
)
from limpet.training.grasp.backbone import MIDDLE_M, Neighbourhood
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.fusion import RADIUS_M, AlternatingAttention, CylindricalEmbedding
from limpet.training.grasp.grouping import QUADRATIC, nearest, single_precision, take, turn_forms

HANDICAP_M = 0.03
"""How much nearer to its seed the last candidate of the farthest-point order must be than the first
to get into the group: groups are dense near the seed and reach far."""
TAKEN = 1e4
"""Taken off the scores of directions near one that is chosen; no score comes close to it."""
WIDTH_UNIT_M = 0.1
"""Unit of predicted widths: the widest opening."""


def choose_seeds(objectness: Tensor, graspness: Tensor, views: int, config: GraspConfig) -> Tensor:
    """The candidates of all views that become seeds.

    Args:
        objectness: Probabilities. (b, n)
        graspness: (b, n)
        views: Of which n / views candidates each are given, in farthest-point order.
        config: How many, and how spread out.

    Returns:
        Indices. (b, s)
    """
    value = objectness * graspness.clamp(0.0, 1.0) - config.seed_spread * _places(objectness, views)
    return torch.topk(value, config.seeds, dim=-1).indices


def choose_groups(seeds: Tensor, points: Tensor, views: int, size: int) -> Tensor:
    """The candidates, of all views, by which each seed's grasps are judged.

    Args:
        seeds: (b, s, 3)
        points: (b, n, 3)
        views: As in `choose_seeds`.
        size: k

    Returns:
        Indices. (b, s, k)
    """
    handicap = HANDICAP_M * _places(points[..., 0], views)
    middle = points.mean(1, keepdim=True)  # small numbers: distances are differences of squares
    return nearest(seeds - middle, points - middle, size, handicap * handicap)


def _places(like: Tensor, views: int) -> Tensor:
    """Place of each candidate in its view's farthest-point order, from 0 to below 1. (b, n)"""
    b, n = like.shape
    each = n // views
    order = torch.arange(each, device=like.device, dtype=like.dtype) / each
    return order.expand(b, views, each).reshape(b, n)


class CandidateHead(nn.Module):
    """Whether a candidate is on an object, and how graspable it is there."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 3)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(..., c) → logits of table and object (..., 2), graspness (...)"""
        out = self.layers(features)
        return out[..., :2], out[..., 2]


class ApproachHead(nn.Module):
    """Scores of the 300 approach directions of each seed."""

    directions: Tensor
    frames: Tensor

    def __init__(self, config: GraspConfig) -> None:
        super().__init__()
        c = config.channels
        self.approaches = config.approaches
        self.around = Neighbourhood(c, c, MIDDLE_M)
        self.layers = nn.Sequential(
            nn.LayerNorm(c), nn.Linear(c, 2 * c), nn.ReLU(), nn.Linear(2 * c, VIEWS)
        )
        directions = approach_directions()
        self.near_cosine = float(np.cos(np.deg2rad(config.approach_spacing_deg))) - 1e-6
        frames = rotation_of(directions, np.zeros(VIEWS))
        for name, array in (("directions", directions), ("frames", frames)):
            self.register_buffer(name, torch.tensor(array, dtype=torch.float32), persistent=False)

    def forward(
        self, features: Tensor, points: Tensor, chosen: Tensor, group: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores directions.

        Args:
            features: (b, n, c)
            points: (b, n, 3)
            chosen: Indices of the seeds. (b, s)
            group: Indices of their neighbours. (b, s, k)

        Returns:
            Features of the seeds (b, s, c) and scores (b, s, 300)
        """
        seeds = take(points, chosen)
        own = take(features, chosen) + self.around(features, points, seeds, group)
        return own, self.layers(own)

    def best(self, scores: Tensor) -> Tensor:
        """Indices of each seed's best directions, no two of them near. (b, s, 300) → (b, s, t)"""
        b, s, _ = scores.shape
        left, chosen = scores, []
        for _ in range(self.approaches):
            top = left.argmax(-1)
            chosen.append(top)
            cosines = self.directions.index_select(0, top.reshape(-1)) @ self.directions.T
            near = (cosines > self.near_cosine).to(left.dtype)
            left = left - TAKEN * near.reshape(b, s, VIEWS)
        return torch.stack(chosen, -1)


class GraspHead(nn.Module):
    """Scores and widths of 12 angles and 4 depths in a frame, from the group around its seed.

    What is learnt is how a grasp at angle 0 goes. For the other angles the group is turned, not the
    weights: each point's offset and surface form are rotated about the approach, so that angles
    share all that is learnt, and turning the gripper by one step turns the scores by one.
    """

    turns: Tensor

    def __init__(self, config: GraspConfig) -> None:
        super().__init__()
        c, g = config.channels, config.group_channels
        self.features = nn.Linear(c, g)
        self.offsets = nn.Linear(3, g, bias=False)
        self.cylinder = CylindricalEmbedding(g) if config.cyl_reg else None
        rounds = config.attention_rounds if config.alt_att else 0
        self.attention = AlternatingAttention(g, rounds)
        self.seed = nn.Linear(c, g)
        self.geometry = nn.Linear(3 + QUADRATIC, 24)
        self.turned = nn.Linear(24, HIDDEN)
        self.tokens = nn.Linear(g, HIDDEN)
        self.context = nn.Linear(g, 64)
        self.judged = nn.Linear(HIDDEN, 64)
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2 * DEPTHS))
        self.register_buffer("turns", _turns(), persistent=False)

    def forward(
        self,
        features: Tensor,
        points: Tensor,
        forms: Tensor,
        own: Tensor,
        centres: Tensor,
        group: Tensor,
        frames: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Judges grasps.

        Args:
            features: Of the candidates. (b, n, c)
            points: The same. (b, n, 3)
            forms: The same. (b, n, 6)
            own: Features of the seeds. (b, s, c)
            centres: Where the grasps are. (b, s, 3)
            group: Indices of the seeds' neighbours. (b, s, k)
            frames: Approach, closing direction at angle 0, and height, as columns.
                (b, s, t, 3, 3)

        Returns:
            Scores (b, s, t, a, 4), and widths in units of 10 cm (b, s, t, a, 4)
        """
        b, s, t = frames.shape[:3]
        k = group.shape[-1]
        away = (take(points, group) - centres[:, :, None]) / RADIUS_M  # (b, s, k, 3)
        with single_precision(points):
            offsets = away[:, :, None] @ frames  # (b, s, t, k, 3)
            lie = take(forms, group)[:, :, None] @ turn_forms(frames)  # (b, s, t, k, 6)
        tokens = take(self.features(features), group)[:, :, None] + self.offsets(offsets)
        if self.cylinder is not None:
            tokens = tokens + self.cylinder(offsets * RADIUS_M)
        tokens = self.attention(tokens)

        # Every angle's first layer at once: the weights after the turns. (a, 24, 9)
        first = self.geometry.weight @ self.turns
        seen = torch.cat([offsets, lie], -1) @ first.reshape(ANGLES * 24, 3 + QUADRATIC).T
        seen = seen.reshape(b, s, t, k, ANGLES, 24) + self.geometry.bias
        judged = self.turned(seen.relu()) + self.tokens(tokens)[:, :, :, :, None]
        most = judged.amax(3).relu()  # (b, s, t, a, h)
        context = self.context(tokens.amax(3) + self.seed(own)[:, :, None])
        out = self.out(self.judged(most) + context[:, :, :, None])
        return out[..., :DEPTHS], out[..., DEPTHS:]


HIDDEN = 48


def _turns() -> Tensor:
    """For each angle, what turns a point's offset and form about the approach. (a, 9, 9)

    The closing direction at angle α is cos α y + sin α z, so offsets o become Rᵀ o.
    """
    turns = torch.zeros(ANGLES, 3 + QUADRATIC, 3 + QUADRATIC, dtype=torch.float64)
    for index, angle in enumerate(ANGLES_RAD):
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        axes = torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], dtype=torch.float64)
        turns[index, :3, :3] = axes.T
        turns[index, 3:, 3:] = turn_forms(axes).T
    return turns.float()
