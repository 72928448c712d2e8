"""`limpet predict`: offline scores of recordings."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import numpy as np

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.recording_scores import match_channels, score_recording
from limpet.contracts.recordings import load_recording
from limpet.contracts.reports import write_json
from limpet.contracts.scores_file import SUFFIXES, write_scores
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signals import RowState
from limpet.runtime.commands import engine_option, force_option, json_option

STATES = tuple(state for state in RowState if state <= RowState.HOLE)


class InputReport(msgspec.Struct, frozen=True, kw_only=True):
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


class PredictReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet predict --json` writes.

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
    inputs: list[InputReport]


@click.command("predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Score file to write ({', '.join(SUFFIXES)}).",
)
@click.option(
    "--key",
    metavar="NAME",
    help="Array of an .npz or .mat; A,B joins two.",
)
@click.option(
    "--ignore", multiple=True, metavar="NAME", help="Column that is no channel; may be repeated."
)
@click.option("--rate-hz", type=float, metavar="HZ", help="Sampling rate, where the data has none.")
@click.option("--label", metavar="NAME", help="Label column, never a channel.")
@engine_option
@force_option
@json_option
def command(
    bundle: Path,
    inputs: tuple[str, ...],
    out: Path,
    key: str | None,
    ignore: tuple[str, ...],
    rate_hz: float | None,
    label: str | None,
    engine: str,
    force: bool,
    json_file: Path | None,
) -> None:
    """Score recordings offline, one score a row.

    The score file has exactly one row for every row of the INPUTs, in their order; NaN where a row
    has no score yet. Each INPUT, and each segment of one, starts anew. Channels are matched by
    name; those of an array without names by position. An INPUT is a file (.csv, .tsv, .txt, .npy,
    .npz, .mat, .data) or a PRONOSTIA folder of snapshots (acc_00001.csv, …).

    --json writes: bundle, name, engine, out, rows, threshold, and inputs, a list of {path, rows,
    segments, rate_hz, left_out, warnings, states, anomalous}; states counts rows as scored,
    filled, partial, warming_up and hole.
    """
    from limpet.runtime.engines import open_engine

    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out} is no score file", f"suffixes: {', '.join(SUFFIXES)}")
    if out.exists() and not force:
        raise UsageError(f"{out} exists already", "say --force to replace it, or another --out")
    model = read_bundle(bundle)
    threshold = _threshold(model)
    recordings = [
        match_channels(
            load_recording(path, key=key, ignore=ignore, rate_hz=rate_hz, label=label),
            model.manifest.signal(),
        )
        for path in inputs
    ]
    opened = open_engine(model, engine)
    scorer = SignalScorer(model.manifest, opened.run)
    scored = [score_recording(scorer, recording) for recording in recordings]
    write_scores(out, np.concatenate([found.scores for found in scored]))
    report = PredictReport(
        bundle=str(bundle),
        name=model.manifest.name,
        engine=opened.name,
        out=str(out),
        rows=sum(len(recording) for recording in recordings),
        threshold=threshold,
        inputs=[
            InputReport(
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
    for part in report.inputs:
        for warning in part.warnings:
            click.echo(f"warning: {part.path}: {warning}", err=True)
    if not write_json(json_file, report):
        click.echo(_describe(report))


def _threshold(model: Bundle) -> float:
    """The calibrated threshold of an anomaly bundle.

    Raises:
        DataError: The bundle is of another kind.
    """
    manifest = model.manifest
    if manifest.kind != "anomaly" or manifest.calibration is None:
        raise DataError(
            f"{model.path} is a bundle of kind {manifest.kind!r}; this version predicts with "
            "anomaly bundles only",
            "serve it and ask over the wire: limpet serve CONFIG",
        )
    return manifest.calibration.threshold


def _describe(report: PredictReport) -> str:
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
