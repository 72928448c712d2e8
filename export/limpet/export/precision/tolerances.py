"""How far a graph at a lower precision may differ from what PyTorch computed in float32."""

from __future__ import annotations

import dataclasses

import msgspec

from limpet.contracts.golden import Golden
from limpet.contracts.manifest import AnomalyDecoding, Manifest, Precision


class Tolerances(msgspec.Struct, frozen=True, kw_only=True):
    """Tolerances of a precision.

    Attributes:
        cosine: Smallest cosine of an embedding, a state or any other row.
        score: Largest difference of an anomaly score, as a part of the threshold.
        flips: Largest share of rows that change side of the threshold.
    """

    cosine: float
    score: float
    flips: float


TOLERANCES: dict[Precision, Tolerances] = {
    "fp16": Tolerances(cosine=0.9995, score=0.02, flips=0.001),
    "int8": Tolerances(cosine=0.99, score=0.1, flips=0.001),
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
    rows = {spec.name for spec in manifest.outputs}
    own = rows | {f"{name} cosine" for name in rows}
    if manifest.kind == "grasp":  # of its outputs not all are compared row by row
        rows = {name for name in rows if {name, f"{name} cosine"} & before.keys()}
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
