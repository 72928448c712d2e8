"""From scores of unseen normal rows to thresholds with a stated false-alarm rate."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.detector import DetectorConfig
from limpet.contracts.errors import DataError
from limpet.contracts.manifest import Calibration
from limpet.training.anomaly.extremes import fit_tail

RELEASE_FACTOR = 1.5
"""An incident ends below the score that this many times as many normal rows reach."""

SURE_EXCEEDANCES = 10
"""Fewer expected rows above the threshold than this, and the rate is rather uncertain."""


def calibrate(
    scores: NDArray[np.floating], false_alarm_rate: float, data: str = ""
) -> tuple[Calibration, tuple[str, ...]]:
    """Sets the threshold so that a new normal row reaches it with at most the stated probability.

    The threshold lies just above the ⌈(1 - rate)(m + 1)⌉-th smallest of m scores (split conformal
    prediction, Vovk 2005; Lei et al. 2018), which holds for any distribution of exchangeable
    rows. Neighbouring rows of a stream are alike, so m rows tell less than m independent ones:
    where they are worth fewer than 1 / rate, no quantile of theirs is that rare, and the threshold
    is at least the upper prediction bound of a further value of a normal distribution (Student's
    t with the effective number of rows), which grows the less they tell.

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
    known = np.sort(_scored(scores, data))
    m = len(known)
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
    threshold = _just_above(known, rate)
    independent = independent_rows(scores)
    if independent * rate < 1.0:
        threshold = max(threshold, _prediction_bound(known, independent, rate))
        warnings.append(
            f"{m} held-out rows are so alike that they tell as much as {independent:.0f} "
            f"independent ones: the threshold allows for that"
        )
    if threshold <= _just_above(np.zeros(1, np.float32), rate):
        warnings.append(
            "the held-out rows only repeat rows that were fitted to, and score 0: any row that "
            "differs from those reaches the threshold; train on rows with all that is normal"
        )
    release_rate = min(RELEASE_FACTOR * rate, 0.5)
    calibration = Calibration(
        threshold=threshold,
        release_threshold=_just_above(known, release_rate),
        false_alarm_rate=rate,
        held_out_rows=m,
        data=data,
    )
    return calibration, tuple(warnings)


def calibrate_per_day(
    scores: NDArray[np.floating],
    false_alarms_per_day: float,
    frames_per_day: float,
    rows_per_frame: float,
    data: str = "",
) -> tuple[Calibration, tuple[str, ...]]:
    """Sets the threshold so that normal operation opens at most so many incidents a day.

    Incidents are those of a detector as it is by default. Where the held-out frames last less than
    it takes to see such a day, the tail of their peaks is extrapolated (`extremes`).

    Args:
        scores: Scores of held-out normal frames in order of time; NaN where one has none. (m,)
        false_alarms_per_day: Wanted number of incidents.
        frames_per_day: Frames that a stream has in a day.
        rows_per_frame: Rows from one frame to the next.
        data: Name of the recording.

    Returns:
        The calibration, its `false_alarm_rate` the largest share of rows that the held-out ones
        make likely, and warnings.

    Raises:
        DataError: No frame has a score.
    """
    known = _scored(scores, data)
    m = len(known)
    detector = DetectorConfig()
    tail = fit_tail(
        known,
        math.ceil(detector.open_after_rows / rows_per_frame),
        math.ceil(detector.close_after_rows / rows_per_frame),
    )
    wanted = false_alarms_per_day / frames_per_day
    threshold = float(np.nextafter(np.float32(tail.reached_by(wanted)), np.float32(np.inf)))
    release = min(threshold, tail.reached_by(RELEASE_FACTOR * wanted))
    warnings: list[str] = []
    if tail.peaks < SURE_EXCEEDANCES:
        warnings.append(
            f"{false_alarms_per_day:g} false alarms a day rest on {tail.peaks} peaks in {m} "
            f"held-out frames, {m / frames_per_day:.2g} days: train on more rows"
        )
    elif wanted * m < 1.0:
        warnings.append(
            f"{false_alarms_per_day:g} false alarms a day are extrapolated from {tail.peaks} peaks "
            f"in {m / frames_per_day:.2g} days"
        )
    return Calibration(
        threshold=threshold,
        release_threshold=release,
        false_alarm_rate=(1 + int((known >= threshold).sum())) / (m + 1),
        false_alarms_per_day=false_alarms_per_day,
        held_out_rows=m,
        data=data,
    ), tuple(warnings)


def _scored(scores: NDArray[np.floating], data: str) -> NDArray[np.float32]:
    """Those of the rows that have a score, in order; raises where none has."""
    known = scores[np.isfinite(scores)].astype(np.float32)
    if not len(known):
        raise DataError(
            f"{data or 'the data'}: no held-out row has a score to set a threshold by",
            "train on more rows",
        )
    return np.asarray(known)


def _just_above(known: NDArray[np.float32], rate: float) -> float:
    """The smallest float32 above the conformal quantile: rows that equal it are still normal."""
    # Rounded first: 0.99 * 1000 must not become 991 through a digit of float64.
    rank = math.ceil(round((1.0 - rate) * (len(known) + 1), 9))
    quantile = known[min(max(rank, 1), len(known)) - 1]
    return float(np.nextafter(quantile, np.float32(np.inf)))


def independent_rows(scores: NDArray[np.floating]) -> float:
    """How many independent rows tell as much about the mean: n / (1 + 2 Σ ρ), at least 2.

    ρ are the autocorrelations up to the first that is not positive (Geyer 1992, initial positive
    sequence). Rows without a score are left out.
    """
    x = scores[np.isfinite(scores)].astype(np.float64)
    x -= x.mean()
    n, power = len(x), float(np.square(x).sum())
    if power <= 0.0:
        return 2.0
    spectrum = np.square(np.abs(np.fft.rfft(x, 2 * n)))
    correlation = np.fft.irfft(spectrum)[:n] / power
    ends = np.flatnonzero(correlation <= 0.0)
    positive = correlation[1 : ends[0] if len(ends) else n]
    return max(2.0, n / (1.0 + 2.0 * float(positive.sum())))


def _prediction_bound(known: NDArray[np.float32], independent: float, rate: float) -> float:
    """Value that a further row exceeds with the stated probability."""
    spread = float(known.std()) * math.sqrt(independent / (independent - 1.0))
    quantile = _student_quantile(1.0 - rate, independent - 1.0)
    return float(known.mean()) + quantile * spread * math.sqrt(1.0 + 1.0 / independent)


def _student_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t above its median, by integration over x = √ν tan θ."""
    angle = (np.arange(200_000) + 0.5) * (0.5 * math.pi / 200_000)
    total = np.cumsum(np.cos(angle) ** (degrees - 1.0))
    return math.sqrt(degrees) * math.tan(
        float(np.interp(probability, 0.5 + 0.5 * total / total[-1], angle))
    )
