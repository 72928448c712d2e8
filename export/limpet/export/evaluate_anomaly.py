"""`limpet evaluate anomaly` as a function: a RUN or a bundle and labelled recordings → figures.

It is in `limpet.export` since no other portion may see both sides of a model: a RUN is training's,
and what ONNX Runtime makes of a bundle is export's parity; the runtime may import neither. For a
bundle nothing beyond the bare install is imported.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.detector import DetectorConfig
from limpet.contracts.errors import DataError
from limpet.contracts.manifest import Calibration, Manifest
from limpet.contracts.recording_scores import match_recording, score_recording
from limpet.contracts.recordings import load_recordings
from limpet.contracts.scoring import SignalScorer
from limpet.export.models import Source, open_model
from limpet.training.anomaly.evaluation import (
    EventFigures,
    Ranking,
    RowFigures,
    auroc,
    average_precision,
    event_figures,
    ranking,
    row_figures,
)
from limpet.training.anomaly.judged import Judged, check_labels, judge


class PooledRanking(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of all files ranked together; volumes are of single recordings by their definition."""

    auroc: float
    average_precision: float


class FalseAlarms(msgspec.Struct, frozen=True, kw_only=True):
    """What calibration declared against what the normal rows of these recordings show.

    Attributes:
        declared_rate: Share of normal rows that the threshold was set for.
        observed_rate: Share of these normal rows that reaches it.
        normal_rows: How many those are.
        expected_rows: How many would reach it at the declared rate.
        observed_rows: How many do.
        declared_per_day: Incidents a day of normal operation that the threshold was set for; None
            where it was set for a share of rows.
        observed_per_day: Incidents outside every label, for each day of normal rows.
        normal_days: How many days those are.
    """

    declared_rate: float
    observed_rate: float
    normal_rows: int
    expected_rows: float
    observed_rows: int
    declared_per_day: float | None
    observed_per_day: float
    normal_days: float


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    """One recording.

    Attributes:
        path: The file.
        unscored_rows: Evaluated rows without a score of their own, which count with that of a
            neighbour (`limpet.training.anomaly.judged.fill_unscored`).
        window_rows: Window of the volumes, chosen by the first channel.
        ranking: Whether anomalous rows score higher.
        rows: Rows at the threshold.
        events: Intervals and incidents.
        left_out: Columns that are no channels, each with the reason.
        warnings: What was odd about it.
    """

    path: str
    unscored_rows: int
    window_rows: int
    ranking: Ranking
    rows: RowFigures
    events: EventFigures
    left_out: list[str]
    warnings: list[str]


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a model does on labelled recordings; the keys of `limpet evaluate anomaly --json`.

    Attributes:
        model: The RUN or bundle, as it was given.
        source: Which of the two.
        name: The model's name.
        engine: What computed the scores.
        data: The recordings, as they were given.
        from_row: First row of each file that counts.
        threshold: Score from which a row is anomalous.
        release_threshold: Score below which rows end an incident.
        open_after_rows: Anomalous rows in a row that open an incident.
        close_after_rows: Calm rows that close it.
        ranked_files: Files with normal and anomalous rows, over which `mean` goes.
        mean: Ranking, mean over those files.
        pooled: Ranking of all rows together.
        rows: Rows at the threshold, pooled.
        events: Intervals and incidents of all files.
        false_alarms: Declared against observed.
        files: Each recording.
    """

    model: str
    source: Source
    name: str
    engine: str
    data: str
    from_row: int
    threshold: float
    release_threshold: float
    open_after_rows: int
    close_after_rows: int
    ranked_files: int
    mean: Ranking
    pooled: PooledRanking
    rows: RowFigures
    events: EventFigures
    false_alarms: FalseAlarms
    files: list[FileReport]


def evaluate_anomaly(
    model: Path,
    data: Path,
    *,
    key: str | None = None,
    ignore: Collection[str] = (),
    rate_hz: float | None = None,
    label: str | None = None,
    from_row: int = 0,
) -> EvaluationReport:
    """Scores labelled recordings and measures the scores and the alerts they give.

    Args:
        model: A RUN, which PyTorch scores, or a bundle, which ONNX Runtime scores on the CPU.
        data: A recording or a folder of them.
        key: Array of an npz.
        ignore: Columns that are no channels.
        rate_hz: Sampling rate where the data has none.
        label: Label column.
        from_row: First row of each file that counts; the model sees those before as well.

    Raises:
        DataError: The recordings cannot be read, have no labels or other channels, or `model`
            is neither a finished RUN nor a bundle, or is not of an anomaly encoder.
        BundleError: The bundle is damaged.
        UsageError: `from_row` leaves nothing.
    """
    opened = open_model(model, "anomaly")
    manifest, calibration = opened.manifest, _calibration(model, opened.manifest)
    recordings = [
        match_recording(recording, manifest.signal())
        for recording in load_recordings(data, key=key, ignore=ignore, rate_hz=rate_hz, label=label)
    ]
    for recording in recordings:
        check_labels(recording)
    scorer, detector = SignalScorer(manifest, opened.run), DetectorConfig()
    judged = [
        judge(
            recording,
            score_recording(scorer, recording).scores,
            calibration,
            detector=detector,
            from_row=from_row,
        )
        for recording in recordings
    ]
    files = [
        FileReport(
            path=str(recording.path),
            unscored_rows=one.unscored,
            window_rows=one.window_rows,
            ranking=ranking(one),
            rows=row_figures([one]),
            events=event_figures([one]),
            left_out=list(recording.left_out),
            warnings=list(recording.warnings),
        )
        for recording, one in zip(recordings, judged, strict=True)
    ]
    rankings = [file.ranking for file in files if 0 < file.rows.anomalous < file.rows.rows]
    return EvaluationReport(
        model=str(model),
        source=opened.source,
        name=manifest.name,
        engine=opened.engine,
        data=str(data),
        from_row=from_row,
        threshold=calibration.threshold,
        release_threshold=calibration.release_threshold,
        open_after_rows=detector.open_after_rows,
        close_after_rows=detector.close_after_rows,
        ranked_files=len(rankings),
        mean=_mean(rankings),
        pooled=_pooled(judged),
        rows=row_figures(judged),
        events=event_figures(judged),
        false_alarms=_false_alarms(judged, calibration),
        files=files,
    )


def _calibration(model: Path, manifest: Manifest) -> Calibration:
    if manifest.calibration is None:
        raise DataError(f"{model} has no threshold, wanted a calibrated anomaly model")
    return manifest.calibration


def _mean(rankings: list[Ranking]) -> Ranking:
    def mean(name: str) -> float:
        values = [getattr(one, name) for one in rankings]
        return float(np.mean(values)) if values else float("nan")

    return Ranking(**{name: mean(name) for name in Ranking.__struct_fields__})


def _pooled(judged: list[Judged]) -> PooledRanking:
    scores = np.concatenate([one.scores for one in judged])
    labels = np.concatenate([one.labels for one in judged])
    return PooledRanking(
        auroc=auroc(scores, labels), average_precision=average_precision(scores, labels)
    )


def _false_alarms(judged: list[Judged], calibration: Calibration) -> FalseAlarms:
    normal = sum(int((~one.labels).sum()) for one in judged)
    observed = sum(int((one.flags & ~one.labels).sum()) for one in judged)
    days = sum(int((~one.labels).sum()) / one.rate_hz for one in judged) / 86_400.0
    return FalseAlarms(
        declared_rate=calibration.false_alarm_rate,
        observed_rate=observed / normal if normal else float("nan"),
        normal_rows=normal,
        expected_rows=calibration.false_alarm_rate * normal,
        observed_rows=observed,
        declared_per_day=calibration.false_alarms_per_day,
        observed_per_day=sum(one.outside for one in judged) / days if days else float("nan"),
        normal_days=days,
    )
