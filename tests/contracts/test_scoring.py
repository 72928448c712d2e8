"""From rows to scores: what a model remembers is carried on, and ends where its stream ends.

Dimension legend: n rows, c channels, m frames, f features, l frames that a score looks back on.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.contracts.errors import BundleError, EngineError, TensorError
from limpet.contracts.scoring import RowScores, SignalScorer, StreamingModel, score_together
from limpet.contracts.signal_steps import HoldLast, LookBack, SignalStep
from limpet.contracts.signals import LAST_SCORED, Float32, RowState
from limpet.contracts.tensors import Tensors
from tests.bundles import anomaly_manifest, identity_bundle, tiny_scorer
from tests.contracts.scorers import Chain, finite_memory, manifest_of, sums
from tests.contracts.signal_streams import Fleet, Rows, cuts, fleets, streams


def scored_in_one(chain: Chain, rows: Rows) -> RowScores:
    return SignalScorer(manifest_of(chain, rows.shape[1]), sums).push(rows)


# What scores are ---------------------------------------------------------------------------------


@given(cuts(), st.integers(1, 7))
def test_any_chunking_gives_the_same_scores(
    cut: tuple[list[SignalStep], Rows, list[int]], max_frames: int
) -> None:
    chain, rows, at = cut
    whole = scored_in_one(chain, rows)
    scorer = SignalScorer(manifest_of(chain, rows.shape[1]), sums, max_frames=max_frames)
    parts = [scorer.push(chunk) for chunk in np.split(rows, at)]
    for field in ("scores", "embeddings", "states"):
        chunked = np.concatenate([getattr(part, field) for part in parts])
        np.testing.assert_array_equal(chunked, getattr(whole, field), field)


@given(fleets(), st.integers(1, 50))
def test_streams_scored_together_are_as_alone(fleet: Fleet, max_frames: int) -> None:
    chain, recordings, calls = fleet
    manifest = manifest_of(chain, recordings[0].shape[1])
    together = [SignalScorer(manifest, sums, max_frames=max_frames) for _ in recordings]
    alone = [SignalScorer(manifest, sums) for _ in recordings]
    at = [0] * len(recordings)
    for sizes in calls:
        who = [i for i, size in enumerate(sizes) if size is not None]
        chunks = [recordings[i][at[i] : at[i] + (sizes[i] or 0)] for i in who]
        for i, chunk in zip(who, chunks, strict=True):
            at[i] += len(chunk)
        for i, chunk, found in zip(
            who, chunks, score_together([together[i] for i in who], chunks), strict=True
        ):
            assert isinstance(found, RowScores)
            wanted = alone[i].push(chunk)
            np.testing.assert_array_equal(found.states, wanted.states)
            np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(found.embeddings, wanted.embeddings, rtol=1e-5, atol=1e-5)


def test_streams_of_equally_many_frames_share_a_call_up_to_its_most_frames() -> None:
    shapes: list[tuple[int, ...]] = []

    def watched(inputs: Tensors) -> Tensors:
        shapes.append(inputs["samples"].shape)
        return sums(inputs)

    scorers = [SignalScorer(anomaly_manifest(), watched, max_frames=40) for _ in range(7)]
    score_together(scorers, [np.ones((n, 2)) for n in (8, 20, 8, 8, 8, 8, 8)])
    assert sorted(shapes) == [(1, 8, 2), (1, 20, 2), (5, 8, 2)]


@given(streams())
def test_scores_are_what_the_model_says_of_each_frame_with_all_before_it_in_its_stream(
    stream: tuple[list[SignalStep], Rows],
) -> None:
    chain, rows = stream
    found = scored_in_one(chain, rows)
    prepared = found.prepared
    assert found.embeddings.shape == prepared.frames.shape
    begin = 0
    for frame in range(len(prepared.frames)):
        begin = frame if prepared.begins[frame] else begin
        past = np.arange(begin, frame + 1)
        weights = 0.5 ** (frame - past)[:, None]
        wanted = (weights * (prepared.frames[past] + 3.0 * prepared.present[past])).sum(axis=0)
        np.testing.assert_allclose(found.embeddings[frame], wanted, rtol=1e-4, atol=1e-4)
    frame_scores = (found.embeddings * np.arange(1, prepared.frames.shape[1] + 1)).sum(axis=1)
    for row, (score, state) in enumerate(zip(found.scores, found.states, strict=True)):
        if state <= LAST_SCORED:
            newest = np.flatnonzero(prepared.ends <= row)[-1]
            assert score == pytest.approx(frame_scores[newest], rel=1e-4, abs=1e-3)


@given(streams())
def test_after_a_hole_the_model_has_forgotten_all_before_it(
    stream: tuple[list[SignalStep], Rows],
) -> None:
    chain, rows = stream
    whole = scored_in_one(chain, rows)
    alive = whole.states != RowState.HOLE
    edges = np.flatnonzero(np.diff(alive, prepend=False, append=False))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        alone = scored_in_one(chain, rows[start:stop])
        np.testing.assert_array_equal(whole.scores[start:stop], alone.scores)
        np.testing.assert_array_equal(whole.states[start:stop], alone.states)


@given(streams())
def test_a_row_has_a_score_exactly_when_its_state_says_so(
    stream: tuple[list[SignalStep], Rows],
) -> None:
    chain, rows = stream
    found = scored_in_one(chain, rows)
    assert found.scores.shape == (len(rows),)
    assert found.scores.dtype == found.embeddings.dtype == np.float32
    np.testing.assert_array_equal(~np.isnan(found.scores), found.states <= LAST_SCORED)


@given(cuts())
def test_after_a_reset_a_stream_is_new(cut: tuple[list[SignalStep], Rows, list[int]]) -> None:
    chain, rows, at = cut
    scorer = SignalScorer(manifest_of(chain, rows.shape[1]), sums)
    first = scorer.push(rows)
    for chunk in np.split(rows[::-1], at):
        scorer.push(chunk)
    scorer.reset()
    again = scorer.push(rows)
    np.testing.assert_array_equal(again.states, first.states)
    np.testing.assert_array_equal(again.scores, first.scores)
    np.testing.assert_array_equal(again.embeddings, first.embeddings)


@given(streams(), st.integers(1, 7))
def test_no_call_of_the_model_is_longer_than_allowed_or_spans_two_streams(
    stream: tuple[list[SignalStep], Rows], max_frames: int
) -> None:
    chain, rows = stream
    calls: list[Tensors] = []

    def watched(inputs: Tensors) -> dict[str, Float32]:
        calls.append(inputs)
        return sums(inputs)

    manifest = manifest_of(chain, rows.shape[1])
    prepared = SignalScorer(manifest, watched, max_frames=max_frames).push(rows).prepared
    starts = np.cumsum([0, *(call["samples"].shape[1] for call in calls)])
    assert starts[-1] == len(prepared.frames)
    assert set(np.flatnonzero(prepared.begins)) <= set(starts[:-1])
    for start, call in zip(starts[:-1], calls, strict=True):
        batch, count, _ = call["samples"].shape
        assert (batch, call["present"].shape) == (1, call["samples"].shape)
        assert 1 <= count <= max_frames
        assert not (prepared.begins[start] and call["state"].any())
        np.testing.assert_array_equal(call["samples"][0], prepared.frames[start : start + count])


def test_a_model_is_called_by_the_names_in_its_manifest() -> None:
    manifest = anomaly_manifest()
    given = dict(zip(("samples", "present", "state"), "xpm", strict=True))
    told = dict(zip(("embedding", "score", "next_state"), "esn", strict=True))
    renamed = msgspec.structs.replace(
        manifest,
        inputs=[msgspec.structs.replace(s, name=given[s.name]) for s in manifest.inputs],
        outputs=[msgspec.structs.replace(s, name=told[s.name]) for s in manifest.outputs],
        decoding=msgspec.structs.replace(manifest.decoding, **told),
    )

    def run(inputs: Tensors) -> Tensors:
        outputs = sums({name: inputs[short] for name, short in given.items()})
        return {told[name]: array for name, array in outputs.items()}

    rows = np.random.default_rng(0).normal(size=(30, 2))
    wanted = SignalScorer(manifest, sums).push(rows).scores
    np.testing.assert_array_equal(SignalScorer(renamed, run).push(rows).scores, wanted)


def test_a_step_gives_the_state_that_the_next_step_takes() -> None:
    chain = [HoldLast(max_rows=0), LookBack(frames=4)]
    model = finite_memory(chain, 2).model
    frames = np.random.default_rng(0).normal(size=(3, 10, 2)).astype(np.float32)
    present = np.ones_like(frames)
    nothing = np.zeros((3, model.state_size), np.float32)
    _, whole, end = model.step(frames, present, nothing)
    state, parts = nothing, []
    for start, stop in itertools.pairwise([0, 1, 4, 10]):
        here = slice(start, stop)
        _, scores, state = model.step(frames[:, here], present[:, here], state)
        parts.append(scores)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-6)
    np.testing.assert_array_equal(state, end)


# Failures ----------------------------------------------------------------------------------------


def test_an_engine_that_fails_is_heard_and_after_a_reset_the_stream_is_new() -> None:
    broken = False

    def run(inputs: Tensors) -> Tensors:
        if broken:
            raise EngineError("out of memory")
        return sums(inputs)

    rows = np.random.default_rng(0).normal(size=(40, 2))
    scorer = SignalScorer(anomaly_manifest(), run)
    first = scorer.push(rows).scores
    broken = True
    with pytest.raises(EngineError, match="out of memory"):
        scorer.push(rows)
    broken = False
    scorer.reset()
    np.testing.assert_array_equal(scorer.push(rows).scores, first)


def test_where_a_call_for_several_streams_fails_each_is_tried_alone() -> None:
    def run(inputs: Tensors) -> Tensors:
        if (inputs["samples"] == 7.0).any():
            raise EngineError("seven")
        return sums(inputs)

    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(20, 2)) for _ in range(4)]
    rows[2][11] = 7.0
    scorers = [SignalScorer(anomaly_manifest(), run) for _ in rows]
    alone = [SignalScorer(anomaly_manifest(), sums) for _ in rows]
    for chunk in (slice(0, 8), slice(8, 20)):
        found = score_together(scorers, [each[chunk] for each in rows])
        wanted = [one.push(each[chunk]) for one, each in zip(alone, rows, strict=True)]
        for i in (0, 1, 3):
            np.testing.assert_array_equal(getattr(found[i], "scores", None), wanted[i].scores)
    assert isinstance(found[2], EngineError)


@pytest.mark.parametrize("name", ["embedding", "score", "next_state"])
def test_outputs_of_another_number_of_streams_fail_and_change_no_state(name: str) -> None:
    def run(inputs: Tensors) -> Tensors:
        outputs = sums(inputs)
        return {**outputs, name: outputs[name][:-1]} if len(inputs["samples"]) > 1 else outputs

    rows = np.random.default_rng(0).normal(size=(3, 20, 2))
    scorers = [SignalScorer(anomaly_manifest(), run) for _ in rows]
    for _ in range(2):
        found = score_together(scorers, list(rows))
    for each, one in zip(found, rows, strict=True):
        wanted = SignalScorer(anomaly_manifest(), sums).push(np.concatenate([one, one]))
        np.testing.assert_array_equal(getattr(each, "scores", None), wanted.scores[20:])


def test_rows_of_another_form_are_refused_and_change_nothing() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 2))
    scorer = SignalScorer(anomaly_manifest(), sums)
    first = scorer.push(rows[:20]).scores
    with pytest.raises(TensorError, match=r"signal is float64 \[3, 5\]"):
        scorer.push(np.ones((3, 5)))
    whole = SignalScorer(anomaly_manifest(), sums).push(rows).scores
    np.testing.assert_array_equal(np.concatenate([first, scorer.push(rows[20:]).scores]), whole)


@pytest.mark.parametrize("make", [SignalScorer, StreamingModel])
def test_a_model_that_scores_no_streams_is_refused(make: Any, tmp_path: Any) -> None:
    with pytest.raises(BundleError, match="of kind 'custom' and scores no sensor streams"):
        make(identity_bundle(tmp_path / "identity").manifest, tiny_scorer)
    undecoded = msgspec.structs.replace(anomaly_manifest(), decoding=None)
    with pytest.raises(BundleError, match="model 'tiny-anomaly' has no score output"):
        make(undecoded, tiny_scorer)


def test_the_tests_own_model_remembers_one_frame() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 2))
    magnitude = np.abs(rows).mean(axis=1)
    run = functools.partial(tiny_scorer, memory=0.5)
    scorer = SignalScorer(anomaly_manifest(look_back=2), run, max_frames=4)
    found = np.concatenate([scorer.push(part).scores for part in np.split(rows, [3, 4, 20])])
    np.testing.assert_allclose(found[1:], magnitude[1:] + 0.5 * magnitude[:-1], rtol=1e-5)
