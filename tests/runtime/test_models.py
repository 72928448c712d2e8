"""A served model by itself: what a request to it carries, and what it answers."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from limpet.contracts.bundle import GOLDEN, MODEL, Bundle, write_bundle
from limpet.contracts.errors import BundleError, EngineError, TensorError
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signal_steps import (
    BandEnergies,
    Clip,
    HoldLast,
    SignalStep,
    Standardize,
    StreamBaseline,
)
from limpet.contracts.tensors import Tensors
from limpet.runtime.config import ModelConfig
from limpet.runtime.models import ServedModel, load_models
from tests.bundles import anomaly_bundle, anomaly_golden, identity_bundle, tiny_scorer

BASELINE = StreamBaseline(
    time_constant_frames=50.0,
    scale=[0.5, 2.0],
    adapts=[True, False],
    settling_frames=11,
    influence=4.0,
)
CHAINS: dict[str, list[SignalStep]] = {
    "rows": [HoldLast(max_rows=1), Standardize(mean=[1.0, 2.0], scale=[2.0, 3.0])],
    "own level": [HoldLast(max_rows=1), BASELINE, Clip(limit=8.0)],
    "bands": [HoldLast(max_rows=1), BandEnergies(frame_rows=10, hop_rows=4, bands=3)],
}
WARM_UP_ROWS = {"rows": 3, "own level": 10, "bands": 10 + 3 * 4 - 1}


def served(path: Path, **options: Any) -> ServedModel:
    bundle = anomaly_bundle(path / "model", look_back=4, memory=0.5, **options)
    return ServedModel(ModelConfig(bundle=str(bundle.path)))


@pytest.mark.parametrize("chain", CHAINS)
def test_a_request_carries_the_rows_up_to_a_first_score_and_gets_that_score(
    tmp_path: Path, chain: str
) -> None:
    model = served(tmp_path, steps=CHAINS[chain])
    count = WARM_UP_ROWS[chain] + 1
    assert [spec.describe() for spec in model.inputs] == [f"rows float32 [batch, {count}, 2]"]
    size = 6 if chain == "bands" else 2
    assert [spec.describe() for spec in model.outputs] == [
        f"embedding float32 [batch, {size}]",
        "score float32 [batch]",
    ]
    rows = np.random.default_rng(0).normal(size=(5, count, 2)).astype(np.float32)
    assert model.check_request({"rows": rows}) == 5
    answer = model.infer({"rows": rows})
    assert list(answer) == ["embedding", "score"]
    assert (answer["embedding"].shape, answer["score"].shape) == ((5, size), (5,))
    run = functools.partial(tiny_scorer, memory=0.5)
    for i in range(5):
        found = SignalScorer(model.manifest, run).push(rows[i])
        assert np.isfinite(found.scores).tolist() == [False] * (count - 1) + [True]
        np.testing.assert_allclose(answer["score"][i], found.scores[-1], rtol=1e-5)
        np.testing.assert_allclose(answer["embedding"][i], found.embeddings[-1], rtol=1e-5)


def test_what_a_client_is_told_is_what_a_request_carries(tmp_path: Path) -> None:
    model = served(tmp_path)
    info = model.info()
    assert (info.inputs, info.outputs) == (model.inputs, model.outputs)
    assert (info.channels, info.threshold) == (["speed", "current"], 3.0)


def test_a_model_without_preprocessing_takes_its_graphs_inputs(tmp_path: Path) -> None:
    model = ServedModel(ModelConfig(bundle=str(identity_bundle(tmp_path / "identity").path)))
    assert (model.inputs, model.outputs) == (model.manifest.inputs, model.manifest.outputs)
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(model.infer({"x": x})["y"], x)
    with pytest.raises(BundleError, match="scores no sensor streams"):
        model.scorer()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "tensor 'rows' is missing"),
        (
            {"rows": np.ones((1, 5, 2), np.float32)},
            r"has shape \[1, 5, 2\], wanted \[batch, 4, 2\]",
        ),
        (
            {"rows": np.ones((1, 4, 3), np.float32)},
            r"has shape \[1, 4, 3\], wanted \[batch, 4, 2\]",
        ),
        ({"rows": np.ones((4, 2), np.float32)}, r"has shape \[4, 2\], wanted \[batch, 4, 2\]"),
        ({"rows": np.ones((1, 4, 2))}, "is float64, wanted float32"),
        ({"rows": np.ones((257, 4, 2), np.float32)}, "batch of 257, at most 256"),
        ({"rows": np.ones((1, 4, 2), np.float32), "state": np.ones(2)}, "unknown tensor 'state'"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(
    tmp_path: Path, inputs: Tensors, message: str
) -> None:
    with pytest.raises(TensorError, match=message):
        served(tmp_path).check_request(inputs)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_request_that_lacks_a_value_is_refused(tmp_path: Path, value: float) -> None:
    rows = np.ones((3, 4, 2), np.float32)
    rows[2, 0, 1] = value
    with pytest.raises(TensorError, match="NaN or infinite values"):
        served(tmp_path).infer({"rows": rows})


def test_streams_of_one_model_do_not_share_what_they_remember(tmp_path: Path) -> None:
    model = served(tmp_path)
    rows = np.random.default_rng(0).normal(size=(2, 40, 2))
    alone = [model.scorer().push(values).scores for values in rows]
    scorers = [model.scorer(), model.scorer()]
    parts: list[list[Any]] = [[], []]
    for start in range(0, 40, 5):
        for scorer, values, mine in zip(scorers, rows, parts, strict=True):
            mine.append(scorer.push(values[start : start + 5]).scores)
            model.infer({"rows": np.ones((1, 4, 2), np.float32)})
    for mine, wanted in zip(parts, alone, strict=True):
        np.testing.assert_allclose(np.concatenate(mine), wanted, rtol=1e-5)


def forgets(path: Path) -> Bundle:
    """Its graph remembers another share of the frame before than golden data say."""
    bundle = anomaly_bundle(path / "right", memory=0.25)
    files = {
        MODEL: (bundle.path / MODEL).read_bytes(),
        GOLDEN: anomaly_golden(bundle.manifest, memory=0.5).encode(),
    }
    return write_bundle(path / "wrong", bundle.manifest, files)


def test_a_graph_that_remembers_otherwise_than_in_training_is_not_served(tmp_path: Path) -> None:
    bundle = forgets(tmp_path)
    with pytest.raises(EngineError, match=r"computes other outputs .* score .* signal score"):
        ServedModel(ModelConfig(bundle=str(bundle.path)))


def test_two_models_of_one_name_are_refused_and_a_name_of_its_own_cures_it(tmp_path: Path) -> None:
    bundle = anomaly_bundle(tmp_path / "pump")
    config = ModelConfig(bundle=str(bundle.path))
    with pytest.raises(EngineError, match="two models are named 'tiny-anomaly'"):
        load_models([config, config])
    other = msgspec.structs.replace(config, name="other")
    assert list(load_models([config, other])) == ["tiny-anomaly", "other"]
