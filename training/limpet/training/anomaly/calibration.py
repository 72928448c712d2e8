"""From scores of held-out normal rows to thresholds with a stated false-alarm rate."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.contracts.manifest import Calibration

RELEASE_FACTOR = 3.0
"""An incident ends below the score that this many times as many normal rows reach."""

SURE_EXCEEDANCES = 10
"""Fewer expected rows above the threshold than this, and the rate is rather uncertain."""


def calibrate(
    scores: NDArray[np.floating], false_alarm_rate: float, data: str = ""
) -> tuple[Calibration, tuple[str, ...]]:
    """Sets the threshold so that a new normal row reaches it with at most the stated probability.

    The threshold lies just above the ⌈(1 - rate)(m + 1)⌉-th smallest of m scores (split conformal
    prediction, Vovk 2005; Lei et al. 2018), which holds for any distribution of exchangeable
    rows. Neighbouring rows of a stream are alike, so m rows tell less than m independent ones.

    Args:
        scores: Scores of held-out normal rows; NaN where a row has none. (n,)
        false_alarm_rate: Wanted share of normal rows that reach the threshold.
        data: Name of the recording.

    Returns:
        The calibration, and warnings. With too few rows for the wanted rate, the rate that they
        do support takes its place.

    Raises:
        DataError: No row has a score.
    """
    known = np.sort(scores[np.isfinite(scores)].astype(np.float32))
    m = len(known)
    if m == 0:
        raise DataError(
            f"{data or 'the data'}: no held-out row has a score to set a threshold by",
            "train on more rows",
        )
    warnings: list[str] = []
    rate = false_alarm_rate
    if rate * (m + 1) < 1.0:
        rate = 1.0 / (m + 1)
        warnings.append(
            f"{m} held-out rows support no false-alarm rate below {rate:.2g}: the threshold is "
            f"set for that instead of {false_alarm_rate:g}, which takes "
            f"{math.ceil(1 / false_alarm_rate) - 1} rows"
        )
    elif rate * m < SURE_EXCEEDANCES:
        warnings.append(
            f"a false-alarm rate of {rate:g} rests on {rate * m:.0f} of {m} held-out rows; for a "
            f"rate within a factor of about two take {math.ceil(SURE_EXCEEDANCES / rate)} rows"
        )
    calibration = Calibration(
        threshold=_just_above(known, rate),
        release_threshold=_just_above(known, min(RELEASE_FACTOR * rate, 0.5)),
        false_alarm_rate=rate,
        held_out_rows=m,
        data=data,
    )
    return calibration, tuple(warnings)


def _just_above(known: NDArray[np.float32], rate: float) -> float:
    """The smallest float32 above the conformal quantile: rows that equal it are still normal."""
    # Rounded first: 0.99 * 1000 must not become 991 through a digit of float64.
    rank = math.ceil(round((1.0 - rate) * (len(known) + 1), 9))
    quantile = known[min(max(rank, 1), len(known)) - 1]
    return float(np.nextafter(quantile, np.float32(np.inf)))
