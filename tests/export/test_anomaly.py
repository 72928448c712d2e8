"""Golden data covers streams at their beginning and in the middle, normal, anomalous, at all limits
and without a channel; gaps; and it says how far is too far.

Dimension legend: n rows, c channels, b streams, t frames, f features.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limpet.contracts.errors import DataError
from limpet.contracts.golden import Golden, check_golden
from limpet.contracts.manifest import Manifest
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signal_preprocessor import SignalPreprocessor
from limpet.contracts.signals import Float64, RowState
from limpet.export.anomaly import (
    GOLDEN_FRAMES,
    SCORE_TOLERANCE,
    STATE_TOLERANCE,
    make_golden,
    read_sample,
)
from limpet.export.runs import torch_run
from tests.bundles import CLIP, anomaly_manifest, tiny_scorer

LOOK_BACK, MEMORY = 8, 0.5
FRAMES = LOOK_BACK + GOLDEN_FRAMES
remembering_scorer = functools.partial(tiny_scorer, memory=MEMORY)


class TinyScorer(nn.Module):
    """What the graph of `tests.bundles.anomaly_bundle` computes."""

    def __init__(self, offset: float = 0.0, state_unit: float = 1.0) -> None:
        super().__init__()
        self.offset, self.state_unit = nn.Buffer(torch.tensor(offset)), state_unit

    def forward(
        self, samples: Tensor, present: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        before = torch.cat([state[:, None] / self.state_unit, samples[:, :-1]], 1)
        score = samples.abs().mean(2) + MEMORY * before.abs().mean(2)
        # A large offset costs digits.
        return samples, (score + self.offset) - self.offset, samples[:, -1] * self.state_unit


@pytest.fixture
def manifest() -> Manifest:
    return anomaly_manifest(look_back=LOOK_BACK)


@pytest.fixture
def sample() -> Float64:
    rows = np.random.default_rng(0).normal(size=(200, 2))
    rows[150:] += 9.0
    return rows


@pytest.fixture
def golden(manifest: Manifest, sample: Float64) -> Golden:
    return make_golden(TinyScorer().eval(), manifest, sample)


def test_pytorch_passes_what_pytorch_made(manifest: Manifest, golden: Golden) -> None:
    assert check_golden(golden, manifest, torch_run(TinyScorer(), manifest)).passed
    assert check_golden(golden, manifest, remembering_scorer).passed


def test_the_inputs_hold_streams_at_their_beginning_and_in_the_middle(
    manifest: Manifest, golden: Golden
) -> None:
    samples, state = golden.inputs["samples"], golden.inputs["state"]
    assert samples.shape == golden.inputs["present"].shape == (12, FRAMES, 2)
    assert (state[:6] == 0.0).all()
    # In the middle, a stream goes on after what another one's beginning left behind.
    np.testing.assert_array_equal(state[6:], golden.outputs["next_state"][:6])
    np.testing.assert_array_equal(samples[6:], samples[5::-1])
    assert (state[6:] != 0.0).any(axis=1).sum() == 5  # after the stream of zeros there are zeros


def test_normal_anomalous_extreme_and_silent_frames_are_among_the_inputs(
    manifest: Manifest, sample: Float64, golden: Golden
) -> None:
    samples, scores = golden.inputs["samples"], golden.outputs["score"]
    prepared = SignalPreprocessor(manifest.signal().steps, 2).push(sample).frames
    np.testing.assert_array_equal(samples[0], prepared[:FRAMES])
    np.testing.assert_array_equal(samples[1], prepared[-FRAMES:])
    assert np.median(scores[0]) < 3.0
    assert (scores[1] > 3.0).all()
    for stream, value in ((2, CLIP), (3, -CLIP), (4, 0.0)):
        assert (samples[stream] == value).all()


def test_one_stream_lacks_every_other_channel_and_the_model_is_told(golden: Golden) -> None:
    samples, present = golden.inputs["samples"], golden.inputs["present"]
    for stream in (5, 6):
        assert (samples[stream, :, 1] == 0.0).all()
        assert present[stream].tolist() == [[1.0, 0.0]] * FRAMES
    assert present[:5].all()


@pytest.mark.parametrize("ignored", ["state", "present", "next_state"])
def test_a_graph_that_ignores_what_it_is_told_fails(
    manifest: Manifest, golden: Golden, ignored: str
) -> None:
    class Telling(TinyScorer):
        def forward(
            self, samples: Tensor, present: Tensor, state: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            embedding, score, after = super().forward(samples, present, state)
            return embedding, score + (1.0 - present).mean(2), after

    whole = make_golden(Telling().eval(), manifest, np.random.default_rng(0).normal(size=(200, 2)))
    right = torch_run(Telling(), manifest)
    assert check_golden(whole, manifest, right).passed

    def run(inputs):  # type: ignore[no-untyped-def]
        if ignored == "next_state":
            outputs = right(inputs)
            return {**outputs, "next_state": np.zeros_like(outputs["next_state"])}
        blind = {"state": np.zeros_like, "present": np.ones_like}[ignored]
        return right({**inputs, ignored: blind(inputs[ignored])})

    parity = check_golden(whole, manifest, run)
    failed = {check.name for check in parity.checks if not check.passed}
    assert ("next_state" if ignored == "next_state" else "score") in failed


def test_the_signal_has_a_filled_gap_a_hole_and_alerts(manifest: Manifest, golden: Golden) -> None:
    assert golden.signal_rows is not None
    assert golden.signal_scores is not None
    scored = SignalScorer(manifest, remembering_scorer).push(golden.signal_rows)
    assert {RowState(int(state)) for state in scored.states} == {
        *(RowState.SCORED, RowState.FILLED, RowState.WARMING_UP, RowState.HOLE)
    }
    threshold = 3.0
    assert (golden.signal_scores > threshold).any()
    assert (golden.signal_scores < threshold).any()
    assert not np.isnan(golden.signal_scores[-1])  # scored again after the hole


def test_a_well_conditioned_score_gets_the_tight_tolerance_and_no_flip(golden: Golden) -> None:
    assert golden.tolerances == {
        "score": SCORE_TOLERANCE,
        "embedding cosine": 0.9999,
        "next_state": STATE_TOLERANCE,
        "signal score": SCORE_TOLERANCE,
        "alert flips": 0.0,
    }


def test_a_badly_conditioned_score_gets_what_float32_leaves_open(
    manifest: Manifest, sample: Float64
) -> None:
    tolerance = make_golden(TinyScorer(1e3).eval(), manifest, sample).tolerances["score"]
    assert SCORE_TOLERANCE < tolerance < 1e-3
    worst = make_golden(TinyScorer(1e6).eval(), manifest, sample).tolerances["score"]
    assert worst == 1e-2


def test_a_large_state_may_differ_in_its_seventh_digit(manifest: Manifest, sample: Float64) -> None:
    golden = make_golden(TinyScorer(state_unit=4096.0).eval(), manifest, sample)
    largest = np.abs(golden.outputs["next_state"]).max()
    assert largest > 10_000
    assert golden.tolerances["next_state"] == pytest.approx(1e-6 * largest)


def test_rows_on_the_threshold_itself_may_fall_on_either_side(
    manifest: Manifest, sample: Float64
) -> None:
    sample[59:61] = 2.0  # row 60 scores exactly the threshold
    golden = make_golden(TinyScorer().eval(), manifest, sample)
    assert golden.signal_scores is not None
    assert golden.tolerances["alert flips"] == 1 / len(golden.signal_scores)
    assert check_golden(
        dataclasses.replace(golden, signal_scores=golden.signal_scores - np.float32(1e-6)),
        manifest,
        remembering_scorer,
    ).passed


def test_a_sample_too_short_for_a_score_is_refused(manifest: Manifest) -> None:
    with pytest.raises(DataError, match="sample of 7 rows is too short for a score"):
        make_golden(TinyScorer().eval(), manifest, np.zeros((7, 2)))


def test_a_sample_is_read_back(tmp_path: Path) -> None:
    rows = np.arange(6.0).reshape(3, 2)
    np.savez(tmp_path / "sample.npz", rows=rows)
    np.testing.assert_array_equal(read_sample(tmp_path / "sample.npz", 2), rows)


@pytest.mark.parametrize(
    "damage", ["missing", "text", "npy", "other key", "other width", "float32"]
)
def test_a_sample_that_is_none_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "sample.npz"
    if damage == "text":
        file.write_text("rows")
    elif damage == "npy":
        with file.open("wb") as opened:
            np.save(opened, np.zeros((3, 2)))
    elif damage == "other key":
        np.savez(file, columns=np.zeros((3, 2)))
    elif damage == "other width":
        np.savez(file, rows=np.zeros((3, 5)))
    elif damage == "float32":
        np.savez(file, rows=np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match=str(file)) as caught:
        read_sample(file, 2)
    assert caught.value.hint == "train again"
