"""Neighbours and surface forms agree with their definitions."""

from __future__ import annotations

import numpy as np
import torch

from limpet.contracts.grasp_frames import rotation_of
from limpet.training.grasp.grouping import nearest, nearness, surface_forms, take, turn_forms


def _cloud(n: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(2, n, 3)).astype(np.float32))


def test_neighbours_are_those_at_the_smallest_distance() -> None:
    points = _cloud(200)
    index = nearest(points[:, :50], points, 7)
    wanted = torch.cdist(points[:, :50], points).topk(7, largest=False).indices
    assert torch.equal(index.sort(-1).values, wanted.sort(-1).values)


def test_a_handicap_counts_as_squared_distance() -> None:
    points = _cloud(100)
    handicap = torch.rand(2, 100)
    order = nearness(points[:, :5], points, handicap)
    squared = torch.cdist(points[:, :5], points).square() + handicap[:, None]
    assert torch.allclose(order.diff(dim=-1), -squared.diff(dim=-1), atol=1e-4)


def test_rows_are_taken_from_their_own_cloud() -> None:
    rows = torch.arange(12.0).reshape(2, 3, 2)
    taken = take(rows, torch.tensor([[2, 0], [1, 1]]))
    assert torch.equal(taken, torch.stack([rows[0, [2, 0]], rows[1, [1, 1]]]))


def test_the_form_of_a_plane_is_its_normal_times_itself() -> None:
    rng = np.random.default_rng(1)
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)
    flat = rng.normal(size=(1, 1, 24, 3))
    flat -= (flat @ normal)[..., None] * normal
    x, y, z = normal
    form = surface_forms(torch.from_numpy(flat.astype(np.float32)))[0, 0].numpy()
    wanted = [x * x, y * y, z * z, x * y, x * z, y * z]
    np.testing.assert_allclose(form, wanted, atol=1e-3)


def test_points_at_one_place_have_a_finite_form() -> None:
    assert torch.isfinite(surface_forms(torch.zeros(1, 2, 24, 3))).all()


def test_turning_a_form_is_turning_its_matrix() -> None:
    rng = np.random.default_rng(2)
    rotation = torch.from_numpy(rotation_of(rng.normal(size=3), 0.7))
    half = torch.from_numpy(rng.normal(size=(3, 3)))
    matrix = half + half.T

    def packed(m: torch.Tensor) -> torch.Tensor:
        return torch.stack([m[0, 0], m[1, 1], m[2, 2], m[0, 1], m[0, 2], m[1, 2]])

    turned = packed(matrix) @ turn_forms(rotation)
    torch.testing.assert_close(turned, packed(rotation.T @ matrix @ rotation))
