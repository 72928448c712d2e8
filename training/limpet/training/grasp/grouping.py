"""Neighbours of points as plain, fixed-size operations: distances, TopK and rows by index.

Dimension legend: b clouds, n points, m centres, k neighbours, c channels.

Distances are computed in fp32 whatever the network is trained in: at coordinates of half a metre,
half precision knows no millimetres.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

QUADRATIC = 6
"""Numbers of a symmetric 3×3 matrix: xx, yy, zz, xy, xz, yz."""


@contextlib.contextmanager
def single_precision(like: Tensor) -> Iterator[None]:
    """Leaves autocast, where there is any, for what needs the digits of fp32."""
    if torch.is_autocast_enabled(like.device.type):
        with torch.autocast(like.device.type, enabled=False):
            yield
    else:
        yield


def nearness(centres: Tensor, points: Tensor, handicap: Tensor | None = None) -> Tensor:
    """2 c·p - ‖p‖², which orders points as their distance to a centre does, the nearest highest.

    One product does it: ‖c - p‖² without what is the same for all points of a centre.

    Args:
        centres: (b, m, 3)
        points: (b, n, 3)
        handicap: Taken off what a point gets, m². (b, n)

    Returns:
        (b, m, n)
    """
    lengths = (points * points).sum(-1, keepdim=True)
    if handicap is not None:
        lengths = lengths + handicap[..., None]
    left = torch.cat([2.0 * centres, torch.ones_like(centres[..., :1])], -1)
    with single_precision(points):
        return left @ torch.cat([points, -lengths], -1).transpose(-1, -2)


def nearest(centres: Tensor, points: Tensor, k: int, handicap: Tensor | None = None) -> Tensor:
    """Indices of the k points nearest to each centre, in no order; as `nearness`. (b, m, k)"""
    return torch.topk(nearness(centres, points, handicap), k, dim=-1, sorted=False).indices


def take(rows: Tensor, index: Tensor) -> Tensor:
    """Rows by their index in each cloud. (b, n, c), (b, ...) → (b, ..., c)"""
    b, n, c = rows.shape
    first = torch.arange(b, device=rows.device) * n
    flat = (index + first.reshape(b, *([1] * (index.dim() - 1)))).reshape(-1)
    return rows.reshape(b * n, c).index_select(0, flat).reshape(*index.shape, c)


def strongest(values: Tensor, dim: int) -> Tensor:
    """Largest along an axis.

    The gradient of `amax` is shared among equals, which takes it twice as long as that of `max`
    to find the one; a graph that is exported has the plain maximum.
    """
    if values.requires_grad:
        return values.max(dim).values
    return values.amax(dim)


def surface_forms(offsets: Tensor, squarings: int = 5) -> Tensor:
    """How the surface lies around each centre: n nᵀ for its normal n, so without a sign.

    With C the covariance of the neighbours, the matrix tr(C) I - C has its largest eigenvalue along
    the normal; squared again and again, with its trace kept at 1, it becomes n nᵀ on a surface. At
    an edge, where two directions compete, it stays between them.

    Args:
        offsets: Of each centre's neighbours. (b, m, k, 3)
        squarings: How often.

    Returns:
        xx, yy, zz, xy, xz, yz of a matrix of trace 1. (b, m, 6)
    """
    centred = offsets - offsets.mean(-2, keepdim=True)
    identity = torch.eye(3, dtype=offsets.dtype, device=offsets.device)
    with single_precision(offsets):
        covariance = centred.transpose(-1, -2) @ centred  # (b, m, 3, 3)
        spread = (covariance * identity).sum((-1, -2), keepdim=True)
        form = identity - covariance / spread.clamp_min(1e-12)
        for _ in range(squarings):
            form = form / (form * identity).sum((-1, -2), keepdim=True)
            form = form @ form
    form = form / (form * identity).sum((-1, -2), keepdim=True)
    flat = form.flatten(-2)  # rows: xx xy xz yx yy yz zx zy zz
    return torch.stack([flat[..., place] for place in (0, 4, 8, 1, 2, 5)], -1)


def turn_forms(rotation: Tensor) -> Tensor:
    """What turns a quadratic form as `rotation` turns offsets from a frame into the outer one.

    With R's columns the axes of a frame, offsets o become o R and the form F becomes Rᵀ F R; both
    are linear, and this is the matrix of the second for forms as `surface_forms` gives them.

    Args:
        rotation: (..., 3, 3)

    Returns:
        To be multiplied from the right. (..., 6, 6)
    """
    first = [0, 1, 2, 0, 0, 1]
    second = [0, 1, 2, 1, 2, 2]
    rows = []
    for i, j in zip(first, second, strict=True):  # of the old form
        one = rotation[..., i, :][..., first] * rotation[..., j, :][..., second]
        other = rotation[..., j, :][..., first] * rotation[..., i, :][..., second]
        rows.append(one if i == j else one + other)
    return torch.stack(rows, -2)
