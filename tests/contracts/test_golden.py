"""The golden check: what passes, what fails, and by which measure."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limpet.contracts.bundle import GOLDEN
from limpet.contracts.errors import TensorError
from limpet.contracts.golden import Golden, Parity, check_golden, read_golden
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.tensors import Tensors
from tests.bundles import anomaly_bundle, anomaly_golden, anomaly_manifest, tiny_scorer

MANIFEST = anomaly_manifest()


@pytest.fixture
def golden() -> Golden:
    return anomaly_golden(MANIFEST)


def measured(parity: Parity) -> dict[str, tuple[Any, bool]]:
    return {check.name: (check.measured, check.passed) for check in parity.checks}


def test_what_training_computed_passes_its_own_check(golden: Golden) -> None:
    parity = check_golden(golden, MANIFEST, tiny_scorer)
    assert parity.passed
    assert measured(parity) == {
        "embedding cosine": (pytest.approx(1.0), True),
        "score": (0.0, True),
        "next_state": (0.0, True),
        "signal score": (0.0, True),
        "alert flips": (0.0, True),
    }


def test_golden_data_survives_its_file(golden: Golden, tmp_path: Path) -> None:
    (tmp_path / GOLDEN).write_bytes(golden.encode())
    read = read_golden(tmp_path / GOLDEN, MANIFEST)
    assert read.tolerances == golden.tolerances
    for name in ("inputs", "outputs"):
        for key, array in getattr(golden, name).items():
            np.testing.assert_array_equal(getattr(read, name)[key], array)
    np.testing.assert_array_equal(read.signal_rows, golden.signal_rows)
    np.testing.assert_array_equal(read.signal_scores, golden.signal_scores)


def test_the_same_golden_data_has_the_same_bytes(golden: Golden) -> None:
    assert golden.encode() == anomaly_golden(MANIFEST).encode()


def test_a_score_that_drifts_past_its_bound_fails(golden: Golden) -> None:
    def drifted(inputs: Tensors) -> Tensors:
        outputs = tiny_scorer(inputs)
        return {**outputs, "score": outputs["score"] + np.float32(1e-3)}

    found = measured(check_golden(golden, MANIFEST, drifted))
    assert found["score"] == (pytest.approx(1e-3, rel=1e-2), False)
    assert found["signal score"][1] is False
    assert found["embedding cosine"][1] is True


def test_an_embedding_that_turns_fails(golden: Golden) -> None:
    def turned(inputs: Tensors) -> Tensors:
        outputs = tiny_scorer(inputs)
        return {**outputs, "embedding": outputs["embedding"][..., ::-1].copy()}

    found = measured(check_golden(golden, MANIFEST, turned))
    assert found["embedding cosine"][1] is False
    assert found["score"][1] is True


def test_an_embedding_that_only_grows_passes_by_its_cosine(golden: Golden) -> None:
    def longer(inputs: Tensors) -> Tensors:
        outputs = tiny_scorer(inputs)
        return {**outputs, "embedding": outputs["embedding"] * 2}

    assert check_golden(golden, MANIFEST, longer).passed


def test_alerts_that_flip_fail_though_the_score_is_within_its_bound(golden: Golden) -> None:
    assert golden.signal_scores is not None
    at_limit = dataclasses.replace(golden, tolerances={**golden.tolerances, "signal score": 1e9})

    def doubled(inputs: Tensors) -> Tensors:
        outputs = tiny_scorer(inputs)
        return {**outputs, "score": outputs["score"] * 2}

    found = measured(check_golden(at_limit, MANIFEST, doubled))
    assert found["signal score"][1] is True
    assert found["alert flips"][0] > 0.0
    assert found["alert flips"][1] is False


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_engine_that_gives_no_numbers_fails(golden: Golden, value: float) -> None:
    def broken(inputs: Tensors) -> Tensors:
        return {name: np.full_like(array, value) for name, array in tiny_scorer(inputs).items()}

    with np.errstate(invalid="ignore"):  # inf - inf, inf / inf: the device's, not ours
        parity = check_golden(golden, MANIFEST, broken)
    assert not any(check.passed for check in parity.checks if check.name != "alert flips")


def test_embeddings_of_zero_length_point_alike_only_if_both_are(golden: Golden) -> None:
    def zero(inputs: Tensors) -> Tensors:
        outputs = tiny_scorer(inputs)
        return {**outputs, "embedding": np.zeros_like(outputs["embedding"])}

    assert not check_golden(golden, MANIFEST, zero).passed
    zeros = {**golden.outputs, "embedding": np.zeros_like(golden.outputs["embedding"])}
    assert check_golden(dataclasses.replace(golden, outputs=zeros), MANIFEST, zero).passed


def test_a_state_that_drifts_past_its_bound_fails(golden: Golden) -> None:
    def drifted(inputs: Tensors) -> Tensors:
        outputs = tiny_scorer(inputs)
        return {**outputs, "next_state": outputs["next_state"] + np.float32(1e-3)}

    found = measured(check_golden(golden, MANIFEST, drifted))
    assert found["next_state"] == (pytest.approx(1e-3, rel=1e-2), False)
    assert found["score"][1] is True


@pytest.mark.parametrize("name", ["state", "present"])
def test_an_engine_that_ignores_what_the_model_takes_fails(tmp_path: Path, name: str) -> None:
    def whole(inputs: Tensors) -> Tensors:
        outputs = tiny_scorer(inputs, memory=0.5)
        return {**outputs, "score": outputs["score"] + inputs["present"].mean(axis=2)}

    def forgetful(inputs: Tensors) -> Tensors:
        return whole({**inputs, name: np.zeros_like(inputs[name])})

    golden = anomaly_golden(MANIFEST)
    rows = golden.signal_rows
    assert rows is not None
    golden = dataclasses.replace(
        golden,
        outputs=whole(golden.inputs),
        signal_scores=SignalScorer(MANIFEST, whole).push(rows).scores,
    )
    assert check_golden(golden, MANIFEST, whole).passed
    found = measured(check_golden(golden, MANIFEST, forgetful))
    assert found["score"][1] is False


def test_a_stream_scored_otherwise_is_noticed_though_the_graph_is_right(golden: Golden) -> None:
    assert golden.signal_rows is not None
    run = functools.partial(tiny_scorer, memory=0.5)
    wanted = SignalScorer(MANIFEST, run).push(golden.signal_rows).scores
    remembered = dataclasses.replace(golden, outputs=run(golden.inputs), signal_scores=wanted)
    assert check_golden(remembered, MANIFEST, run).passed

    def otherwise(inputs: Tensors) -> Tensors:
        if len(inputs["samples"]) == 1:  # a stream
            inputs = {**inputs, "samples": inputs["samples"] * np.float32(1.001)}
        return run(inputs)

    found = measured(check_golden(remembered, MANIFEST, otherwise))
    assert found["score"][1] is True
    assert found["signal score"][1] is False


def test_rows_scored_where_training_scored_none_fail(golden: Golden) -> None:
    assert golden.signal_scores is not None
    fewer = golden.signal_scores.copy()
    fewer[50] = np.nan
    parity = check_golden(dataclasses.replace(golden, signal_scores=fewer), MANIFEST, tiny_scorer)
    assert measured(parity)["signal score"] == (np.inf, False)


def test_outputs_of_another_shape_are_refused_by_name(golden: Golden) -> None:
    def flat(inputs: Tensors) -> Tensors:
        return {**tiny_scorer(inputs), "score": np.zeros(5, np.float32)}

    with pytest.raises(TensorError, match="the engine's outputs: tensor 'score' has shape"):
        check_golden(golden, MANIFEST, flat)


def test_nothing_compared_is_nothing_proven() -> None:
    assert not Parity([]).passed


def test_without_a_stated_tolerance_outputs_must_be_equal(tmp_path: Path) -> None:
    bundle = anomaly_bundle(tmp_path / "a")
    golden = dataclasses.replace(bundle.golden(), tolerances={})

    def last_digit(inputs: Tensors) -> Tensors:
        outputs = tiny_scorer(inputs)
        return {**outputs, "score": np.nextafter(outputs["score"], np.float32(np.inf))}

    found = measured(check_golden(golden, bundle.manifest, last_digit))
    assert found["embedding"] == (0.0, True)
    assert found["score"][1] is False
