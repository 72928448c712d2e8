"""How dimensions of normal frames go together: what makes deviations from it alike.

Dimension legend: m frames, f features, d dimensions of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from limpet.contracts.signals import Float32, Float64
from limpet.training.anomaly.chain import is_constant, is_discrete
from limpet.training.anomaly.data import Stretch
from limpet.training.anomaly.model import LEAST_SCALE, AnomalyScorer

LEAST_VARIANCE = 1e-4
"""A direction counts as varying at least this share of what the one that varies most does."""


@torch.no_grad()
def learn_relations(scorer: AnomalyScorer, stretches: Sequence[Stretch]) -> list[Stretch]:
    """Fits a scorer's relations to the frames to fit.

    Args:
        scorer: Whose encoder is not trained yet: it sees what this leaves.
        stretches: Frames as the scorer takes them.

    Returns:
        The same frames as its encoder and moments see them.
    """
    samples = np.concatenate([s.samples[s.fit] for s in stretches])
    present = np.concatenate([s.present[s.fit] for s in stretches])
    relations = scorer.relations
    buffers = (relations.mean, relations.estimate, relations.matrix)
    for buffer, fitted in zip(buffers, fit_relations(samples, present), strict=True):
        buffer.copy_(torch.from_numpy(fitted))
    return [
        replace(s, samples=relations(*map(torch.from_numpy, (s.samples, s.present))).numpy())
        for s in stretches
    ]


def fit_whitening(view: Float32, measured: Float32) -> tuple[Float64, Float64, Float64]:
    """Whitening of normal frames, and how absent dimensions follow from measured ones.

    Args:
        view: (m, d)
        measured: 1 where measured, else 0. (m, d)

    Returns:
        Mean (d,), the matrix that estimates each dimension from the others (d, d), both as in
        `Whitening`, and the whitening matrix (d, d).
    """
    mean, matrix = _whitening(view, measured)
    features = np.arange(len(mean)) % (len(mean) // 2)  # one's mean and deviation go together
    return mean, _estimate(matrix @ matrix.T, features), matrix


def fit_relations(samples: Float32, present: Float32) -> tuple[Float64, Float64, Float64]:
    """How features of normal frames follow from one another, linearly.

    Features that are constant or take few values pass unchanged: such relations say little of
    their next change.

    Args:
        samples: (m, f)
        present: 1 where measured, else 0. (m, f)

    Returns:
        Mean (f,) and the matrix that estimates each feature from the others (f, f), both as in
        `Whitening`, and the matrix that gives what each deviates from them, in units of its
        standard deviation (f, f).
    """
    f = samples.shape[1]
    mean, estimate, matrix = np.zeros(f), np.zeros((f, f)), np.eye(f)
    known = np.where(present > 0, samples, np.nan)
    measured = np.isfinite(known).any(0)
    known[:, ~measured] = 0.0
    free = np.flatnonzero(measured & ~is_constant(known) & ~is_discrete(known))
    if len(free) < 2:
        return mean, estimate, matrix
    mean[free], whitening = _whitening(samples[:, free], present[:, free])
    precision = whitening @ whitening.T
    both = np.ix_(free, free)
    estimate[both] = _estimate(precision, np.arange(len(free)))
    matrix[both] = precision / np.sqrt(np.diag(precision))
    return mean, estimate, matrix


def _whitening(view: Float32, measured: Float32) -> tuple[Float64, Float64]:
    """Mean (d,), and whitening matrix (d, d), of rows (m, d)."""
    counts = measured.sum(0, dtype=np.float64).clip(1.0)
    mean = (view * measured).sum(0, dtype=np.float64) / counts
    variances, directions = np.linalg.eigh(shrunk_covariance((view - mean) * measured))
    variances = np.maximum(variances, LEAST_VARIANCE * max(float(variances[-1]), LEAST_SCALE))
    return mean, directions / np.sqrt(variances)


def shrunk_covariance(x: Float64) -> Float64:
    """Covariance of rows of mean 0, drawn towards a multiple of the identity as far as so few rows
    leave it uncertain (Ledoit and Wolf 2004, equation 14). (m, d) → (d, d)
    """
    m, d = x.shape
    covariance = x.T @ x / m
    level = float(np.trace(covariance)) / d
    apart = float(np.square(covariance).sum()) - d * level**2
    spread = float(np.square(np.square(x).sum(1)).sum()) / m - float(np.square(covariance).sum())
    share = min(1.0, max(0.0, spread / m / apart)) if apart > 0.0 else 1.0
    return np.asarray((1.0 - share) * covariance + share * level * np.eye(d))


def _estimate(precision: Float64, feature: NDArray[np.intp]) -> Float64:
    """Regression of each dimension on those of the other features.

    Args:
        precision: (d, d)
        feature: To which each dimension belongs; those of one are absent together. (d,)

    Returns:
        (d, d)
    """
    d = len(precision)
    estimate = np.zeros((d, d))
    for j in range(int(feature.max()) + 1):
        own, others = feature == j, feature != j
        estimate[np.ix_(others, own)] = -precision[np.ix_(others, own)] @ np.linalg.inv(
            precision[np.ix_(own, own)]
        )
    return estimate
