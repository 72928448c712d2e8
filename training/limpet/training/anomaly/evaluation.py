"""How well a scorer tells anomalous from normal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def auroc(scores: NDArray[np.floating], anomalous: NDArray[np.bool_]) -> float:
    """Probability that an anomalous row scores higher than a normal one, ties counting half.

    Args:
        scores: Finite scores, higher is stranger. (n,)
        anomalous: Ground truth. (n,)

    Returns:
        Between 0 and 1; NaN without rows of both kinds.
    """
    positives = int(anomalous.sum())
    negatives = len(anomalous) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2.0)[inverse]  # mean rank of ties, from 1
    return float(
        (rank[anomalous].sum() - positives * (positives + 1) / 2.0) / (positives * negatives)
    )
