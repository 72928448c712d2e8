"""The grid of the cylinder about an approach says where points are, for every angle alike."""

from __future__ import annotations

import numpy as np
import torch

from limpet.contracts.grasp_frames import ANGLES, rotation_of
from limpet.training.grasp.cylinder import (
    CAMERAS,
    CELLS_DEEP,
    GRID_POINTS,
    RADII,
    SECTORS,
    SHALLOWEST,
    CylinderJudge,
    PooledJudge,
    Surroundings,
    turned,
)
from limpet.training.grasp.heads import Blocks

FRAME = torch.from_numpy(rotation_of([0.3, -0.5, 0.8], 0.4).astype(np.float32))
CENTRE = torch.tensor([0.1, -0.2, 0.6])


def _grids(
    offset: tuple[float, float, float], normal: tuple[float, float, float], views: int
) -> torch.Tensor:
    """Of points that all are at one offset in FRAME, for each camera. (w, 2, 2, r, x)"""
    n = torch.tensor(normal, dtype=torch.float32) @ FRAME.T
    form = torch.stack([n[0] ** 2, n[1] ** 2, n[2] ** 2, n[0] * n[1], n[0] * n[2], n[1] * n[2]])
    points = (CENTRE + torch.tensor(offset, dtype=torch.float32) @ FRAME.T).expand(
        1, GRID_POINTS, 3
    )
    known = Surroundings(views, points, points, form.expand(1, GRID_POINTS, 6))
    grid = CylinderJudge(8).grid(known, CENTRE[None, None], FRAME[None, None, None])
    return grid[0, 0, 0].reshape(SECTORS, CAMERAS, 2, RADII, CELLS_DEEP)


def _grid(offset: tuple[float, float, float], normal: tuple[float, float, float]) -> torch.Tensor:
    """Of points that the reference camera sees. (w, 2, r, x)"""
    return _grids(offset, normal, 1)[:, 0]


def test_a_point_is_in_the_cell_of_its_angle_radius_and_depth() -> None:
    angle = 2 * np.pi * 5 / SECTORS
    offset = (0.02, 0.03 * np.cos(angle), 0.03 * np.sin(angle))
    grid = _grid(offset, normal=(0.0, np.cos(angle), np.sin(angle)))
    sector, kind, radius, depth = np.unravel_index(
        int(grid[:, :1].argmax()), (SECTORS, 1, RADII, CELLS_DEEP)
    )
    assert (sector, kind, radius, depth) == (5, 0, 3, 2 - SHALLOWEST)
    assert (grid[:, 0] > 0.01).sum() == 1
    # Its surface faces a finger that comes along the radius, so both kinds say the same.
    torch.testing.assert_close(grid[:, 0], grid[:, 1], atol=1e-3, rtol=1e-3)


def test_what_each_camera_sees_is_told_apart() -> None:
    both = _grids((0.0, 0.02, 0.0), (1.0, 0.0, 0.0), views=2)
    assert both[0, :, 0, 2, -SHALLOWEST].min() > 0.9  # half of the points each
    alone = _grids((0.0, 0.02, 0.0), (1.0, 0.0, 0.0), views=1)
    assert alone[0, 0, 0, 2, -SHALLOWEST] > 0.9
    assert alone[:, 1].max() == 0.0


def test_a_surface_square_to_the_approach_faces_no_finger() -> None:
    grid = _grid((0.0, 0.02, 0.0), normal=(1.0, 0.0, 0.0))
    assert grid[0, 0, 2, -SHALLOWEST] > 0.9
    assert grid[:, 1].max() < 1e-3


def test_points_beyond_the_cylinder_do_not_count() -> None:
    for offset in ((0.0, 0.08, 0.0), (0.06, 0.02, 0.0), (-0.04, 0.02, 0.0)):
        assert _grid(offset, normal=(0.0, 1.0, 0.0)).max() == 0.0


def test_offsets_in_a_frame_are_along_its_axes() -> None:
    away = (FRAME @ torch.tensor([0.01, 0.02, 0.03]))[None, None, None]
    torch.testing.assert_close(
        turned(away, FRAME[None, None, None]).flatten(), torch.tensor([0.01, 0.02, 0.03])
    )


def test_angles_half_a_revolution_on_would_be_judged_the_same() -> None:
    """A gripper turned by half a revolution is the same: its fingers only change places."""
    rng = torch.Generator().manual_seed(0)
    points = CENTRE + 0.04 * torch.randn(1, 200, 3, generator=rng)
    forms = torch.rand(1, 200, 6, generator=rng)
    known = Surroundings(1, points, points, forms)
    judge = CylinderJudge(8).eval()
    half = FRAME @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    frames = torch.stack([FRAME, half])[None, None]
    tokens, offsets = torch.zeros(1, 1, 2, 4, 8), torch.full((1, 1, 2, 4, 3), 0.01)
    with torch.no_grad():
        judge.values.bias.zero_()
        out = judge(known, CENTRE[None, None], frames, tokens, offsets, torch.zeros(1, 1, 2, 8))
    torch.testing.assert_close(out[0, 0, 0], out[0, 0, 1], atol=1e-4, rtol=1e-3)


def test_without_a_grid_one_vector_tells_all_angles() -> None:
    assert PooledJudge(8)(torch.randn(2, 3, 4, 8)).shape == (2, 3, 4, ANGLES, 8)


def test_blocks_say_where_the_surface_is_along_the_cameras_axes() -> None:
    points = (CENTRE + torch.tensor([0.03, 0.0, -0.015])).expand(1, GRID_POINTS, 3)
    blocks = Blocks()(CENTRE[None, None], points, 1).reshape(7, 7, 7)
    assert np.unravel_index(int(blocks.argmax()), (7, 7, 7)) == (5, 3, 2)
    assert (blocks > 0.01).sum() == 1
