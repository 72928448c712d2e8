"""Fills a scorer's banks with normal frames, and scores what was held out.

Dimension legend: m frames, d dimensions of a view, k bank frames.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limpet.contracts.signals import Float32
from limpet.training.anomaly.data import Stretch
from limpet.training.anomaly.model import LEAST_SCALE, AnomalyScorer, Bank, View
from limpet.training.anomaly.relations import fit_whitening

CALL_FRAMES = 1024
SCALE_QUANTILE = 0.9
"""Share of normal frames that lie within one scale of the bank."""
MOST_FRAMES = 16_384
"""Frames that a bank is compressed from, evenly over time."""
ROUNDS = 12
"""Rounds of Lloyd's algorithm."""
LOOK_BACKS_A_HALF = 2
"""Scored frames of a half, in look-backs, at least: of shorter ones too little is left to be known.
"""


@dataclass(frozen=True)
class _Frames:
    """Normal frames as one bank sees them, in order of time.

    Attributes:
        view: (m, d)
        measured: 1 where measured, else 0. (m, d)
    """

    view: Tensor
    measured: Tensor

    def __getitem__(self, chosen: slice | Tensor) -> _Frames:
        return _Frames(self.view[chosen], self.measured[chosen])

    def __len__(self) -> int:
        return len(self.view)


@torch.no_grad()
def fill_banks(scorer: AnomalyScorer, stretches: Sequence[Stretch], seed: int) -> None:
    """Compresses the views of frames to fit to the banks' centres, and sets the scores' scales.

    Args:
        scorer: With a trained encoder.
        stretches: Frames; the scored ones to fit are taken.
        seed: Of the first centres.
    """
    views = _collect(scorer, [(s, s.fit & s.scored) for s in stretches])
    for bank, frames in zip(scorer.banks, views, strict=True):
        # Each half as seen by the other: a view in which normal drifts apart weighs less.
        half, apart = len(frames) // 2, []
        for known, other in ((frames[:half], frames[half:]), (frames[half:], frames[:half])):
            _fill(bank, known, seed)
            apart.append(bank.distance(bank.compared(other.view, other.measured)))
        reached = torch.quantile(torch.cat(apart), SCALE_QUANTILE)
        bank.scale.copy_(reached.clamp_min(LEAST_SCALE))
        _fill(bank, frames, seed)


@torch.no_grad()
def add_held_out(scorer: AnomalyScorer, stretches: Sequence[Stretch], seed: int) -> None:
    """Fills the banks anew with what was held out as well, once it has set the threshold.

    More known normal frames make new ones less strange, so a threshold that was set before errs on
    the quiet side.
    """
    for bank, frames in zip(
        scorer.banks, _collect(scorer, [(s, s.scored) for s in stretches]), strict=True
    ):
        _fill(bank, frames, seed)


def _collect(
    scorer: AnomalyScorer, chosen: Sequence[tuple[Stretch, NDArray[np.bool_]]]
) -> list[_Frames]:
    """Views of the chosen frames of each stretch, evenly thinned to `MOST_FRAMES`."""
    parts: list[list[_Frames]] = [[] for _ in scorer.banks]
    for stretch, wanted in chosen:
        if not wanted.any():
            continue
        kept = torch.from_numpy(wanted)
        for here, views in _view_calls(scorer, stretch):
            for part, (view, measured) in zip(parts, views, strict=True):
                part.append(_Frames(view[0][kept[here]], measured[0][kept[here]]))
    whole = [
        _Frames(torch.cat([p.view for p in part]), torch.cat([p.measured for p in part]))
        for part in parts
    ]
    return [frames[:: max(1, len(frames) // MOST_FRAMES)] for frames in whole]


def _view_calls(scorer: AnomalyScorer, stretch: Stretch) -> Iterator[tuple[slice, list[View]]]:
    state = torch.zeros(1, scorer.state_size)
    for start in range(0, len(stretch), CALL_FRAMES):
        here = slice(start, start + CALL_FRAMES)
        samples = torch.from_numpy(stretch.samples[here])[None]
        views, state = scorer.views(samples, torch.from_numpy(stretch.present[here])[None], state)
        yield here, views


@torch.no_grad()
def calibration_scores(scorer: AnomalyScorer, stretches: Sequence[Stretch], seed: int) -> Float32:
    """Scores of normal frames that the banks do not know, in order of time. (m,)

    Each half of the time is scored by banks of the other, as far as those share no look-back with
    it (cross-conformal prediction, Vovk 2015). What a robot judges comes after all that was learnt:
    of four folds, each scored by the others, two would lie amid what is known, where slow drift
    does not show, and the threshold would be too low. Where halves would be shorter than
    `LOOK_BACKS_A_HALF`, those that were held out are scored by the banks as they are, which are to
    know those to fit.

    Args:
        scorer: With banks of the frames to fit.
        stretches: All frames.
        seed: Of the banks' first centres.
    """
    scored = sum(int(s.scored.sum()) for s in stretches)
    if scored < 2 * LOOK_BACKS_A_HALF * scorer.look_back_frames:
        held_out = [~s.fit & s.scored for s in stretches]
        return _scores(scorer, stretches, held_out, [scorer.banks], np.zeros(scored, np.intp))
    everything = [s.scored for s in stretches]
    views = _collect(scorer, list(zip(stretches, everything, strict=True)))
    at = np.arange(len(views[0])) * max(1, scored // MOST_FRAMES)
    edges = (0, scored // 2, scored)
    halves = []
    for start, stop in itertools.pairwise(edges):
        apart = (at < start - scorer.look_back_frames) | (at >= stop + scorer.look_back_frames)
        known, banks = torch.from_numpy(np.flatnonzero(apart)), copy.deepcopy(scorer.banks)
        for bank, frames in zip(banks, views, strict=True):
            _fill(bank, frames[known], seed)
        halves.append(banks)
    half_of = (np.arange(scored) >= edges[1]).astype(np.intp)
    return _scores(scorer, stretches, everything, halves, half_of)


def _scores(
    scorer: AnomalyScorer,
    stretches: Sequence[Stretch],
    wanted: Sequence[NDArray[np.bool_]],
    several: Sequence[Sequence[Bank]],
    which: NDArray[np.intp],
) -> Float32:
    """Scores of the wanted frames, each by those of several banks that are its own. (m,)"""
    scores = [np.empty(0, np.float32)]
    first = 0
    for stretch, chosen in zip(stretches, wanted, strict=True):
        if not chosen.any():
            continue
        for here, views in _view_calls(scorer, stretch):
            kept = np.flatnonzero(chosen[here])
            of = which[first : first + len(kept)]
            first += len(kept)
            for own in np.unique(of):
                rows = torch.from_numpy(kept[of == own])
                parts = [
                    bank(view[:, rows], measured[:, rows])
                    for bank, (view, measured) in zip(several[own], views, strict=True)
                ]
                scores.append(torch.stack(parts).sum(0)[0].numpy())
    return np.concatenate(scores)


def _fill(bank: Bank, frames: _Frames, seed: int) -> None:
    """Fits a bank's whitening and centres to normal frames."""
    if bank.whitening is not None:
        mean, estimate, matrix = fit_whitening(frames.view.numpy(), frames.measured.numpy())
        bank.whitening.mean.copy_(torch.from_numpy(mean))
        bank.whitening.estimate.copy_(torch.from_numpy(estimate))
        bank.whitening.matrix.copy_(torch.from_numpy(matrix))
    compared = bank.compared(frames.view, frames.measured)
    bank.members.copy_(_centres(compared, len(bank.members), seed))


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
