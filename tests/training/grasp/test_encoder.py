"""Laws of the grasp encoder, with fresh weights."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from limpet.contracts.grasp_frames import ANGLES, approach_directions, rotation_of
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.cylinder import TOKEN_HANDICAP_M, choose_group
from limpet.training.grasp.encoder import GraspEncoder
from limpet.training.grasp.fusion import SimilarityAlignment
from limpet.training.grasp.heads import choose_seeds

CONFIG = GraspConfig()
M = CONFIG.cloud.candidates


@pytest.fixture(scope="module")
def encoder() -> GraspEncoder:
    return GraspEncoder(CONFIG).eval()


def scene(views: int = 1, seed: int = 0) -> Tensor:
    """Balls on a table, half a metre away, each view another sampling of them. (v, N, 3)"""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-0.15, 0.15, (6, 2))
    clouds = []
    for _ in range(views):
        out = rng.normal(size=(6, 550, 3))
        out = 0.03 * out / np.linalg.norm(out, axis=-1, keepdims=True)
        out[..., :2] += centres[:, None]
        out[..., 2] += 0.57
        table = np.column_stack([rng.uniform(-0.2, 0.2, (796, 2)), np.full(796, 0.6)])
        clouds.append(np.concatenate([rng.permutation(out.reshape(-1, 3)), table]))
    return torch.from_numpy(np.stack(clouds).astype(np.float32))


@torch.no_grad()
def test_outputs_have_the_shapes_ranges_and_order_of_the_graph(encoder: GraspEncoder) -> None:
    s, t, e = CONFIG.seeds, CONFIG.approaches, CONFIG.embedding
    for views in (1, 2):
        points = scene(views)
        out = encoder(points)
        shapes = [tuple(each.shape) for each in out]
        grid = (s, t, 12, 4)
        assert shapes == [(e,), (s, 3), (s, e), (s,), (s,), (s, t, 3), grid, grid]
        embedding, seeds, seed_embedding, objectness, graspness, approach, score, width = out
        for rows in (embedding, seed_embedding, approach):
            torch.testing.assert_close(rows.norm(dim=-1), torch.ones(rows.shape[:-1]))
        for share in (objectness, graspness, score):
            assert share.min() >= 0
            assert share.max() <= 1
        assert width.max() <= 0.1
        candidates = {tuple(row) for row in points[:, :M].reshape(-1, 3).tolist()}
        assert {tuple(row) for row in seeds.tolist()} <= candidates


@torch.no_grad()
def test_the_order_of_points_that_are_no_candidates_does_not_matter(encoder: GraspEncoder) -> None:
    points = scene(2)
    shuffled = points.clone()
    shuffled[:, M:] = points[
        :, M + torch.randperm(points.shape[1] - M, generator=torch.manual_seed(1))
    ]
    one, other = encoder.describe(points[None]), encoder.describe(shuffled[None])
    torch.testing.assert_close(one.features, other.features, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(one.scene, other.scene, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_moving_the_camera_without_turning_it_moves_seeds_alone(encoder: GraspEncoder) -> None:
    points = scene(1)
    shift = torch.tensor([0.05, -0.1, 0.2])
    one, other = encoder.describe(points[None]), encoder.describe(points[None] + shift)
    torch.testing.assert_close(one.points + shift, other.points)
    # Rounding of coordinates exchanges a few neighbours that are equally near.
    assert (one.graspness - other.graspness).abs().quantile(0.98) < 1e-3


@torch.no_grad()
def test_a_second_view_of_somewhere_else_leaves_the_first_views_candidates_as_they_were(
    encoder: GraspEncoder,
) -> None:
    here, elsewhere = scene(1), scene(1, seed=5) + torch.tensor([3.0, 0.0, 0.0])
    alone = encoder.describe(here[None])
    both = encoder.describe(torch.cat([here, elsewhere])[None])
    torch.testing.assert_close(both.features[:, :M], alone.features, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_exchanging_the_views_exchanges_the_candidates(encoder: GraspEncoder) -> None:
    points = scene(2)
    one, other = encoder.describe(points[None]), encoder.describe(points.flip(0)[None])
    exchanged = other.features.reshape(2, M, -1).flip(0).reshape(1, 2 * M, -1)
    torch.testing.assert_close(one.features, exchanged, atol=1e-4, rtol=1e-3)


def _aligned(config: GraspConfig, points: Tensor, features: Tensor) -> Tensor:
    embedded = torch.nn.functional.normalize(features, dim=-1)
    out: Tensor = SimilarityAlignment(config)(points, features, embedded)
    return out


def test_sim_ali_with_a_threshold_above_the_highest_similarity_changes_nothing() -> None:
    points, features = scene(2)[None, :, :64], torch.randn(1, 2, 64, 8)
    config = msgspec.structs.replace(CONFIG, alignment_threshold=CONFIG.alignment + 0.01)
    assert torch.equal(_aligned(config, points, features), features)


def test_sim_ali_leaves_one_view_alone() -> None:
    points, features = scene(1)[None, :, :64], torch.randn(1, 1, 64, 8)
    config = msgspec.structs.replace(CONFIG, alignment_threshold=-100.0)
    assert torch.equal(_aligned(config, points, features), features)


def test_sim_ali_averages_what_is_alike_in_place_and_features_and_nothing_else() -> None:
    points = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]]]).repeat(2, 1, 1)[None]
    features = torch.tensor(
        [[[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], [[4.0, 0.0], [0.0, 4.0], [0.0, 4.0]]]
    )
    out = _aligned(CONFIG, points, features[None])[0]
    # The second pair is at one place but unlike: its cosine of 0 is below the threshold.
    wanted = [[[3.0, 0.0], [2.0, 0.0], [0.0, 3.0]], [[3.0, 0.0], [0.0, 4.0], [0.0, 3.0]]]
    torch.testing.assert_close(out, torch.tensor(wanted))


@torch.no_grad()
def test_turning_the_gripper_by_one_step_turns_what_the_grid_says_by_one() -> None:
    encoder = GraspEncoder(msgspec.structs.replace(CONFIG, alt_att=False)).eval()
    # Tokens know where the frame's own zero is.
    encoder.grasp.offsets.weight.zero_()
    assert encoder.grasp.cylinder is not None
    encoder.grasp.cylinder.layers[-1].weight.zero_()
    known = encoder.describe(scene(1)[None])
    chosen = torch.arange(0, 1000, 4)[None, :8]
    centres = known.points[:, chosen[0]]
    group, own, _ = encoder.approaches(known, chosen, centres)
    approach = approach_directions()[40]
    frames = torch.from_numpy(
        rotation_of(approach, np.pi / ANGLES * np.arange(2)).astype(np.float32)
    )
    frames = frames.expand(1, 8, 2, 3, 3)
    score, width = encoder.grade(known, centres, group, own, frames)
    for grid in (score, width):
        torch.testing.assert_close(grid[:, :, 0, 1:], grid[:, :, 1, :-1], atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_approaches_of_a_seed_are_the_best_ones_and_lie_apart(encoder: GraspEncoder) -> None:
    scores = torch.randn(1, 20, 300, generator=torch.manual_seed(0))
    best = encoder.approach.best(scores)
    assert torch.equal(best[..., 0], scores.argmax(-1))
    directions = encoder.approach.directions[best]
    cosine = directions @ directions.transpose(-1, -2)
    off = cosine[..., ~torch.eye(CONFIG.approaches, dtype=torch.bool)]
    assert off.max() <= np.cos(np.deg2rad(CONFIG.approach_spacing_deg))


def test_of_equal_graspness_the_candidates_first_in_their_order_become_seeds() -> None:
    flat = torch.ones(1, 2 * M)
    chosen = choose_seeds(flat, flat, 2, CONFIG)[0]
    half = CONFIG.seeds // 2
    assert sorted(chosen.tolist()) == [*range(half), *range(M, M + half)]
    graspness = torch.zeros(1, 2 * M)
    graspness[0, -CONFIG.seeds :] = 1.0
    assert sorted(choose_seeds(flat, graspness, 2, CONFIG)[0].tolist()) == [
        *range(2 * M - CONFIG.seeds, 2 * M)
    ]


def test_groups_hold_near_points_of_both_views() -> None:
    points = scene(2)[:, :M].reshape(1, 2 * M, 3)
    group = choose_group(points[:, :4], points, 2, 32, TOKEN_HANDICAP_M)
    distance = (points[0, group[0]] - points[0, :4, None]).norm(dim=-1)
    assert distance.max() < 0.06
    assert (group < M).any()
    assert (group >= M).any()


def test_switches_change_the_network() -> None:
    sizes = {
        name: sum(weight.numel() for weight in GraspEncoder(config).parameters())
        for name, config in {
            "whole": CONFIG,
            "no CylReg": msgspec.structs.replace(CONFIG, cyl_reg=False),
            "no AltAtt": msgspec.structs.replace(CONFIG, alt_att=False),
        }.items()
    }
    assert sizes["whole"] <= 1_000_000
    assert sizes["no CylReg"] < sizes["whole"]
    assert sizes["no AltAtt"] < sizes["whole"]
    assert GraspEncoder(msgspec.structs.replace(CONFIG, sim_ali=False)).align is None


def test_the_seed_gives_the_weights() -> None:
    one, same = GraspEncoder(CONFIG).state_dict(), GraspEncoder(CONFIG).state_dict()
    other = GraspEncoder(msgspec.structs.replace(CONFIG, seed=1)).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["project.weight"], other["project.weight"])
