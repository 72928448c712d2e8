"""The encoder, the banks and the scorer, as streams see them.

Dimension legend: b streams, t frames, f features, d dimensions of a view, k bank frames.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from limpet.training.anomaly.bank import calibration_scores, fill_banks
from limpet.training.anomaly.config import AnomalyConfig, look_back_frames
from limpet.training.anomaly.data import Stretch
from limpet.training.anomaly.encoder import CausalEncoder, History
from limpet.training.anomaly.model import AnomalyScorer, Bank, build_scorer, smallest
from tests.training.anomaly.streams import (
    BANK,
    EMBEDDING,
    FEATURES,
    WIDTH,
    absences,
    coupled,
    frames,
    scorer,
    stretch,
)

SCORERS = {blocks: scorer(blocks) for blocks in (1, 3, 5)}


@torch.no_grad()
def in_chunks(
    model: AnomalyScorer, samples: Tensor, present: Tensor, sizes: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, scores and state of streams that come in chunks of these sizes, over and over."""
    state = samples.new_zeros(len(samples), model.state_size)
    embeddings, scores, start = [], [], 0
    for size in itertools.cycle(sizes):
        here = slice(start, start + size)
        embedding, score, state = model(samples[:, here], present[:, here], state)
        embeddings.append(embedding)
        scores.append(score)
        start += size
        if start >= samples.shape[1]:
            return torch.cat(embeddings, 1), torch.cat(scores, 1), state
    raise AssertionError


@given(
    blocks=st.sampled_from(sorted(SCORERS)),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    streams=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25)
def test_any_chunking_of_streams_gives_the_same_embeddings_scores_and_state(
    blocks: int, sizes: list[int], streams: int, seed: int
) -> None:
    model = SCORERS[blocks]
    samples, present = absences(frames(streams, 90, seed), seed)
    whole = in_chunks(model, samples, present, [90])
    chunked = in_chunks(model, samples, present, sizes)
    for found, wanted in zip(chunked, whole, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_stream_scores_the_same_alone_as_among_others() -> None:
    model = SCORERS[3]
    samples, present = absences(frames(5, 60, 6), 6)
    together = in_chunks(model, samples, present, [20])
    for stream in range(5):
        alone = in_chunks(model, samples[[stream]], present[[stream]], [20])
        for found, wanted in zip(alone, together, strict=True):
            torch.testing.assert_close(found[0], wanted[stream], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_encoder_is_the_network_as_it_is_usually_drawn_padded_with_zeros() -> None:
    encoder = CausalEncoder(FEATURES, 3, WIDTH, EMBEDDING)
    samples, present = absences(frames(2, 50), 0)
    x = torch.cat([samples, present], 2).transpose(1, 2)
    x = encoder.stem(functional.pad(x, (2, 0)))
    scales = [x]
    for depth, block in enumerate(encoder.blocks):
        past = functional.pad(x, (2 * 2**depth, 0))
        x = x + block.mix(functional.gelu(block.convolve(past)))  # type: ignore[operator]
        scales.append(x)
    wanted = encoder.head(functional.gelu(torch.cat(scales, 1)).transpose(1, 2))
    history = History(torch.zeros(2, encoder.state_size))
    # A layer's past before a stream's first frame is 0, not what it would make of zeros.
    torch.testing.assert_close(encoder(samples, present, history), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 6])
@torch.no_grad()
def test_a_score_depends_on_the_frames_it_looks_back_on_and_on_none_before(blocks: int) -> None:
    config = AnomalyConfig(width=WIDTH, embedding=EMBEDDING)
    model = build_scorer(config, FEATURES, blocks, BANK).double()
    for bank in model.banks:
        rng = np.random.default_rng(0)
        bank.members.copy_(torch.from_numpy(rng.standard_normal(tuple(bank.members.shape))))
    span = look_back_frames(blocks)
    assert model.look_back_frames == span
    # One stream for each distance of a moved frame from the newest, and one where none is moved.
    samples = frames(1, span + 10).double().repeat(span + 11, 1, 1)
    for back in range(span + 10):
        samples[back, -1 - back] += 1.0
    state = torch.zeros(len(samples), model.state_size, dtype=torch.double)
    embedding, score, _ = model(samples, torch.ones_like(samples), state)
    newest = torch.cat([embedding[:, -1], score[:, -1:]], 1)
    moved = (newest[:-1] != newest[-1]).any(1)
    assert moved.tolist() == [back < span for back in range(span + 10)]


@torch.no_grad()
def test_frames_to_come_change_neither_embedding_nor_score() -> None:
    samples = frames(1, 80)
    other = samples.clone()
    other[:, 60:] += 3.0
    (a, score_a, _), (b, score_b, _) = (
        in_chunks(SCORERS[3], x, torch.ones_like(x), [80]) for x in (samples, other)
    )
    assert (a == b).all(2)[0].tolist() == [t < 60 for t in range(80)]
    assert torch.equal(score_a[:, :60], score_b[:, :60])


def bank(k: int = 25, d: int = 6, neighbours: int = 3) -> Bank:
    rng = np.random.default_rng(1)
    made = Bank(k, d, neighbours, whitens=False)
    made.members.copy_(torch.from_numpy(rng.standard_normal((k, d))))
    return made


@torch.no_grad()
def test_the_distance_is_the_mean_over_the_nearest_of_the_mean_square() -> None:
    made, view = bank(), np.random.default_rng(2).standard_normal((4, 9, 6))
    squares = (view[:, :, None] - made.members.double().numpy()) ** 2  # (b, t, k, d)
    wanted = np.sort(squares.mean(-1), axis=-1)[:, :, :3].mean(-1)
    found = made.distance(torch.from_numpy(view).float())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_banks_judged_side_by_side_say_what_each_says_by_itself() -> None:
    model = SCORERS[5]
    samples, present = absences(frames(2, 60, 3), 3)
    views, _ = model.views(samples, present, torch.zeros(2, model.state_size))
    alone = torch.stack([bank(*view) for bank, view in zip(model.banks, views, strict=True)])
    torch.testing.assert_close(model.strangeness(views), alone, atol=1e-5, rtol=1e-5)
    _, score, _ = model(samples, present, torch.zeros(2, model.state_size))
    torch.testing.assert_close(score, alone.sum(0), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_member_of_the_bank_is_least_strange_and_a_deviation_the_more_so_the_larger() -> None:
    made = bank(neighbours=1)
    known = made.members[None, :1]
    every = torch.ones_like(known)
    strange = [float(made(known + 10.0**power, every)) for power in range(-1, 5)]
    assert 0.0 <= float(made(known, every)) <= strange[0]
    assert strange == sorted(strange)
    assert 4.0 < strange[-1] - strange[-2] < 5.0  # still growing, by log(100)


@torch.no_grad()
def test_nine_in_ten_of_other_normal_frames_lie_within_one_scale_of_each_bank() -> None:
    model = SCORERS[3]
    other = coupled(400, seed=9)
    samples, present = torch.from_numpy(other.samples)[None], torch.from_numpy(other.present)[None]
    views, _ = model.views(samples, present, torch.zeros(1, model.state_size))
    for each in model.strangeness(views):
        within = each[0, 17:] <= np.log(2.0)
        assert 0.7 < float(within.float().mean()) < 0.99


@torch.no_grad()
def test_of_few_frames_those_held_out_are_scored_by_banks_of_those_to_fit() -> None:
    config = AnomalyConfig(width=WIDTH, embedding=EMBEDDING)
    models = [build_scorer(config, FEATURES, 3, BANK) for _ in range(2)]
    both = [stretch(60, held_out=20), stretch(60, held_out=20)]
    both[1].samples[40:] = 7.0
    for model, each in zip(models, both, strict=True):
        fill_banks(model, [each], seed=3)
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    found = calibration_scores(models[0], [both[0]], seed=3)
    np.testing.assert_allclose(found, whole_scores(models[0], both[0])[40:], atol=1e-5)


@torch.no_grad()
def test_each_half_of_many_frames_is_scored_by_banks_of_the_other() -> None:
    model = build_scorer(AnomalyConfig(width=WIDTH, embedding=EMBEDDING), FEATURES, 2, BANK)
    odd, alike = stretch(300, seed=1), stretch(300, seed=3)
    odd.samples[:, 0] += 5.0  # banks of its own half, or of everything, know it
    stretches = [stretch(300), odd, stretch(300, seed=2), alike]
    scored = [int(each.scored.sum()) for each in stretches]
    fill_banks(model, stretches, seed=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = np.split(calibration_scores(model, stretches, seed=3), np.cumsum(scored)[:-1])
    assert [len(each) for each in found] == scored
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    known = [whole_scores(model, each)[each.scored] for each in stretches]
    assert np.median(found[1]) > 3.0 * np.median(known[1])
    assert np.median(found[2]) < 1.5 * np.median(known[2])


def whole_scores(model: AnomalyScorer, each: Stretch) -> np.ndarray:
    """Scores of all frames of a stretch by the model's own banks."""
    samples, present = torch.from_numpy(each.samples)[None], torch.from_numpy(each.present)[None]
    return in_chunks(model, samples, present, [len(each)])[1][0].numpy()


@torch.no_grad()
def test_fewer_normal_frames_than_members_fill_a_bank_by_repetition() -> None:
    model = build_scorer(AnomalyConfig(width=WIDTH, embedding=EMBEDDING), FEATURES, 1, BANK)
    fill_banks(model, [stretch(30)], seed=0)
    for each in model.banks:
        assert len(np.unique(each.members.numpy(), axis=0)) <= 30
        assert torch.isfinite(each.scale)


@pytest.mark.parametrize("blocks", [1, 3, 6])
def test_the_state_holds_what_each_layer_needs_and_no_more(blocks: int) -> None:
    model = build_scorer(AnomalyConfig(width=WIDTH, embedding=EMBEDDING), FEATURES, blocks, BANK)
    stem, stack = 2 * 2 * FEATURES, 2 * WIDTH * (2**blocks - 1)
    moments = 3 * FEATURES * (2 ** (blocks + 1) - 1)
    assert model.state_size == stem + stack + moments
    state = model(frames(2, 5), torch.ones(2, 5, FEATURES), torch.zeros(2, model.state_size))[2]
    assert state.shape == (2, model.state_size)


def test_with_the_default_width_a_streams_state_is_some_kilobytes_however_many_blocks() -> None:
    for features, most in ((1, 20_000), (8, 32_000)):
        assert 4 * build_scorer(AnomalyConfig(), features, 6, 3).state_size < most


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 24, 25, 300, 512])
def test_the_smallest_values_are_found_whatever_their_number_and_place(size: int) -> None:
    values = torch.randint(0, size, (2, 5, size), generator=torch.Generator().manual_seed(size))
    for count in {1, min(3, size), size}:
        found = smallest(values.float(), count)
        assert torch.equal(found, values.float().sort(dim=-1).values[..., :count])
    assert torch.equal(smallest(values[0].float(), 1), values[0].float().amin(-1, keepdim=True))
