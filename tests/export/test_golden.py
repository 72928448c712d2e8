"""Golden data covers normal, anomalous and extreme windows, gaps, and says how far is too far.

Dimension legend: n rows, w rows of a window, c channels, m windows.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limpet.contracts.errors import DataError
from limpet.contracts.golden import check_golden
from limpet.contracts.manifest import Manifest
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signals import Float64, RowState
from limpet.export.golden import SCORE_TOLERANCE, make_golden, read_sample, torch_run
from tests.bundles import CLIP, anomaly_manifest, tiny_scorer


class TinyScorer(nn.Module):
    """What the graph of `tests.bundles.anomaly_bundle` computes."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = nn.Buffer(torch.tensor(offset))

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:
        last = window[:, -1]
        score = last.abs().mean(dim=1)
        return last, (score + self.offset) - self.offset  # a large offset costs digits


@pytest.fixture
def manifest() -> Manifest:
    return anomaly_manifest(window=8)


@pytest.fixture
def sample() -> Float64:
    rows = np.random.default_rng(0).normal(size=(200, 2))
    rows[150:] += 9.0
    return rows


def test_pytorch_passes_what_pytorch_made(manifest: Manifest, sample: Float64) -> None:
    golden = make_golden(TinyScorer().eval(), manifest, sample)
    assert check_golden(golden, manifest, torch_run(TinyScorer(), manifest)).passed
    assert check_golden(golden, manifest, tiny_scorer).passed


def test_normal_anomalous_and_extreme_windows_are_among_the_inputs(
    manifest: Manifest, sample: Float64
) -> None:
    golden = make_golden(TinyScorer().eval(), manifest, sample)
    windows, scores = golden.inputs["window"], golden.outputs["score"]
    assert windows.shape[1:] == (8, 2)
    assert (scores[:24] < 3.0).all()  # normal
    assert (scores[24:36] > 3.0).mean() > 0.9  # anomalous
    np.testing.assert_array_equal(np.abs(windows[36:]).max(axis=(1, 2)), [0.0, CLIP, CLIP])


def test_the_signal_has_a_filled_gap_a_hole_and_alerts(manifest: Manifest, sample: Float64) -> None:
    golden = make_golden(TinyScorer().eval(), manifest, sample)
    assert golden.signal_rows is not None
    assert golden.signal_scores is not None
    scored = SignalScorer(manifest, tiny_scorer).push(golden.signal_rows)
    assert {RowState(int(state)) for state in scored.states} == {
        *(RowState.SCORED, RowState.FILLED, RowState.WARMING_UP, RowState.HOLE)
    }
    threshold = 3.0
    assert (golden.signal_scores > threshold).any()
    assert (golden.signal_scores < threshold).any()
    assert not np.isnan(golden.signal_scores[-1])  # scored again after the hole


def test_a_well_conditioned_score_gets_the_tight_tolerance_and_no_flip(
    manifest: Manifest, sample: Float64
) -> None:
    golden = make_golden(TinyScorer().eval(), manifest, sample)
    assert golden.tolerances == {
        "score": SCORE_TOLERANCE,
        "embedding cosine": 0.9999,
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


def test_rows_on_the_threshold_itself_may_fall_on_either_side(
    manifest: Manifest, sample: Float64
) -> None:
    sample[60] = 3.0  # scores exactly the threshold
    golden = make_golden(TinyScorer().eval(), manifest, sample)
    assert golden.signal_scores is not None
    assert golden.tolerances["alert flips"] == 1 / len(golden.signal_scores)
    assert check_golden(
        dataclasses.replace(golden, signal_scores=golden.signal_scores - np.float32(1e-6)),
        manifest,
        tiny_scorer,
    ).passed


def test_a_sample_too_short_for_a_window_is_refused(manifest: Manifest) -> None:
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
