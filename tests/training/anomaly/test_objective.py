"""The contrastive objective, and the batches that it is given.

Dimension legend: b sequences, t frames, f features, e embedding.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.data import Stretch
from limpet.training.anomaly.encoder import CausalEncoder
from limpet.training.anomaly.objective import (
    NEGATIVES,
    PAIRS,
    UNSEEN_FRAMES,
    Batches,
    Draw,
    contrast,
    diversity,
)

BLOCKS, FEATURES = 2, 3
CONFIG = AnomalyConfig(batch=24, width=8, embedding=16)


def unit(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(rows, 8, generator=generator), dim=1)


def stretch(t: int, seed: int = 0, fit: int | None = None) -> Stretch:
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal((t, FEATURES)).astype(np.float32)
    return Stretch(
        samples, np.ones_like(samples), np.ones(t, bool), np.arange(t) < (t if fit is None else fit)
    )


def batches(*stretches: Stretch, blocks: int = BLOCKS, **config: Any) -> Batches:
    given_config = msgspec.structs.replace(CONFIG, **config)
    return Batches(stretches or [stretch(600)], {}, given_config, blocks)


def draw(made: Batches, seed: int = 0) -> Draw:
    return made.draw(np.random.default_rng(seed))


def encoder(seed: int = 0) -> CausalEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CausalEncoder(FEATURES, BLOCKS, 8, 16)


def test_the_loss_is_least_where_positives_meet_and_negatives_are_opposite() -> None:
    anchor = unit(6, 0)[:1].repeat(6, 1)
    best = contrast(anchor, anchor, -anchor, 0.1)
    assert 0.0 <= float(best) < 1e-6
    same = float(contrast(anchor, anchor, anchor, 0.1))
    assert same == pytest.approx(math.log(7), rel=1e-4)  # cannot tell them apart
    assert float(contrast(anchor, -anchor, anchor, 0.1)) > 19.0


def test_other_normal_frames_are_no_negatives() -> None:
    anchor, negatives = unit(4, 1), unit(5, 2)
    loss = contrast(anchor, anchor, negatives, 0.1)
    alone = torch.stack([contrast(a[None], a[None], negatives, 0.1) for a in anchor])
    torch.testing.assert_close(loss, alone.mean())


def test_the_loss_sees_directions_alone_and_no_order_of_the_negatives() -> None:
    anchor, positive, negatives = unit(4, 1), unit(4, 2), unit(5, 3)
    loss = contrast(anchor, positive, negatives, 0.1)
    longer = contrast(30.0 * anchor, 7.0 * positive, 5.0 * negatives, 0.1)
    torch.testing.assert_close(longer, loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(contrast(anchor, positive, negatives.flip(0), 0.1), loss)
    more = contrast(anchor, positive, torch.cat([negatives, unit(1, 4)]), 0.1)
    assert float(more) > float(loss)


def test_half_precision_and_embeddings_of_zero_give_a_finite_loss_and_gradient() -> None:
    anchor = torch.zeros(3, 8, dtype=torch.bfloat16, requires_grad=True)
    loss = contrast(anchor, unit(3, 0).bfloat16(), unit(4, 1).bfloat16(), 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    assert anchor.grad is not None
    assert torch.isfinite(anchor.grad).all()


@given(
    pairs=st.integers(1, 40),
    directions=st.integers(1, 8),
    size=st.floats(1e-4, 1e2),
    seed=st.integers(0, 99),
)
def test_diversity_lies_between_one_direction_and_all(
    pairs: int, directions: int, size: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchor = torch.randn(pairs, 8, generator=generator)
    moved = anchor.clone()
    moved[:, :directions] += size * torch.randn(pairs, directions, generator=generator)
    found = float(diversity(anchor, moved))
    assert 1 / 8 - 1e-4 <= found <= min(8, pairs) / 8 + 1e-4


def test_diversity_is_1_over_e_along_one_direction_and_1_along_all_alike() -> None:
    anchor = torch.zeros(16, 8)
    anchor[:, 0] = 1.0
    along = anchor.clone()
    along[:, 1] += torch.linspace(-0.01, 0.01, 16)
    assert float(diversity(anchor, along)) == pytest.approx(1 / 8, rel=1e-2)
    assert float(diversity(anchor, anchor)) == 0.0
    axes = torch.eye(8).repeat(2, 1)
    assert float(diversity(-axes, axes)) == pytest.approx(1.0, rel=1e-4)


def test_sequences_are_consecutive_frames_to_fit_of_one_stretch() -> None:
    first, second = stretch(300, 1, fit=200), stretch(300, 2, fit=250)
    for each in (first, second):
        each.samples[:, 0] = np.arange(300) / 100.0
    second.samples[:, 0] += 5.0
    made = batches(first, second, negatives="random")
    seen = draw(made).normal[:, :, 0]
    assert made.frames == seen.shape[1] == 8 + 64
    np.testing.assert_allclose(np.diff(seen, axis=1), 0.01, atol=1e-4)
    assert (seen[seen < 5.0] < 2.0).all()
    assert (seen[seen >= 5.0] < 7.5).all()
    assert (seen < 5.0).any()
    assert (seen >= 5.0).any()


def test_sequences_are_short_enough_for_half_of_the_stretches() -> None:
    assert batches(*[stretch(30, seed) for seed in range(5)], stretch(600)).frames == 30
    assert batches(*[stretch(15, seed) for seed in range(5)]).frames == 15


def test_windows_of_stage_1_are_no_longer_than_a_sequence() -> None:
    ragged = [*(stretch(3, seed) for seed in range(9)), stretch(900)]
    made = Batches(ragged, {}, CONFIG, 6)
    drawn = draw(made)
    assert drawn.anomalous.shape[1] == made.frames == 3
    assert np.isfinite(drawn.anomalous).all()


@given(seed=st.integers(0, 999))
@settings(max_examples=30)
def test_a_positive_is_near_in_time_and_an_anchor_behind_what_it_looks_back_on(seed: int) -> None:
    drawn = draw(BATCHES, seed)
    assert drawn.anchors.shape == drawn.positives.shape == (24, PAIRS)
    apart = np.abs(drawn.anchors - drawn.positives)
    assert apart.max() <= CONFIG.near_frames
    # At the sequence's end alone may both be one frame: they are still two views.
    assert (drawn.anchors[apart == 0] == BATCHES.frames - 1).all()
    assert drawn.anchors.min() >= 8
    assert 0 <= drawn.positives.min() <= drawn.positives.max() < BATCHES.frames


BATCHES = batches()
"""Shared, since fitting stage 1 takes its time."""


@pytest.mark.parametrize("negatives", ["pseudo", "random", "both"])
def test_negatives_lie_within_the_anomalies_where_these_can_be_seen(negatives: str) -> None:
    made, without = (batches(negatives=negatives, blocks=4) for _ in range(2))
    for seed in range(10):
        drawn = draw(made, seed)
        # The same draw with nothing put in shows where the anomalies begin.
        without._corrupt = lambda *_: float("nan")  # type: ignore[method-assign]
        original = draw(without, seed).anomalous
        changed = (drawn.anomalous != original).any(axis=2)
        assert changed.any(axis=1).mean() > 0.9
        first = np.where(changed.any(axis=1), changed.argmax(axis=1), made.frames - 1)
        earliest = np.minimum(first + UNSEEN_FRAMES, made.frames - 1)
        assert drawn.negatives.shape == (24, NEGATIVES)
        assert (drawn.negatives >= earliest[:, None]).all()
        assert (drawn.negatives < made.frames).all()


def test_only_anomalies_of_stage_1_have_targets_and_without_them_it_is_not_trained() -> None:
    made = {kind: batches(negatives=kind) for kind in ("pseudo", "random", "both")}
    assert 0.0 < draw(made["pseudo"]).on_target <= 1.0
    assert 0.0 < draw(made["both"]).on_target <= 1.0
    assert math.isnan(draw(made["random"]).on_target)
    assert "pseudo" not in vars(made["random"])


@given(seed=st.integers(0, 999))
@settings(max_examples=30)
def test_some_channels_are_declared_absent_and_never_all_of_a_sequence(seed: int) -> None:
    made = EXTREME
    present = draw(made, seed).present
    assert set(np.unique(present)) <= {0.0, 1.0}
    assert present.any(axis=3).all()
    assert (present == present[:, :, :1]).all()  # throughout a sequence
    assert present[0].all()  # an anchor sees everything
    assert not present[1:].all()


EXTREME = batches(dead_channels=1.0, negatives="random")


def test_no_channel_is_declared_absent_where_none_shall_be() -> None:
    assert draw(batches(dead_channels=0.0, negatives="random")).present.all()


def test_what_was_absent_stays_absent_and_counts_as_zero() -> None:
    gap = stretch(600)
    gap.present[:, 1] = 0.0
    made = batches(gap, negatives="random", dead_channels=0.0)
    assert (draw(made).present[..., 1] == 0).all()
    other = replace(gap, samples=gap.samples + np.float32([0.0, 9.0, 0.0]))
    losses = []
    for each in (gap, other):
        rng = np.random.default_rng(0)
        drawn = batches(each, negatives="random", dead_channels=0.0)
        losses.append(float(drawn.loss(encoder(), rng, "cpu")["loss"].detach()))
    # Where the absent values lie changes nothing but, through `changed`, where an anomaly begins.
    assert losses[0] == pytest.approx(losses[1], rel=0.2)


@pytest.mark.parametrize("positives", ["near", "weights"])
def test_a_step_has_a_finite_loss_figures_and_a_gradient_of_every_parameter(positives: str) -> None:
    made, model = batches(positives=positives), encoder()
    figures = made.loss(model, np.random.default_rng(0), "cpu")
    assert list(figures) == [
        *("loss", "positive_cosine", "positive_diversity", "pseudo_on_target"),
    ]
    assert all(torch.isfinite(figure) for figure in figures.values())
    assert -1.0 <= float(figures["positive_cosine"].detach()) <= 1.0
    assert 1 / 16 <= float(figures["positive_diversity"]) <= 1.0
    figures["loss"].backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert not figures["positive_diversity"].requires_grad


def test_perturbed_weights_are_near_the_weights_and_leave_them_as_they_were() -> None:
    model = encoder()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    cosines = []
    for perturbation in (1e-6, 0.05, 1.0):
        made = batches(
            positives="weights", perturbation=perturbation, dead_channels=0.0, negatives="random"
        )
        figures = made.loss(model, np.random.default_rng(0), "cpu")
        cosines.append(float(figures["positive_cosine"].detach()))
    assert cosines[0] > 0.999
    assert cosines[0] > cosines[1] > cosines[2]
    assert cosines[1] > 0.9
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])


def test_the_same_generator_gives_the_same_batch_and_another_another() -> None:
    first, again, other = draw(BATCHES, 3), draw(batches(), 3), draw(BATCHES, 4)
    for name in ("normal", "anomalous", "present", "anchors", "positives", "negatives"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.normal, other.normal)


def test_descending_the_loss_tells_anomalies_from_normal() -> None:
    made, model = batches(), encoder()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for step in range(30):
        loss = made.loss(model, np.random.default_rng(step), "cpu")["loss"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
