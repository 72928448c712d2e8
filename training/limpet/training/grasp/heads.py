"""Which seeds, from where, and how good each grasp there is.

Dimension legend: b scenes, n candidates of all views, s seeds, t approaches of a seed, k points of
a group, a angles, c channels, g channels within a group.

Approaches, angles and depths are those of `limpet.contracts.grasp_frames`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from limpet.contracts.grasp_frames import (
    DEPTHS,
    VIEWS,
    approach_directions,
    rotation_of,
)
from limpet.training.grasp.backbone import MIDDLE_M, Neighbourhood
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.cylinder import (
    GRID_HANDICAP_M,
    GRID_POINTS,
    CylinderJudge,
    PooledJudge,
    Surroundings,
    choose_group,
    places,
    seen_by_other,
    turned,
)
from limpet.training.grasp.fusion import RADIUS_M, AlternatingAttention, CylindricalEmbedding
from limpet.training.grasp.grouping import single_precision, strongest, take

TAKEN = 1e4
"""Taken off the scores of directions near one that is chosen; no score comes close to it."""
BLOCKS, BLOCK_M = 7, 0.015
"""Blocks along each axis around a seed, and their size."""
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
    value = objectness * graspness.clamp(0.0, 1.0) - config.seed_spread * places(objectness, views)
    return torch.topk(value, config.seeds, dim=-1).indices


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


class Blocks(nn.Module):
    """How much surface is where around a seed, in blocks along the camera's axes.

    Approach directions are scored in the camera's frame. What blocks the way to a seed can be read
    off these, where features of points would have to learn it. Nothing in it is learnt.
    """

    centres: Tensor

    def __init__(self) -> None:
        super().__init__()
        centres = (torch.arange(BLOCKS) - (BLOCKS - 1) / 2) * BLOCK_M
        self.register_buffer("centres", centres, persistent=False)

    @torch.no_grad()
    def forward(self, seeds: Tensor, points: Tensor, views: int) -> Tensor:
        """(b, s, 3), (b, n, 3) → (b, s, 343)"""
        group = choose_group(seeds, points, views, GRID_POINTS, GRID_HANDICAP_M)
        offsets = take(points, group) - seeds[:, :, None]  # (b, s, k, 3)
        inside = (1.0 - (offsets[..., None] - self.centres).abs() / BLOCK_M).relu()
        x, y, z = inside.unbind(-2)  # (b, s, k, 7)
        level = (x[..., :, None] * y[..., None, :]).flatten(-2)
        with single_precision(points):
            amount = level.transpose(-1, -2) @ z
        return (amount / (0.5 + amount)).flatten(-2)


class ApproachHead(nn.Module):
    """Scores of the 300 approach directions of each seed."""

    directions: Tensor
    frames: Tensor

    def __init__(self, config: GraspConfig) -> None:
        super().__init__()
        c = config.channels
        self.approaches = config.approaches
        self.around = Neighbourhood(c, c, MIDDLE_M)
        self.blocks = Blocks()
        self.seen = nn.Sequential(
            nn.LayerNorm(BLOCKS**3), nn.Linear(BLOCKS**3, c), nn.ReLU(), nn.Linear(c, c)
        )
        self.layers = nn.Sequential(
            nn.LayerNorm(c), nn.Linear(c, 2 * c), nn.ReLU(), nn.Linear(2 * c, VIEWS)
        )
        directions = approach_directions()
        self.near_cosine = float(np.cos(np.deg2rad(config.approach_spacing_deg))) - 1e-6
        frames = rotation_of(directions, np.zeros(VIEWS))
        for name, array in (("directions", directions), ("frames", frames)):
            self.register_buffer(name, torch.tensor(array, dtype=torch.float32), persistent=False)

    def forward(
        self,
        features: Tensor,
        points: Tensor,
        chosen: Tensor,
        centres: Tensor,
        group: Tensor,
        views: int,
    ) -> tuple[Tensor, Tensor]:
        """Scores directions.

        Args:
            features: (b, n, c)
            points: (b, n, 3)
            chosen: Indices of the seeds. (b, s)
            centres: Where their grasps are. (b, s, 3)
            group: Indices of their neighbours. (b, s, k)
            views: Of which n / views candidates each are given.

        Returns:
            Features of the seeds (b, s, c) and scores (b, s, 300)
        """
        seeds = take(points, chosen)
        own = take(features, chosen) + self.around(features, points, seeds, group)
        own = own + self.seen(self.blocks(centres, points, views))
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
    """Scores and widths of 12 angles and 4 depths in a frame, from the points around it.

    Two things are known of a grasp: what its surroundings are, as tokens that tell which camera saw
    them, that CylReg places and AltAtt lets attend to one another, and where its surroundings lie,
    as a grid of the cylinder about the approach (`limpet.training.grasp.cylinder`). Without CylReg
    there is no grid and no token knows its rotation: one vector for each frame has to tell all
    angles, as in GSNet.
    """

    def __init__(self, config: GraspConfig) -> None:
        super().__init__()
        c, g = config.channels, config.group_channels
        self.group = config.group
        self.features = nn.Linear(c, g)
        self.offsets = nn.Linear(3, g, bias=False)
        self.other = nn.Parameter(torch.zeros(g))
        rounds = config.attention_rounds if config.alt_att else 0
        self.attention = AlternatingAttention(g, rounds)
        self.seed = nn.Linear(c, g)
        self.cylinder = CylindricalEmbedding(g) if config.cyl_reg else None
        self.judge = CylinderJudge(g) if config.cyl_reg else PooledJudge(g)

    def forward(
        self,
        known: Surroundings,
        own: Tensor,
        centres: Tensor,
        group: Tensor,
        frames: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Judges grasps.

        Args:
            known: The candidates.
            own: Features of the seeds. (b, s, c)
            centres: Where the grasps are. (b, s, 3)
            group: Indices of the seeds' neighbours. (b, s, k)
            frames: Approach, closing direction at angle 0, and height, as columns.
                (b, s, t, 3, 3)

        Returns:
            Scores (b, s, t, a, 4), and widths in units of 10 cm (b, s, t, a, 4)
        """
        offsets = turned(take(known.points, group) - centres[:, :, None], frames)
        other = seen_by_other(group, known.points, known.views)[..., None]
        tokens = (take(self.features(known.features), group) + other * self.other)[:, :, None]
        tokens = tokens + self.offsets(offsets / RADIUS_M)
        if self.cylinder is not None:
            tokens = tokens + self.cylinder(offsets)
        tokens = self.attention(tokens)
        context = strongest(tokens, 3) + self.seed(own)[:, :, None]  # (b, s, t, g)
        if isinstance(self.judge, CylinderJudge):
            out = self.judge(known, centres, frames, tokens, offsets, context)
        else:
            out = self.judge(context)
        return out[..., :DEPTHS], out[..., DEPTHS:]
