"""Where points lie in the cylinder about an approach, and what that says of grasps at each angle.

A gripper's closing direction turns about the approach; in cylindrical coordinates a turn by one
angle is a shift by one sector. So the cylinder is laid out once for each frame, as 24 sectors by
radius by depth, and weights are shared among sectors: a circular convolution. The 12 angles read
its result at the two sectors where the fingers are, in no order, since a two-finger gripper turned
by half a revolution is the same.

Source of the coordinates: CylReg of "A Cross-view Fusion Framework for Robust 6-DoF Grasp Pose
Estimation" (arXiv 2606.06878); the grid is ours. A network that had to find out from single points
what lies between the fingers learnt several times more slowly.

Dimension legend: b scenes, n candidates of all views, s seeds, t approaches of a seed, k points of
a group, w = 24 sectors, r radii, x depths, g channels of tokens, h channels of sectors, a angles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from limpet.contracts.grasp_frames import ANGLES, DEPTHS
from limpet.training.grasp.grouping import nearest, single_precision, take, turn_forms

SECTORS = 2 * ANGLES
CELL_M = 0.01
"""Size of a cell along radius and depth."""
RADII = 7
"""Radii of cells: 0 to 6 cm, beyond the widest opening and a finger."""
SHALLOWEST, CELLS_DEEP = -2, 7
"""Depths of cells: from 2 cm before the grasp's point to 4 cm behind it, where fingertips reach."""
GRID_POINTS = 96
"""Points of which a grid is made."""
GRID_HANDICAP_M, TOKEN_HANDICAP_M = 0.06, 0.03
"""How much nearer to the seed the last candidate of the farthest-point order must be than the first
to count: the surroundings are known densely near the seed, and far out."""
CHANNELS = 64
CAMERAS = 2
VALUES = 16
"""Channels that tokens give to sectors."""


@dataclass(frozen=True)
class Surroundings:
    """Candidates of all views.

    Attributes:
        views: Of which n / views each are given, in farthest-point order.
        points: (b, n, 3)
        features: (b, n, c)
        forms: How the surface lies, as `surface_forms`. (b, n, 6)
    """

    views: int
    points: Tensor
    features: Tensor
    forms: Tensor


def places(like: Tensor, views: int) -> Tensor:
    """Place of each candidate in its view's farthest-point order, from 0 to below 1. (b, n)"""
    b, n = like.shape
    each = n // views
    order = torch.arange(each, device=like.device, dtype=like.dtype) / each
    return order.expand(b, views, each).reshape(b, n)


def choose_group(seeds: Tensor, points: Tensor, views: int, size: int, handicap_m: float) -> Tensor:
    """The candidates, of all views, around each seed.

    Args:
        seeds: (b, s, 3)
        points: (b, n, 3)
        views: Of which n / views candidates each are given. Two views show much twice, so from
            each of them fewer are taken.
        size: k
        handicap_m: As `GRID_HANDICAP_M`.

    Returns:
        Indices. (b, s, k)
    """
    handicap = views * handicap_m * places(points[..., 0], views)
    middle = points.mean(1, keepdim=True)  # small numbers: distances are differences of squares
    return nearest(seeds - middle, points - middle, size, handicap * handicap)


def seen_by_other(index: Tensor, points: Tensor, views: int) -> Tensor:
    """1 for candidates of the auxiliary view, 0 for those of the reference.

    Args:
        index: Of candidates. (b, s, k)
        points: (b, n, 3)
        views: Of which n / views candidates each are given.

    Returns:
        (b, s, k)
    """
    return (index >= points.shape[1] // views).to(points.dtype)


def turned(offsets: Tensor, frames: Tensor) -> Tensor:
    """Offsets in each frame of their seed. (b, s, k, 3), (b, s, t, 3, 3) → (b, s, t, k, 3)"""
    with single_precision(offsets):
        return offsets[:, :, None] @ frames


class CylinderJudge(nn.Module):
    """Grids and tokens → 4 scores and 4 widths for each angle.

    Args:
        channels: g
    """

    around: Tensor
    radii: Tensor
    depths: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        angle = torch.arange(SECTORS, dtype=torch.float64) * (2.0 * math.pi / SECTORS)
        around = torch.stack([angle.cos(), angle.sin()])
        buffers = {
            "around": around.float(),  # (2, w)
            "radii": torch.arange(RADII) * CELL_M,
            "depths": (torch.arange(CELLS_DEEP) + SHALLOWEST) * CELL_M,
        }
        for name, values in buffers.items():
            self.register_buffer(name, values, persistent=False)
        cells = 2 * CAMERAS * RADII * CELLS_DEEP
        self.norm = nn.LayerNorm(cells)
        self.values = nn.Linear(channels, VALUES)
        self.first = _linear(5 * (cells + VALUES), CHANNELS)
        self.second = _linear(3 * CHANNELS, CHANNELS)
        self.fingers = _linear(2 * CHANNELS, 96)
        self.whole = nn.Linear(CHANNELS + channels, 96)
        self.out = nn.Sequential(nn.ReLU(), _linear(96, 96), nn.ReLU(), _last(96, 2 * DEPTHS))

    def forward(
        self,
        known: Surroundings,
        centres: Tensor,
        frames: Tensor,
        tokens: Tensor,
        offsets: Tensor,
        context: Tensor,
    ) -> Tensor:
        """Judges every angle.

        Args:
            known: The candidates.
            centres: Where the grasps are. (b, s, 3)
            frames: (b, s, t, 3, 3)
            tokens: Of the group around each seed. (b, s, t, k, g)
            offsets: Where they are in the frame. (b, s, t, k, 3)
            context: Of each frame. (b, s, t, g)

        Returns:
            (b, s, t, a, 8)
        """
        grid = self.norm(self.grid(known, centres, frames))
        sectors = self._sectors(offsets)[0].transpose(-1, -2)  # (b, s, t, w, k)
        told = sectors @ self.values(tokens) / tokens.shape[3]
        near = _ring(self.first, torch.cat([grid, told], -1)).relu()
        near = near + _ring(self.second, near).relu()  # (b, s, t, w, h)
        one, other = near[..., :ANGLES, :], near[..., ANGLES:, :]
        fingers = self.fingers(torch.cat([torch.maximum(one, other), one + other], -1))
        whole = self.whole(torch.cat([near.amax(-2), context], -1))
        out: Tensor = self.out(fingers + whole[..., None, :])
        return out

    @torch.no_grad()
    def grid(self, known: Surroundings, centres: Tensor, frames: Tensor) -> Tensor:
        """How much surface is in each cell, and how much of it faces a finger, as the reference
        camera sees it and then as the other does. (b, s, t, w, 4 r x)

        Where one camera is, as seen from the other, is known to some millimetres only. A gripper is
        moved in the reference's frame, so what that camera sees is exact, and what the other adds
        is less so: it is for what is learnt to weigh them, and their sum would not tell them apart.

        Nothing in it is learnt, so training does not go back through it.
        """
        points = known.points
        group = choose_group(centres, points, known.views, GRID_POINTS, GRID_HANDICAP_M)
        offsets = turned(take(points, group) - centres[:, :, None], frames)
        with single_precision(points):
            lie = take(known.forms, group)[:, :, None] @ turn_forms(frames)  # (b, s, t, k, 6)
            sectors, radius, cos, sin = self._sectors(offsets)
            at_radius = (1.0 - (radius - self.radii).abs() / CELL_M).relu()
            at_depth = (1.0 - (offsets[..., :1] - self.depths).abs() / CELL_M).relu()
            cells = (at_radius[..., :, None] * at_depth[..., None, :]).flatten(-2)
            yy, zz, yz = lie[..., 1:2], lie[..., 2:3], lie[..., 5:6]
            facing = yy * cos * cos + zz * sin * sin + 2.0 * yz * cos * sin  # (b, s, t, k, 1)
            other = seen_by_other(group, points, known.views)[:, :, None, :, None]
            seen = torch.cat([cells, cells * facing], -1)
            seen = torch.cat([seen * (1.0 - other), seen * other], -1)
            amount = sectors.transpose(-1, -2) @ seen
            return amount / (0.5 + amount)

    def _sectors(self, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """How much each point belongs to each sector, its radius, and its angle's cosine and sine.

        A point in the middle of a sector belongs to it wholly, one in the middle of the next not.
        """
        y, z = offsets[..., 1:2], offsets[..., 2:3]
        # Not a small number added: the exporter takes an addition of 1e-8 for one of nothing.
        radius = (y * y + z * z).sqrt().clamp_min(1e-4)
        cos, sin = y / radius, z / radius
        least = math.cos(2.0 * math.pi / SECTORS)
        sectors = torch.cat([cos, sin], -1) @ self.around  # (b, s, t, k, w)
        return ((sectors - least) / (1.0 - least)).relu(), radius, cos, sin


class PooledJudge(nn.Module):
    """One vector for each frame → 4 scores and 4 widths for each angle, as in GSNet.

    Args:
        channels: g
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(channels),
            _linear(channels, 192),
            nn.ReLU(),
            _linear(192, 192),
            nn.ReLU(),
            _last(192, ANGLES * 2 * DEPTHS),
        )

    def forward(self, context: Tensor) -> Tensor:
        """(b, s, t, g) → (b, s, t, a, 8)"""
        out: Tensor = self.layers(context)
        return out.reshape(*context.shape[:-1], ANGLES, 2 * DEPTHS)


def _ring(layer: nn.Linear, sectors: Tensor) -> Tensor:
    """A product of each sector with as many neighbours on both sides as the layer takes: a circular
    convolution. (..., w, h) → (..., w, out)

    Each sector is multiplied once, and its share goes to its neighbours: sectors laid side by side
    would take five times the memory, and training most of its time to fill it.
    """
    w, h = sectors.shape[-2:]
    taken = layer.in_features // h
    weights = layer.weight.reshape(-1, taken, h).transpose(0, 1).reshape(-1, h)  # (taken out, h)
    shares = functional.linear(sectors, weights).chunk(taken, -1)
    out: Tensor = layer.bias
    for shift, share in zip(range(-(taken // 2), taken // 2 + 1), shares, strict=True):
        at = shift % w
        out = out + (torch.cat([share[..., at:, :], share[..., :at, :]], -2) if at else share)
    return out


def _linear(channels: int, out: int) -> nn.Linear:
    """With weights that keep the size of what passes through a ReLU (He et al., ICCV 2015)."""
    layer = nn.Linear(channels, out)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def _last(channels: int, out: int) -> nn.Linear:
    """Begins near the mean of what it learns: few grasps hold, and they are half open."""
    layer = nn.Linear(channels, out)
    nn.init.normal_(layer.weight, std=0.01)
    with torch.no_grad():
        begin = torch.tensor([0.08] * DEPTHS + [0.5] * DEPTHS)
        layer.bias.copy_(begin.repeat(out // (2 * DEPTHS)))
    return layer
