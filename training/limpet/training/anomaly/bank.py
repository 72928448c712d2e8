"""Fills a scorer's banks with normal frames, and scores what was held out.

Dimension legend: m frames, d dimensions of a view, k bank frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limpet.contracts.signals import Float32
from limpet.training.anomaly.data import Stretch
from limpet.training.anomaly.model import LEAST_SCALE, AnomalyScorer

CALL_FRAMES = 1024
SCALE_QUANTILE = 0.9
"""Share of normal frames that lie within one scale of the bank."""
MOST_FRAMES = 16_384
"""Frames that a bank is compressed from, evenly over time."""
ROUNDS = 12
"""Rounds of Lloyd's algorithm."""


@torch.no_grad()
def fill_banks(scorer: AnomalyScorer, stretches: Sequence[Stretch], seed: int) -> None:
    """Compresses the views of frames to fit to the banks' centres, and sets the scores' scales.

    Args:
        scorer: With a trained encoder.
        stretches: Frames; the scored ones to fit are taken.
        seed: Of the first centres.
    """
    views = _collect(scorer, [(s, s.fit & s.scored) for s in stretches])
    for bank, view in zip(scorer.banks, views, strict=True):
        members = bank.get_buffer("members")
        # Each half as seen by the other: a view in which normal drifts apart weighs less.
        half, apart = len(view) // 2, []
        for known, other in ((view[:half], view[half:]), (view[half:], view[:half])):
            members.copy_(_centres(known, len(members), seed))
            apart.append(bank.distance(other))
        reached = torch.quantile(torch.cat(apart), SCALE_QUANTILE)
        bank.get_buffer("scale").copy_(reached.clamp_min(LEAST_SCALE))
        members.copy_(_centres(view, len(members), seed))


@torch.no_grad()
def add_held_out(scorer: AnomalyScorer, stretches: Sequence[Stretch], seed: int) -> None:
    """Fills the banks anew with what was held out as well, once it has set the threshold.

    More known normal frames make new ones less strange, so a threshold that was set before errs on
    the quiet side.
    """
    views = _collect(scorer, [(s, s.scored) for s in stretches])
    for bank, view in zip(scorer.banks, views, strict=True):
        members = bank.get_buffer("members")
        members.copy_(_centres(view, len(members), seed))


def _collect(
    scorer: AnomalyScorer, chosen: Sequence[tuple[Stretch, NDArray[np.bool_]]]
) -> list[Tensor]:
    """Views of the chosen frames of each stretch, evenly thinned to `MOST_FRAMES`. (m, d) each"""
    parts: list[list[Tensor]] = [[] for _ in scorer.banks]
    for stretch, wanted in chosen:
        if not wanted.any():
            continue
        kept = torch.from_numpy(wanted)
        for here, views in _view_calls(scorer, stretch):
            for part, (view, _) in zip(parts, views, strict=True):
                part.append(view[0][kept[here]])
    whole = [torch.cat(part) for part in parts]
    return [view[:: max(1, len(view) // MOST_FRAMES)] for view in whole]


def _view_calls(
    scorer: AnomalyScorer, stretch: Stretch
) -> Iterator[tuple[slice, list[tuple[Tensor, Tensor | None]]]]:
    state = torch.zeros(1, scorer.state_size)
    for start in range(0, len(stretch), CALL_FRAMES):
        here = slice(start, start + CALL_FRAMES)
        samples = torch.from_numpy(stretch.samples[here])[None]
        views, state = scorer.views(samples, torch.from_numpy(stretch.present[here])[None], state)
        yield here, views


@torch.no_grad()
def held_out_scores(scorer: AnomalyScorer, stretch: Stretch) -> Float32:
    """Scores of the scored frames behind those to fit. (m,)"""
    wanted: NDArray[np.bool_] = ~stretch.fit & stretch.scored
    if not wanted.any():
        return np.empty(0, np.float32)
    state = torch.zeros(1, scorer.state_size)
    scores = []
    for start in range(0, len(stretch), CALL_FRAMES):
        here = slice(start, start + CALL_FRAMES)
        samples = torch.from_numpy(stretch.samples[here])[None]
        _, score, state = scorer(samples, torch.from_numpy(stretch.present[here])[None], state)
        scores.append(score[0].numpy())
    return np.asarray(np.concatenate(scores)[wanted], np.float32)


def _centres(points: Tensor, k: int, seed: int) -> Tensor:
    """K centres by Lloyd's algorithm (1982), from points drawn evenly over time. (m, d) → (k, d)"""
    if len(points) <= k:
        return points[torch.arange(k) % len(points)]
    offset = np.random.default_rng([seed, k]).random()
    first = ((np.arange(k) + offset) * len(points) / k).astype(np.intp)
    centres = points[torch.from_numpy(first)].clone()
    for _ in range(ROUNDS):
        nearest = torch.cat(
            [torch.cdist(part, centres).argmin(1) for part in torch.split(points, 4096)]
        )
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        count = torch.bincount(nearest, minlength=k)[:, None]
        centres = torch.where(count > 0, total / count.clamp_min(1), centres)
    return centres
