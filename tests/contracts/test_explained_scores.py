"""What a score looked back on, which explains an alert."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from limpet.contracts.errors import TensorError
from limpet.contracts.scoring import RowScores, SignalScorer
from limpet.contracts.signal_steps import BandEnergies, HoldLast, LookBack, SignalStep
from limpet.contracts.signals import Float32
from tests.bundles import anomaly_manifest, tiny_scorer
from tests.contracts.scorers import finite_memory
from tests.contracts.signal_streams import Rows, cuts


@given(cuts())
@settings(max_examples=60)
def test_what_a_score_looked_back_on_gives_the_score_again(
    cut: tuple[list[SignalStep], Rows, list[int]],
) -> None:
    chain, rows, at = cut
    assert isinstance(chain[-1], LookBack)
    scorer = finite_memory(chain, rows.shape[1])
    last: tuple[bool, Float32] | None = None  # of the frame before the chunk: scored? score
    for chunk in np.split(rows, at):
        found = scorer.push(chunk)
        prepared = found.prepared
        frame_scores = prepared_scores(scorer, found)
        frames = list(zip(prepared.scored.tolist(), frame_scores, strict=True))
        for frame, known in enumerate([last, *frames], -1):
            if known is None or not known[0]:
                with pytest.raises(TensorError, match=f"frame {frame} of the newest chunk has no"):
                    scorer.looked_back_on(frame)
                continue
            samples, present = scorer.looked_back_on(frame)
            assert samples.shape == (chain[-1].frames, prepared.frames.shape[1])
            _, (again,) = scorer.model.replay(samples[None], present[None])
            np.testing.assert_allclose(again, known[1], rtol=1e-5)
        last = frames[-1] if frames else last


def prepared_scores(scorer: SignalScorer, found: RowScores) -> list[Float32]:
    """The score of each frame, from the rows that show it; NaN where no row does."""
    scores = np.full(len(found.prepared.frames), np.nan, np.float32)
    shown = found.prepared.scored
    scores[shown] = found.scores[found.prepared.ends[shown]]
    return list(scores)


@pytest.mark.parametrize("frame", [-2, 5, 100])
def test_a_frame_that_is_not_there_has_no_score(frame: int) -> None:
    scorer = SignalScorer(anomaly_manifest(look_back=1), tiny_scorer)
    scorer.push(np.ones((10, 2)))
    scorer.push(np.ones((5, 2)))
    with pytest.raises(TensorError, match=f"frame {frame} of the newest chunk has no score"):
        scorer.looked_back_on(frame)


def test_a_score_that_holds_over_a_chunk_without_frames_can_be_explained() -> None:
    steps = [HoldLast(max_rows=0), BandEnergies(frame_rows=8, hop_rows=8, bands=1)]
    scorer = SignalScorer(anomaly_manifest(channels=["a"], steps=steps, look_back=2), tiny_scorer)
    rows = np.random.default_rng(0).normal(size=(19, 1))
    prepared = scorer.push(rows[:17]).prepared
    assert len(scorer.push(rows[17:]).embeddings) == 0
    samples, _ = scorer.looked_back_on(-1)
    np.testing.assert_array_equal(samples, prepared.frames)


def test_no_more_is_kept_than_the_newest_scores_look_back_on() -> None:
    scorer = SignalScorer(anomaly_manifest(look_back=8), tiny_scorer)
    rows = np.random.default_rng(0).normal(size=(500, 2))
    for size in (300, *[1] * 100, 20, *[0] * 50, *[1] * 80):
        scorer.push(rows[:size])
        kept = [len(chunk.frames) for chunk in scorer._recent]
        assert sum(kept[1:-1]) < 8
        assert 0 not in kept
    assert sum(kept) == 9


def test_streams_are_replayed_side_by_side_as_alone() -> None:
    chain = [HoldLast(max_rows=0), LookBack(frames=4)]
    model = finite_memory(chain, 2).model
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(5, 4, 2)).astype(np.float32)
    present = rng.integers(0, 2, size=frames.shape).astype(np.float32)
    embeddings, scores = model.replay(frames, present)
    assert (embeddings.shape, scores.shape) == ((5, 2), (5,))
    for i in range(5):
        embedding, score = model.replay(frames[i : i + 1], present[i : i + 1])
        np.testing.assert_array_equal(embedding[0], embeddings[i])
        np.testing.assert_allclose(score[0], scores[i], rtol=1e-6)
