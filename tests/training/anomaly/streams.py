"""Streams and small scorers that tests of the anomaly encoder share.

Dimension legend: b streams, t frames, f features.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from limpet.training.anomaly.bank import fill_banks
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.data import Stretch
from limpet.training.anomaly.model import AnomalyScorer, build_scorer
from limpet.training.anomaly.relations import learn_relations

FEATURES, WIDTH, EMBEDDING, BANK = 3, 8, 16, 40


def frames(b: int, t: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).standard_normal((b, t, FEATURES))
    return torch.from_numpy(values.astype(np.float32))


def stretch(t: int, seed: int = 0, held_out: int = 0) -> Stretch:
    """Noise, all of it measured and scored."""
    samples, fit = frames(1, t, seed)[0].numpy(), np.arange(t) < t - held_out
    return Stretch(samples, np.ones_like(samples), np.ones(t, bool), fit)


def coupled(t: int, seed: int = 0, held_out: int = 0) -> Stretch:
    """Noise of which the last feature is most of the sum of the others."""
    made = stretch(t, seed, held_out)
    made.samples[:, -1] = made.samples[:, :-1].sum(1) + 0.2 * made.samples[:, -1]
    return made


def scorer(blocks: int = 3) -> AnomalyScorer:
    config = AnomalyConfig(width=WIDTH, embedding=EMBEDDING)
    model = build_scorer(config, FEATURES, blocks, BANK).eval()
    learn_relations(model, [coupled(400)])
    fill_banks(model, [coupled(400)], seed=0)
    return model


def absences(samples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Samples, 0 where a channel is absent for a while, and what is present."""
    rng = np.random.default_rng(seed)
    present = torch.ones_like(samples)
    for stream, feature in itertools.product(range(len(samples)), range(FEATURES)):
        first = int(rng.integers(0, 2 * samples.shape[1]))
        present[stream, first : first + int(rng.integers(1, 30)), feature] = 0.0
    return samples * present, present
