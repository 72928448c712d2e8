"""Anomaly scores of recordings, offline."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import DataError
from limpet.contracts.recording_scores import match_recording, score_recording
from limpet.contracts.recordings import load_recording
from limpet.contracts.scores_file import write_scores
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signals import RowState
from limpet.runtime.engines import open_engine

STATES = tuple(state for state in RowState if state <= RowState.HOLE)


class RecordingReport(msgspec.Struct, frozen=True, kw_only=True):
    """One INPUT in the report.

    Attributes:
        path: The file, as it was given.
        rows: Its rows.
        segments: Parts of it that do not follow each other; each starts anew.
        rate_hz: Its sampling rate.
        left_out: Columns that were not used, each with the reason.
        warnings: What was odd about it.
        states: Rows by state: scored, filled, partial, warming_up, hole.
        anomalous: Rows that reach the threshold.
    """

    path: str
    rows: int
    segments: int
    rate_hz: float
    left_out: list[str]
    warnings: list[str]
    states: dict[str, int]
    anomalous: int


class ScoresReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet predict --json` writes for an anomaly bundle.

    Attributes:
        bundle: The folder, as it was given.
        name: The model's name.
        engine: Engine and device that scored.
        out: The score file.
        rows: Its rows.
        threshold: Score from which a row is anomalous.
        inputs: Each INPUT, in the order of the score file.
    """

    bundle: str
    name: str
    engine: str
    out: str
    rows: int
    threshold: float
    inputs: list[RecordingReport]


def predict_scores(
    model: Bundle,
    inputs: Sequence[str],
    out: Path,
    engine: str,
    *,
    key: str | None,
    ignore: Collection[str],
    rate_hz: float | None,
    label: str | None,
) -> ScoresReport:
    """Scores recordings and writes one score a row.

    Args:
        model: An anomaly bundle.
        inputs: Recordings.
        out: The score file.
        engine: Name of the engine.
        key: Array of an npz.
        ignore: Columns that are no channels.
        rate_hz: Sampling rate where the data has none.
        label: Label column.

    Raises:
        DataError: A recording cannot be read or has other channels, or the bundle has no threshold.
        EngineError: The engine cannot load the model.
    """
    if model.manifest.calibration is None:
        raise DataError(f"{model.path} has no threshold, wanted a calibrated anomaly model")
    threshold = model.manifest.calibration.threshold
    recordings = [
        match_recording(
            load_recording(path, key=key, ignore=ignore, rate_hz=rate_hz, label=label),
            model.manifest.signal(),
        )
        for path in inputs
    ]
    opened = open_engine(model, engine)
    scorer = SignalScorer(model.manifest, opened.run)
    scored = [score_recording(scorer, recording) for recording in recordings]
    write_scores(out, np.concatenate([found.scores for found in scored]))
    return ScoresReport(
        bundle=str(model.path),
        name=model.manifest.name,
        engine=opened.name,
        out=str(out),
        rows=sum(len(recording) for recording in recordings),
        threshold=threshold,
        inputs=[
            RecordingReport(
                path=path,
                rows=len(recording),
                segments=len(recording.segments),
                rate_hz=recording.rate_hz,
                left_out=list(recording.left_out),
                warnings=list(recording.warnings),
                states={s.name.lower(): int((found.states == s).sum()) for s in STATES},
                anomalous=int((found.scores >= threshold).sum()),
            )
            for path, recording, found in zip(inputs, recordings, scored, strict=True)
        ],
    )


def describe(report: ScoresReport) -> str:
    """The report for people."""
    lines = []
    for part in report.inputs:
        states = ", ".join(
            f"{count} {state.replace('_', ' ')}" for state, count in part.states.items() if count
        )
        lines.append(f"{part.path}: {part.rows} rows: {states or 'none'}")
        if part.left_out:
            lines.append(f"  left out: {', '.join(part.left_out)}")
    anomalous = sum(part.anomalous for part in report.inputs)
    lines.append(
        f"{report.out}: {report.rows} scores by {report.name} on {report.engine}, "
        f"{anomalous} at or above the threshold {report.threshold:.4g}"
    )
    return "\n".join(lines)
