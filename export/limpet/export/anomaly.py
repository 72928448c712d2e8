"""What an anomaly scorer's bundle says of it, and golden data that PyTorch computed.

Dimension legend: n rows, c channels, m frames, f features.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from limpet.contracts.array_files import DAMAGE
from limpet.contracts.errors import DataError
from limpet.contracts.golden import Golden, Run
from limpet.contracts.manifest import (
    SCHEMA_VERSION,
    AnomalyDecoding,
    Manifest,
    Precision,
    SignalPreprocessing,
)
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signal_preprocessor import SignalPreprocessor
from limpet.contracts.signal_steps import Clip, HoldLast, features_of
from limpet.contracts.signals import Float64
from limpet.contracts.tensors import Array, Tensors, TensorSpec
from limpet.export.graph import OPSET
from limpet.export.provenance import provenance_of, weights_digest
from limpet.export.runs import torch_run
from limpet.training.anomaly.model import AnomalyScorer, load_scorer
from limpet.training.run import SAMPLE, RunRecord

SCORE_TOLERANCE = 1e-4
"""Largest difference of a score. Thresholds lie near 1, and float32 sums in another order differ
by about 1e-6 in a well-conditioned score."""
WORST_SCORE_TOLERANCE = 1e-2
"""Most that the tolerance of a badly conditioned score may be."""
EMBEDDING_COSINE = 0.9999
"""Smallest cosine of an embedding with the one that PyTorch computed."""

STATE_TOLERANCE, STATE_PART = 1e-3, 1e-6
"""Largest difference of the state: the second is of the largest number in it, a sum of squares, of
which float32 has seven digits."""

GOLDEN_FRAMES = 16
"""Frames of a golden input beyond those that a score looks back on."""


@dataclass(frozen=True)
class AnomalyRun:
    """A finished RUN of an anomaly encoder."""

    path: Path
    scorer: AnomalyScorer
    record: RunRecord

    @property
    def module(self) -> AnomalyScorer:
        """What becomes the graph."""
        return self.scorer

    def manifest(self, name: str, precision: Precision) -> Manifest:
        """The bundle's manifest."""
        return run_manifest(name, self.scorer, self.record, precision)

    def golden(self, manifest: Manifest) -> Golden:
        """What the bundle must compute."""
        sample = read_sample(self.path / SAMPLE, len(manifest.signal().channels))
        return make_golden(self.scorer, manifest, sample)


def open_anomaly_run(path: Path) -> AnomalyRun:
    """Opens a RUN.

    Raises:
        DataError: No finished RUN of an anomaly encoder, or damaged weights.
    """
    return AnomalyRun(path, *load_scorer(path))


def run_manifest(
    name: str, scorer: AnomalyScorer, record: RunRecord, precision: Precision
) -> Manifest:
    """The manifest of a RUN's model, as `load_scorer` gave it."""
    signal = record.preprocessing
    assert isinstance(signal, SignalPreprocessing)
    features = features_of(signal.steps, len(signal.channels))

    def tensor(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=["batch", *shape], unit="1")

    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        kind="anomaly",
        space_id=weights_digest(scorer),
        inputs=[
            tensor("samples", "rows", features),
            tensor("present", "rows", features),
            tensor("state", scorer.state_size),
        ],
        outputs=[
            tensor("embedding", "rows", scorer.encoder.head.out_features),
            tensor("score", "rows"),
            tensor("next_state", scorer.state_size),
        ],
        preprocessing=signal,
        decoding=AnomalyDecoding(score="score", embedding="embedding", next_state="next_state"),
        calibration=record.calibration,
        precision=precision,
        opset=OPSET,
        provenance=provenance_of(record),
    )


def read_sample(path: Path, channels: int) -> Float64:
    """Reads a RUN's `sample.npz`. (n, c)

    Raises:
        DataError: It is missing, damaged or of other channels.
    """
    try:
        with path.open("rb") as file:
            rows = np.load(file, allow_pickle=False)["rows"]
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read: {error}", "train again") from error
    if rows.ndim != 2 or rows.shape[1] != channels or rows.dtype != np.float64:
        raise DataError(
            f"{path} holds {rows.dtype} {list(rows.shape)}, wanted float64 [rows, {channels}]",
            "train again",
        )
    return np.asarray(rows)


def make_golden(module: nn.Module, manifest: Manifest, sample: Float64) -> Golden:
    """Computes what a bundle must give.

    Args:
        module: The scorer, in evaluation mode on the CPU.
        manifest: Its manifest, with preprocessing and calibration.
        sample: Raw rows; the last quarter holds an anomaly. (n, c)

    Raises:
        DataError: The sample is too short for any score.
    """
    run, threshold = torch_run(module, manifest), manifest.calibration
    assert threshold is not None  # a RUN of an anomaly encoder that is complete has one
    rows = _with_gaps(sample, manifest)
    scored = SignalScorer(manifest, run).push(rows)
    if not np.isfinite(scored.scores[: len(sample)]).any():
        raise DataError(
            f"the run's sample of {len(sample)} rows is too short for a score", "train again"
        )
    inputs = _inputs(manifest, run, sample)
    tolerance = _score_tolerance(module, [inputs[spec.name] for spec in manifest.inputs])
    # A row this close to the threshold may fall on either side, by no fault of the device.
    undecided = np.abs(scored.scores - np.float32(threshold.threshold)) <= tolerance
    outputs = run(inputs)
    largest = float(np.abs(outputs[manifest.outputs[2].name]).max())
    return Golden(
        inputs=inputs,
        outputs=outputs,
        tolerances={
            "score": tolerance,
            "embedding cosine": EMBEDDING_COSINE,
            "next_state": max(STATE_TOLERANCE, STATE_PART * largest),
            "signal score": tolerance,
            "alert flips": float(undecided.mean()),
        },
        signal_rows=rows,
        signal_scores=scored.scores,
    )


def _inputs(manifest: Manifest, run: Run, sample: Float64) -> Tensors:
    """Streams at their beginning and in the middle, normal, anomalous and at all limits."""
    signal = manifest.signal()
    prepared = SignalPreprocessor(signal.steps, len(signal.channels)).push(sample)
    look_back = signal.look_back.frames
    count = min(look_back + GOLDEN_FRAMES, len(prepared.frames))
    features = prepared.frames.shape[1]
    limits = [step.limit for step in signal.steps if isinstance(step, Clip)]
    extreme = np.full((count, features), limits[-1] if limits else 10.0, np.float32)
    first, last = prepared.frames[:count], prepared.frames[-count:]
    samples = np.stack([first, last, extreme, -extreme, 0.0 * extreme, first])
    present = np.ones_like(samples)
    dead = np.arange(features) % 2 == 1
    samples[-1, :, dead] = present[-1, :, dead] = 0.0
    size = manifest.inputs[2].shape[1]
    assert isinstance(size, int)
    names = [spec.name for spec in manifest.inputs]
    nothing = np.zeros((len(samples), size), np.float32)
    beginning = dict(zip(names, (samples, present, nothing), strict=True))
    later = run(beginning)[manifest.outputs[2].name]
    arrays = (
        np.concatenate([samples, samples[::-1]]),
        np.concatenate([present, present[::-1]]),
        np.concatenate([nothing, later]),
    )
    return {name: np.ascontiguousarray(x) for name, x in zip(names, arrays, strict=True)}


@torch.no_grad()
def _score_tolerance(module: nn.Module, inputs: Sequence[Array]) -> float:
    """Ten times what float32 itself leaves open, within bounds.

    A distance to the bank carries a rounding error of about 1e-6 of the values' own size, and
    on a very regular stream normal distances are hardly larger than that.
    """
    single = [torch.from_numpy(array) for array in inputs]
    double = [tensor.double() for tensor in single]
    exact = deepcopy(module).double()(*double)[1]
    rounding = (module(*single)[1].double() - exact).abs().max()
    return float(np.clip(10.0 * float(rounding), SCORE_TOLERANCE, WORST_SCORE_TOLERANCE))


def _with_gaps(sample: Float64, manifest: Manifest) -> Float64:
    """The sample with a value missing, then a hole, and rows enough to be scored again."""
    signal = manifest.signal()
    hold = signal.steps[0]
    assert isinstance(hold, HoldLast)
    rows = sample.copy()
    if hold.max_rows:
        rows[len(rows) // 2, 0] = np.nan
    hole = np.full((hold.max_rows + 1, rows.shape[1]), np.nan)
    warm_up_rows = SignalPreprocessor(signal.steps, rows.shape[1]).warm_up_rows
    return np.concatenate([rows, hole, sample[: warm_up_rows + 8]])
