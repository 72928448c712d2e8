"""Golden data of an anomaly scorer, computed by PyTorch.

Dimension legend: n rows, w rows of a window, c channels, m windows.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from limpet.contracts.array_files import DAMAGE
from limpet.contracts.errors import DataError
from limpet.contracts.golden import Golden, Run
from limpet.contracts.manifest import Manifest
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signals import Clip, Float32, Float64, HoldLast, SignalPreprocessor
from limpet.contracts.tensors import Tensors
from limpet.training.threads import one_thread

SCORE_TOLERANCE = 1e-4
"""Largest difference of a score. Thresholds lie near 1, and float32 sums in another order differ
by about 1e-6 in a well-conditioned score."""
WORST_SCORE_TOLERANCE = 1e-2
"""Most that the tolerance of a badly conditioned score may be."""
EMBEDDING_COSINE = 0.9999
"""Smallest cosine of an embedding with the one that PyTorch computed."""

NORMAL_WINDOWS, ANOMALOUS_WINDOWS = 24, 12


def torch_run(module: nn.Module, manifest: Manifest) -> Run:
    """Runs a module as an engine runs its graph, on one thread."""

    @torch.no_grad()
    def run(inputs: Tensors) -> Tensors:
        arguments = [torch.from_numpy(inputs[spec.name]) for spec in manifest.inputs]
        with one_thread():
            results = module(*arguments)
        return {
            spec.name: result.numpy()
            for spec, result in zip(manifest.outputs, results, strict=True)
        }

    return run


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
    prepared = SignalScorer(manifest, run).push(sample).prepared
    if not len(prepared.windows):
        raise DataError(
            f"the run's sample of {len(sample)} rows is too short for a score",
            "train again",
        )
    first_anomalous = int(np.searchsorted(prepared.ends, 3 * len(sample) // 4))
    inputs = {
        manifest.inputs[0].name: np.concatenate(
            [
                _spread_out(prepared.windows[:first_anomalous], NORMAL_WINDOWS),
                _spread_out(prepared.windows[first_anomalous:], ANOMALOUS_WINDOWS),
                _extremes(manifest),
            ]
        )
    }
    rows = _with_gaps(sample, manifest)
    scored = SignalScorer(manifest, run).push(rows)
    tolerance = _score_tolerance(
        module, np.concatenate([scored.prepared.windows, inputs[manifest.inputs[0].name]])
    )
    # A row this close to the threshold may fall on either side, by no fault of the device.
    undecided = np.abs(scored.scores - np.float32(threshold.threshold)) <= tolerance
    return Golden(
        inputs=inputs,
        outputs=run(inputs),
        tolerances={
            "score": tolerance,
            "embedding cosine": EMBEDDING_COSINE,
            "signal score": tolerance,
            "alert flips": float(undecided.mean()),
        },
        signal_rows=rows,
        signal_scores=scored.scores,
    )


@torch.no_grad()
def _score_tolerance(module: nn.Module, windows: Float32) -> float:
    """Ten times what float32 itself leaves open, within bounds.

    A distance to the bank carries a rounding error of about 1e-6 of the window's own size, and
    on a very regular stream normal distances are hardly larger than that.
    """
    single, double = torch.from_numpy(windows), torch.from_numpy(windows).double()
    rounding = (module(single)[1].double() - deepcopy(module).double()(double)[1]).abs().max()
    return float(np.clip(10.0 * float(rounding), SCORE_TOLERANCE, WORST_SCORE_TOLERANCE))


def _spread_out(windows: Float32, most: int) -> Float32:
    """At most so many of the windows, evenly over time."""
    count = min(most, len(windows))
    return windows[np.linspace(0, max(0, len(windows) - 1), count).astype(np.intp)]


def _extremes(manifest: Manifest) -> Float32:
    """Windows at the ends of what preprocessing can give. (3, w, c)"""
    signal = manifest.signal()
    limits = [step.limit for step in signal.steps if isinstance(step, Clip)]
    window = np.ones((signal.window.rows, len(signal.channels)), np.float32)
    limit = np.float32(limits[-1] if limits else 10.0)
    return np.stack([0.0 * window, limit * window, -limit * window])


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
