"""Cross-view contrast: L_con pulls what is one location, L_dis pushes what is grasped otherwise.

Source: "A Cross-view Fusion Framework for Robust 6-DoF Grasp Pose Estimation" (arXiv 2606.06878);
features are of unit length, so a margin of at most 2 fits their distances of at most 2.

Dimension legend: n candidates of all views, m of one view, p pairs, e embedding.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from limpet.training.grasp.matching import NO_OBJECT

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]


def pull(first: Tensor, second: Tensor) -> Tensor:
    """L_con = mean ‖f1 - f2‖², 0 without pairs. (p, e), (p, e)"""
    return (first - second).square().sum(-1).sum() / max(len(first), 1)


def push(first: Tensor, second: Tensor, cosine: Tensor) -> Tensor:
    """L_dis = mean max(0, M - ‖f1 - f2‖)² with M = 1 - cos θ, 0 without pairs.

    Args:
        first: Features of one of each pair. (p, e)
        second: Of the other. (p, e)
        cosine: Of the angle θ between the pairs' best approach directions. (p,)
    """
    # The gradient of a root is infinite at 0, where two features coincide.
    distance = ((first - second).square().sum(-1) + 1e-12).sqrt()
    return (1.0 - cosine - distance).relu().square().sum() / max(len(first), 1)


def matches(
    points: Float32, owner: Indices, views: int, within_m: float
) -> tuple[Indices, Indices]:
    """Candidates of two views that are one location: each the other's nearest, on one object.

    Args:
        points: In one frame, metres. (n, 3)
        owner: Object of each, `NO_OBJECT` for none. (n,)
        views: 1, when there is no match, or 2.
        within_m: Largest distance.

    Returns:
        Indices of both. (p,), (p,)
    """
    m = len(points) // views
    if views == 1:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    here, there = points[:m], points[m:]
    apart, onward = cKDTree(there).query(here)
    back = cKDTree(here).query(there)[1]
    first = np.arange(m)
    kept = (back[onward] == first) & (apart <= within_m)
    kept &= (owner[:m] == owner[m:][onward]) & (owner[:m] != NO_OBJECT)
    return first[kept], m + onward[kept]


def non_matches(
    owner: Indices, approach: Float32, unlike_deg: float, count: int, rng: np.random.Generator
) -> tuple[Indices, Indices, Float32]:
    """Random pairs on one object, of any views, whose best approaches differ clearly.

    Args:
        owner: Object of each candidate, `NO_OBJECT` for none, and where no approach suits. (n,)
        approach: Direction from which each is grasped best, unit length. (n, 3)
        unlike_deg: Least angle between them.
        count: Pairs to draw; those that do not differ are left out.
        rng: Draws them.

    Returns:
        Indices of both, and the cosine of the angle. (p,), (p,), (p,)
    """
    order = np.argsort(owner, kind="stable")
    order = order[owner[order] != NO_OBJECT]
    if not len(order):
        return np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.float32)
    sorted_owner = owner[order]
    start = np.searchsorted(sorted_owner, sorted_owner, "left")
    stop = np.searchsorted(sorted_owner, sorted_owner, "right")
    one = rng.integers(0, len(order), count)
    other = start[one] + (rng.random(count) * (stop - start)[one]).astype(np.intp)
    first, second = order[one], order[other]
    cosine = (approach[first] * approach[second]).sum(1)
    kept = cosine <= np.cos(np.deg2rad(unlike_deg))
    return first[kept], second[kept], cosine[kept].astype(np.float32)


def contrast(
    embedded: Tensor, first: Indices, second: Indices, cosine: Float32 | None = None
) -> Tensor:
    """`pull` of pairs, or with angles `push`. (n, e) and indices of rows"""
    device = embedded.device
    one = embedded.index_select(0, torch.from_numpy(first).to(device))
    other = embedded.index_select(0, torch.from_numpy(second).to(device))
    if cosine is None:
        return pull(one, other)
    return push(one, other, torch.from_numpy(cosine).to(device))
