"""How good the best grasps of scenes are by their labels: quick figures while choosing, no AP.

The benchmark judges grasps on the meshes themselves; here a grasp counts as the labelled candidate
nearest to it, which is a look-up.

Dimension legend: s seeds, t approaches of a seed, g = s t grasps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from limpet.contracts.grasp_frames import (
    ANGLES,
    ANGLES_RAD,
    DEPTHS,
    rotation_between_rad,
    turn_from,
)
from limpet.training.grasp.encoder import GraspEncoder
from limpet.training.grasp.matching import NO_OBJECT
from limpet.training.grasp.samples import Sample
from limpet.training.grasp.targets import SceneLabels

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]

NMS_M, NMS_DEG = 0.03, 30.0
PER_OBJECT = 10
BEST = 50
FRICTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)


def validate(
    encoder: GraspEncoder, samples: Sequence[Sample], labels: dict[int, SceneLabels]
) -> dict[str, float]:
    """Means over samples; the encoder is left in evaluation mode.

    Returns:
        `label_ap`: of the best 50 after NMS, at most 10 an object, precision at k divided by k,
        over k and frictions 0.2 … 1.2, in percent. `good`: share of these 50 that hold at 0.8.
        `distinct`: grasps left by NMS and the limit an object. `view_recall`: of the seeds that
        some direction suits, share with one at least 0.8 as good as the best among those chosen.
    """
    encoder.eval()
    each = [_validate(encoder, sample, labels[sample.scene]) for sample in samples]
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


@torch.no_grad()
def _validate(encoder: GraspEncoder, sample: Sample, labels: SceneLabels) -> dict[str, float]:
    device = next(encoder.parameters()).device
    found = encoder.find(torch.from_numpy(sample.points)[None].to(device))
    chosen, views = found.chosen[0].cpu().numpy(), found.views[0].cpu().numpy()
    owner = sample.owner.reshape(-1)[chosen]
    point = sample.grasp_point.reshape(-1)[chosen]
    rotations = sample.poses[:, :3, :3]
    sources = labels.sources(rotations)
    wanted = labels.view_scores(owner, point, sources)
    suited = wanted.max(1) > 0
    hit = np.take_along_axis(wanted, views, 1).max(1) >= 0.8

    s, t = views.shape
    score = found.score[0].cpu().numpy().reshape(s * t, ANGLES * DEPTHS)
    best = score.argmax(1)
    angle, depth = best // DEPTHS, best % DEPTHS
    frames = encoder.approach.frames.cpu().double().numpy()[views].reshape(s * t, 3, 3)
    rotation = frames @ _TURNS[angle]
    graded = labels.grade(owner, point, views, sources, rotations)
    zero = graded.frames.reshape(s * t, 3, 3)
    turn = np.rint(turn_from(zero, rotation) / ANGLES_RAD[1]).astype(int) % ANGLES
    truth = graded.score.reshape(s * t, ANGLES, DEPTHS)[np.arange(s * t), turn, depth]

    seeds = sample.points[:, : sample.owner.shape[1]].reshape(-1, 3)[chosen]
    kept = _suppress(score.max(1), np.repeat(seeds, t, 0), rotation, np.repeat(owner, t))
    value = np.zeros(BEST)
    value[: len(kept[:BEST])] = truth[kept[:BEST]]
    friction = np.where(value > 0, 1.3 - 1.2 * value, np.inf)
    holds = friction[:, None] <= np.asarray(FRICTIONS) + 1e-6  # (k, frictions)
    precision = holds.cumsum(0) / np.arange(1, BEST + 1)[:, None]
    return {
        "label_ap": 100.0 * float(precision.mean()),
        "good": float(holds[:, 3].mean()),
        "distinct": float(len(kept)),
        "view_recall": float(hit[suited].mean()) if suited.any() else 0.0,
    }


def _suppress(
    score: NDArray[np.float32], points: NDArray[np.float32], rotation: Float64, owner: Indices
) -> Indices:
    """Indices by falling score, without those near a better one, at most `PER_OBJECT` an object."""
    left = np.argsort(-score, kind="stable")
    kept: list[int] = []
    taken: dict[int, int] = {}
    while len(left):
        top, left = int(left[0]), left[1:]
        mine = int(owner[top])
        if taken.get(mine, 0) < PER_OBJECT or mine == NO_OBJECT:
            kept.append(top)
            taken[mine] = taken.get(mine, 0) + 1
        near = np.linalg.norm(points[left] - points[top], axis=1) < NMS_M
        near &= rotation_between_rad(rotation[left], rotation[top][None]) < np.deg2rad(NMS_DEG)
        left = left[~near]
    return np.asarray(kept, np.intp)


def _make_turns() -> Float64:
    turns = np.tile(np.eye(3), (ANGLES, 1, 1))
    turns[:, 1, 1] = turns[:, 2, 2] = np.cos(ANGLES_RAD)
    turns[:, 2, 1], turns[:, 1, 2] = np.sin(ANGLES_RAD), -np.sin(ANGLES_RAD)
    return turns


_TURNS = _make_turns()
