"""Whether two computations of one scene find the same grasps.

Rounding makes a network choose other seeds where two are nearly as good, so outputs are not
compared row by row but as what they are: sets of grasps.

Dimension legend: g golden grasps, h hypotheses, s seeds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.grasp_frames import rotation_between_rad
from limpet.contracts.grasps import (
    SCORE,
    TRANSLATION,
    GraspDecoding,
    hypotheses_of,
    rotations_of,
    suppress,
)
from limpet.contracts.tensors import Tensors

BEST = 50
"""Grasps that have to be found again: as many as GraspNet's evaluator looks at."""
SAME_M, SAME_RAD = 0.005, float(np.deg2rad(10))
"""Two grasps nearer than both are the same."""
ABOUT = 0.05
"""How far below the worst of the best a score may be and still be about as good."""

LOST_GRASPS = "lost grasps"
"""Check: share of the best grasps that the other computation does not find."""
GRASP_SCORE = "grasp score"
"""Check: mean difference of the scores of those that it does."""


def disagreement(expected: Tensors, found: Tensors, decoding: GraspDecoding) -> dict[str, float]:
    """How far outputs are from those that are expected; 0 where they agree.

    Returns:
        `LOST_GRASPS` and `GRASP_SCORE`.
    """
    wanted = hypotheses_of(expected, decoding)
    wanted = wanted[suppress(wanted)[:BEST]]  # (g, 17)
    others = hypotheses_of(found, decoding)  # (h, 17)
    if not (np.isfinite(others).all() and len(wanted)):
        return {LOST_GRASPS: 1.0, GRASP_SCORE: float("nan")}
    others = others[others[:, SCORE] >= wanted[:, SCORE].min() - ABOUT]
    lost, differences = 0, []
    for row in wanted:
        near = np.linalg.norm(others[:, TRANSLATION] - row[TRANSLATION], axis=1) <= SAME_M
        candidates = others[near]
        turn = rotation_between_rad(rotations_of(candidates), rotations_of(row[None]))
        candidates = candidates[turn <= SAME_RAD]
        if len(candidates):
            differences.append(np.abs(candidates[:, SCORE] - row[SCORE]).min())
        else:
            lost += 1
    score = float(np.mean(differences)) if differences else float("nan")
    return {LOST_GRASPS: lost / len(wanted), GRASP_SCORE: score}


def seed_cosine(expected: Tensors, found: Tensors, decoding: GraspDecoding) -> float:
    """Mean cosine of the embeddings of seeds that both chose; NaN where there is none. 1: alike."""
    wanted, got = expected[decoding.seeds], found[decoding.seeds]  # (s, 3) each
    rows = {tuple(seed): index for index, seed in enumerate(_keys(got))}
    pairs = [(a, rows[key]) for a, seed in enumerate(_keys(wanted)) if (key := tuple(seed)) in rows]
    if not pairs:
        return float("nan")
    first, second = np.array(pairs).T
    a = expected[decoding.seed_embedding][first].astype(np.float64)
    b = found[decoding.seed_embedding][second].astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: NDArray[np.float64] = (a * b).sum(1) / np.where(norms == 0, 1, norms)
    return float(cosines.mean())


def _keys(seeds: NDArray[np.floating]) -> list[list[int]]:
    """Seeds to a tenth of a millimetre: they are points of the input, which nothing rounds."""
    keys: list[list[int]] = np.rint(np.asarray(seeds, np.float64) * 1e4).astype(np.int64).tolist()
    return keys


def stray_share(prepared: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Share of prepared points that are none of those expected. (V, N, 3) twice

    Processors add in another order, so one point in thousands may differ.
    """
    if prepared.shape != expected.shape:
        return 1.0
    strays = 0
    for some, others in zip(prepared, expected, strict=True):
        known = {tuple(key) for key in _keys(others)}
        near = [tuple(key) in known for key in _keys(some)]
        strays += near.count(False)
    return strays / (len(prepared) * len(prepared[0]))
