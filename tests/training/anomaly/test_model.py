"""The encoder, the scorer and its graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.model import AnomalyScorer, CausalEncoder, build_scorer

CHANNELS = 3


def scorer(window_rows: int = 32, bank: int = 40) -> AnomalyScorer:
    config = AnomalyConfig(window_rows=window_rows, width=8, embedding=16, bank_windows=bank)
    model = build_scorer(config, CHANNELS, bank)
    normal = windows(bank + 50, window_rows)
    near = torch.zeros(50, bank, dtype=torch.bool)
    model.fill_bank(normal[:bank], normal[bank:], near)
    return model.eval()


def windows(b: int, w: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).standard_normal((b, w, CHANNELS))
    return torch.from_numpy(values.astype(np.float32))


def dilated(encoder: CausalEncoder, rows: Tensor) -> Tensor:
    """The network as it is usually drawn: every row computed, dilations 1, 2, 4, …"""
    x = encoder.stem(functional.pad(rows.transpose(1, 2), (2, 0)))
    for depth, block in enumerate(encoder.blocks):
        step = 2**depth
        convolve, mix = block.convolve, block.mix
        assert isinstance(convolve, nn.Conv1d)
        assert isinstance(mix, nn.Conv1d)
        past = functional.conv1d(
            functional.pad(x, (2 * step, 0)), convolve.weight, convolve.bias, dilation=step
        )
        x = x + mix(functional.gelu(past))
    features = encoder.head(functional.gelu(x).transpose(1, 2))  # (b, n, e)
    return functional.normalize(features, dim=2)


@pytest.mark.parametrize("w", [8, 16, 32, 64, 128])
@torch.no_grad()
def test_computing_only_what_the_last_row_needs_gives_the_dilated_network(w: int) -> None:
    encoder = CausalEncoder(CHANNELS, w, 8, 16).eval()
    rows = windows(4, w)
    torch.testing.assert_close(encoder(rows), dilated(encoder, rows)[:, -1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_still_to_come_do_not_change_an_embedding_and_rows_past_do() -> None:
    encoder = CausalEncoder(CHANNELS, 32, 8, 16).eval()
    rows = windows(1, 80)[0]
    other = rows.clone()
    other[60:] += 3.0
    views, other_views = (x.unfold(0, 32, 1).transpose(1, 2) for x in (rows, other))
    same = (encoder(views) - encoder(other_views)).abs().amax(1) == 0
    assert same.tolist() == [end < 60 for end in range(31, 80)]


@pytest.mark.parametrize("w", [8, 9, 31, 32, 33, 100, 128])
@torch.no_grad()
def test_every_row_of_a_window_matters_whatever_its_length(w: int) -> None:
    encoder = CausalEncoder(CHANNELS, w, 8, 16).eval().double()
    rows = windows(1, w).double()
    moved = rows.repeat(w, 1, 1)
    moved[range(w), range(w)] += 1.0
    assert ((encoder(moved) - encoder(rows)).abs().amax(1) > 0).all()


@torch.no_grad()
def test_embeddings_have_unit_length() -> None:
    embedding, score = scorer()(windows(10, 32, seed=5))
    assert embedding.shape == (10, 16)
    assert score.shape == (10,)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(10), atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_member_of_the_bank_scores_lowest_and_a_deviation_the_higher_the_larger() -> None:
    model = scorer()
    known = model.bank_window.reshape(-1, 32, CHANNELS)[:1]
    scores = [float(model(known + 10.0**power)[1]) for power in range(5)]
    assert 0.0 <= float(model(known)[1]) <= scores[0]
    assert scores == sorted(scores)
    assert scores[-1] - scores[-2] > 4.0  # still growing, by log(100)


@torch.no_grad()
def test_a_window_scores_the_same_in_any_batch() -> None:
    model, batch = scorer(), windows(9, 32, seed=6)
    alone = torch.cat([model(window[None])[1] for window in batch])
    torch.testing.assert_close(model(batch)[1], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_scale_ignores_bank_members_that_overlap_a_probe() -> None:
    config = AnomalyConfig(width=8, embedding=16, bank_windows=40)
    normal = windows(40, 32)
    aware, unaware = (build_scorer(config, CHANNELS, 40) for _ in range(2))
    aware.fill_bank(normal, normal, torch.eye(40, dtype=torch.bool))
    unaware.fill_bank(normal, normal, torch.zeros(40, 40, dtype=torch.bool))
    assert float(aware.scale_window) > 1.2 * float(unaware.scale_window)


def test_the_graph_exports_with_a_free_batch_and_onnx_runtime_agrees(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    import onnxruntime

    model = scorer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            model,
            (windows(2, 32),),
            str(tmp_path / "model.onnx"),
            dynamo=True,
            opset_version=18,
            input_names=["window"],
            output_names=["embedding", "score"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for b in (1, 7):
        x = windows(b, 32, seed=b)
        embedding, score = session.run(["embedding", "score"], {"window": x.numpy()})
        with torch.no_grad():
            want_embedding, want_score = model(x)
        np.testing.assert_allclose(embedding, want_embedding.numpy(), atol=1e-5)
        np.testing.assert_allclose(score, want_score.numpy(), atol=1e-4)
