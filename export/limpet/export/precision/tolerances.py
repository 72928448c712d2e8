"""How far a graph at a lower precision may differ from what PyTorch computed in float32."""

from __future__ import annotations

import dataclasses

import msgspec

from limpet.contracts.golden import PREPARED_POINTS, Golden
from limpet.contracts.grasp_agreement import GRASP_SCORE, LOST_GRASPS
from limpet.contracts.grasps import GraspDecoding
from limpet.contracts.manifest import AnomalyDecoding, Manifest, Precision


class Tolerances(msgspec.Struct, frozen=True, kw_only=True):
    """Tolerances of a precision.

    Attributes:
        cosine: Smallest cosine of an embedding, a state or any other row.
        score: Largest difference of an anomaly score, as a part of the threshold.
        flips: Largest share of rows that change side of the threshold.
        lost: Largest share of the best grasps that are not found.
        grasp_score: Largest mean difference of the scores of those that are.
    """

    cosine: float
    score: float
    flips: float
    lost: float
    grasp_score: float


TOLERANCES: dict[Precision, Tolerances] = {
    "fp16": Tolerances(cosine=0.9995, score=0.02, flips=0.001, lost=0.1, grasp_score=0.01),
    "int8": Tolerances(cosine=0.99, score=0.1, flips=0.001, lost=0.2, grasp_score=0.03),
}


def loosened(golden: Golden, manifest: Manifest, precision: Precision) -> Golden:
    """The golden data of a float32 bundle, with tolerances of another precision.

    Where a score has to be within a part of the threshold, its own tolerance in float32 stays if
    that is wider; so does the share of rows that lie too near the threshold to be told. What is
    neither an output's difference nor a score's (prepared images, grasps that are lost) stays.
    """
    if precision == "fp32":
        return golden
    allowed, before = TOLERANCES[precision], golden.tolerances
    if isinstance(manifest.decoding, GraspDecoding):
        return _loosened_grasps(golden, manifest.decoding, allowed)
    rows = {spec.name for spec in manifest.outputs}
    own = rows | {f"{name} cosine" for name in rows}
    tolerances = {f"{name} cosine": allowed.cosine for name in rows}
    tolerances |= {name: bound for name, bound in before.items() if name not in own}
    if isinstance(manifest.decoding, AnomalyDecoding) and manifest.calibration is not None:
        score = manifest.decoding.score
        del tolerances[f"{score} cosine"]
        difference = allowed.score * manifest.calibration.threshold
        for name in (score, "signal score"):
            tolerances[name] = max(difference, before.get(name, 0.0))
        tolerances["alert flips"] = max(allowed.flips, before.get("alert flips", 0.0))
    return dataclasses.replace(golden, tolerances=tolerances)


def _loosened_grasps(golden: Golden, decoding: GraspDecoding, allowed: Tolerances) -> Golden:
    """Of a model that finds grasps: sets of grasps are compared, and embeddings."""
    before = golden.tolerances
    tolerances = {
        PREPARED_POINTS: before[PREPARED_POINTS],
        LOST_GRASPS: max(allowed.lost, before.get(LOST_GRASPS, 0.0)),
        GRASP_SCORE: max(allowed.grasp_score, before.get(GRASP_SCORE, 0.0)),
        f"{decoding.embedding} cosine": allowed.cosine,
        f"{decoding.seed_embedding} cosine": allowed.cosine,
    }
    return dataclasses.replace(golden, tolerances=tolerances)
