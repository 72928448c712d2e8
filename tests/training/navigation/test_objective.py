"""The contrastive losses against their definitions, and what each arm may know.

Dimension legend: n frames, e embedding.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from limpet.contracts.errors import DataError
from limpet.training.navigation.encoder import Encoder
from limpet.training.navigation.frames import Frames, open_frames
from limpet.training.navigation.hardening import attack
from limpet.training.navigation.objective import Batches, multi_positive, ranked, temperatures
from tests.navigation_frames import CONFIG, write_pairs

RNG = np.random.default_rng(0)


def unit(n: int, e: int = 5) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(RNG.normal(size=(n, e))), dim=1)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return open_frames(write_pairs(tmp_path_factory.mktemp("pairs")), CONFIG.image)


def test_the_multi_positive_loss_is_the_paper_s() -> None:
    z, n = unit(6), 6
    tau = torch.from_numpy(RNG.uniform(0.1, 1.0, (n, n)))
    positive = torch.zeros(n, n, dtype=torch.bool)
    positive[0, 1] = positive[1, 0] = positive[0, 2] = positive[3, 4] = True
    negative = ~positive & ~torch.eye(n, dtype=torch.bool)
    negative[0, 5] = False
    losses = []
    for i in (0, 1, 3):  # frames without a positive say nothing
        attract = sum(math.exp(z[i] @ z[j] / tau[i, j]) for j in range(n) if positive[i, j])
        repel = sum(math.exp(z[i] @ z[j] / tau[i, j]) for j in range(n) if negative[i, j])
        losses.append(-math.log(attract / (attract + repel)))
    found = multi_positive(z, tau, positive, negative)
    assert float(found) == pytest.approx(sum(losses) / 3)


def test_the_ranked_loss_contrasts_each_frame_with_all_that_are_farther() -> None:
    z, n = unit(5), 5
    distance = torch.from_numpy(RNG.uniform(size=(n, n)))
    losses = []
    for i in range(n):
        for j in set(range(n)) - {i}:
            farther = [k for k in range(n) if k != i and distance[i, k] >= distance[i, j]]
            total = sum(math.exp(z[i] @ z[k] / 0.2) for k in farther)
            losses.append(-math.log(math.exp(z[i] @ z[j] / 0.2) / total))
    assert float(ranked(z, distance, 0.2)) == pytest.approx(sum(losses) / len(losses))


def test_embeddings_in_the_order_of_geometry_lose_least() -> None:
    angle = torch.linspace(0, 2, 12)
    z = torch.stack([angle.cos(), angle.sin()], 1)
    distance = (angle[:, None] - angle).abs()
    shuffled = z[torch.from_numpy(RNG.permutation(12))]
    assert ranked(z, distance, 0.1) < ranked(shuffled, distance, 0.1)


def test_the_temperature_grows_with_what_the_configuration_says() -> None:
    distance = torch.tensor([[0.0, 0.5, 1.0]])
    for grows, wanted in (
        ("distance", [0.1, 0.55, 1.0]), ("similarity", [1.0, 0.55, 0.1]), ("fixed", [0.1] * 3),
    ):  # fmt: skip
        config = msgspec.structs.replace(CONFIG, temperature=grows)
        assert temperatures(distance, config)[0].tolist() == pytest.approx(wanted)


def test_a_batch_has_other_views_of_the_same_poses_and_is_repeatable(frames: Frames) -> None:
    batches = Batches(frames, CONFIG)
    first, again = (batches.draw(np.random.default_rng(7)) for _ in range(2))
    assert (first.images == again.images).all()
    assert (first.images[0] != first.images[1]).any(axis=(1, 2, 3)).all()
    assert first.distance.shape == (CONFIG.batch, CONFIG.batch)
    assert not np.diag(first.distance).any()
    np.testing.assert_allclose(first.distance, first.distance.T, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "guided"), [("multi_positive", True), ("ranked", True), ("simclr", False)]
)
def test_only_guided_arms_depend_on_the_lidar(frames: Frames, objective: str, guided: bool) -> None:
    config = msgspec.structs.replace(CONFIG, objective=objective)
    other = dataclasses.replace(frames, lidar=frames.lidar[::-1].copy())
    losses = [
        Batches(data, config).loss(Encoder(config), np.random.default_rng(1), "cpu")["loss"].item()
        for data in (frames, other)
    ]
    assert (losses[0] != losses[1]) is guided


def test_simclr_sees_two_views_of_one_image(frames: Frames) -> None:
    config = msgspec.structs.replace(CONFIG, objective="simclr")
    draw = Batches(frames, config).draw(np.random.default_rng(3))
    assert (draw.images[0] == draw.images[1]).all()
    assert draw.crops is not None
    assert (draw.crops[0] != draw.crops[1]).any()


def test_an_attack_raises_the_loss_and_stays_within_its_size() -> None:
    config = msgspec.structs.replace(CONFIG, attack_steps=3, attack_size=0.02)
    encoder = Encoder(config).eval()
    images = torch.from_numpy(RNG.uniform(-2, 2, (6, 3, 32, 32)).astype(np.float32))
    with torch.no_grad():
        target = encoder(images).roll(1, 0)

    def loss_of(changed: Tensor) -> Tensor:
        return -(encoder(changed) * target).sum()

    attacked = attack(images, loss_of, config.image, config.attack_size, config.attack_steps)
    assert loss_of(attacked) > loss_of(images)
    assert float((attacked - images).abs().max()) <= 0.02 / 0.25 + 1e-6
    assert float(attacked.abs().max()) <= 2.0 + 1e-6  # black and white, normalised
    assert not attacked.requires_grad


def test_hardened_training_leaves_the_running_statistics_to_the_real_pass(
    frames: Frames,
) -> None:
    config = msgspec.structs.replace(CONFIG, objective="ranked", attack_steps=2)
    encoder = Encoder(config)
    loss = Batches(frames, config).loss(encoder, np.random.default_rng(0), "cpu")["loss"]
    loss.backward()
    assert encoder.training
    assert int(encoder.state_dict()["features.0.1.num_batches_tracked"]) == 1
    assert all(weight.grad is not None for weight in encoder.parameters())


def test_too_few_poses_and_unknown_goals_are_refused(frames: Frames) -> None:
    with pytest.raises(DataError, match="has 72 poses, a batch takes 100"):
        Batches(frames, msgspec.structs.replace(CONFIG, batch=100))
    blind = dataclasses.replace(frames, goals=None)
    with pytest.raises(DataError, match="knows no goals"):
        Batches(blind, msgspec.structs.replace(CONFIG, similarity="product"))


def test_goals_can_guide_too(frames: Frames) -> None:
    drawn = {
        similarity: Batches(frames, msgspec.structs.replace(CONFIG, similarity=similarity))
        .draw(np.random.default_rng(2))
        .distance
        for similarity in ("lidar", "goal", "product")
    }
    alike = (1 - drawn["lidar"]) * (1 - drawn["goal"])
    np.testing.assert_allclose(1 - drawn["product"], alike, atol=1e-5)


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"coldest 2.0 is above warmest 1.0"):
        msgspec.structs.replace(CONFIG, coldest=2.0)
