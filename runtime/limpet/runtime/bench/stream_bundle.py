"""A bundle that scores streams and computes next to nothing: a row's mean magnitude."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from limpet.contracts.bundle import GOLDEN, MODEL, Bundle, write_bundle
from limpet.contracts.golden import Golden
from limpet.contracts.manifest import (
    SCHEMA_VERSION,
    AnomalyDecoding,
    Calibration,
    Manifest,
    SignalPreprocessing,
)
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signal_steps import HoldLast, LookBack
from limpet.contracts.tensors import Tensors, TensorSpec

CHANNELS = ("a", "b")
ROWS = 50


def write_stream_bundle(path: Path) -> Bundle:
    """Writes it; `tests.runtime.bench.stream_model` wrote `stream.onnx` beside this file."""

    def tensor(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=["batch", *shape])

    c = len(CHANNELS)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="stream",
        kind="anomaly",
        space_id="magnitude",
        inputs=[tensor("samples", "rows", c), tensor("present", "rows", c), tensor("state", c)],
        outputs=[tensor("embedding", "rows", c), tensor("score", "rows"), tensor("next_state", c)],
        preprocessing=SignalPreprocessing(
            channels=list(CHANNELS),
            rate_hz=100.0,
            steps=[HoldLast(max_rows=1), LookBack(frames=1)],
        ),
        decoding=AnomalyDecoding(),
        calibration=Calibration(
            threshold=3.0, release_threshold=2.0, false_alarm_rate=0.01, held_out_rows=1000
        ),
        opset=17,
    )
    values = np.random.default_rng(0).normal(size=(ROWS, c))
    samples = values[None].astype(np.float32)
    inputs = {
        "samples": samples,
        "present": np.ones_like(samples),
        "state": np.zeros((1, c), np.float32),
    }
    golden = Golden(
        inputs=inputs,
        outputs=_run(inputs),
        tolerances={
            "score": 1e-5,
            "embedding cosine": 0.9999,
            "next_state": 1e-5,
            "signal score": 1e-5,
        },
        signal_rows=values,
        signal_scores=SignalScorer(manifest, _run).push(values).scores,
    )
    model = resources.files(__package__).joinpath("stream.onnx").read_bytes()
    return write_bundle(path, manifest, {MODEL: model, GOLDEN: golden.encode()})


def _run(inputs: Tensors) -> Tensors:
    """What the graph computes."""
    samples = inputs["samples"] * inputs["present"]
    score = np.abs(samples).mean(axis=2, dtype=np.float32)
    return {"embedding": samples, "score": score, "next_state": samples[:, -1] + inputs["state"]}
