"""What the demo's commands left behind, and what it says of a stream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.detector import DetectorConfig
from limpet.contracts.errors import LimpetError
from limpet.contracts.incidents import compare, incidents_of
from limpet.contracts.manifest import Calibration
from limpet.contracts.messages import Alert
from limpet.runtime.demo.report import StreamReport, interval_reports
from limpet.runtime.demo.sources import Source
from limpet.runtime.demo.timeline import Track


class Trained(msgspec.Struct):
    """What is read of `limpet train anomaly --json`."""

    calibration: Calibration
    warnings: list[str]
    seconds: float


class Verified(msgspec.Struct):
    """What is read of `limpet verify --json`."""

    engine: str
    checks: list[dict[str, object]]


class Streamed(msgspec.Struct):
    """What is read of `limpet stream --json`."""

    rows: int
    acknowledged: int
    seconds: float
    latency_p50_ms: float
    latency_p99_ms: float


Result = TypeVar("Result", bound=msgspec.Struct)


def read_result(path: Path, kind: type[Result]) -> Result:
    """Reads the report of a process.

    Raises:
        LimpetError: There is none, or one of another form.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise LimpetError(f"{path}: a process of the demo left no report: {error}") from error


def group_notes(notes: Sequence[str]) -> list[str]:
    """Notes that differ in a 'name' only become one, with the number of the others."""
    groups: dict[str, list[str]] = {}
    for note in notes:
        groups.setdefault(re.sub(r"'[^']*'", "", note), []).append(note)
    return [
        first + (f" (and {len(others)} more)" if others else "")
        for first, *others in groups.values()
    ]


def make_track(
    source: Source,
    trained: Trained,
    streamed: Streamed,
    scores_n: NDArray[np.float32],
    alerts: Sequence[Alert],
) -> Track:
    """A stream's report and what is drawn of it.

    Args:
        source: The recording.
        trained: What training said.
        streamed: What streaming said.
        scores_n: Scores of the streamed rows. (n,)
        alerts: The stream's, in order.
    """
    recording = source.streamed
    incidents = incidents_of(alerts, len(recording), DetectorConfig().close_after_rows)
    found = None if recording.labels is None else compare(recording.labels, incidents)
    detected = sum(f.incident is not None for f in found.findings) if found else None
    times_real_time = None
    if recording.times_ns is not None:
        times_real_time = len(recording) / recording.rate_hz / streamed.seconds
    report = StreamReport(
        name=source.name,
        title=source.title,
        recording=source.path.name,
        channels=len(recording.channels),
        train_rows=source.first_row,
        train_s=trained.seconds,
        threshold=trained.calibration.threshold,
        rows=streamed.rows,
        acknowledged=streamed.acknowledged,
        seconds=streamed.seconds,
        times_real_time=times_real_time,
        false_alarm_rate=trained.calibration.false_alarm_rate,
        exceeding_share=_exceeding(recording.labels, scores_n, trained.calibration.threshold),
        message_p50_ms=streamed.latency_p50_ms,
        message_p99_ms=streamed.latency_p99_ms,
        labelled=found is not None,
        intervals=interval_reports(source.recording, source.first_row, found) if found else None,
        detected=detected,
        missed=None if found is None or detected is None else len(found.findings) - detected,
        outside=len(found.outside) if found else None,
        outside_share=found.outside_share if found else None,
        incidents=len(incidents),
    )
    return Track(
        source=source,
        report=report,
        scores_n=scores_n,
        release_threshold=trained.calibration.release_threshold,
        incidents=incidents,
        found=found,
    )


def _exceeding(
    labels_n: NDArray[np.bool_] | None, scores_n: NDArray[np.float32], threshold: float
) -> float | None:
    """Share of the scored rows without a label that reach the threshold."""
    if labels_n is None:
        return None
    normal = scores_n[~labels_n & np.isfinite(scores_n)]
    return float((normal >= threshold).mean()) if len(normal) else None
