"""`limpet evaluate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from limpet.export.commands.evaluate_grasp import grasp
from limpet.training.commands import json_option

if TYPE_CHECKING:
    from limpet.export.evaluate_anomaly import EvaluationReport, FalseAlarms
    from limpet.export.evaluate_navigation import Driving, NavigationEvaluation


@click.group("evaluate")
def command() -> None:
    """Measures a RUN or a bundle on labelled data."""


command.add_command(grasp)


@command.command("anomaly")
@click.argument("model", metavar="RUN|BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Labelled recording (.csv, .npy, .npz), or a folder of them.",
)
@click.option(
    "--label",
    metavar="NAME",
    help="Label column: 0 normal, else anomalous [default: anomaly, label or is_anomaly].",
)
@click.option("--key", metavar="NAME", help="Array of an .npz with several.")
@click.option(
    "--ignore", multiple=True, metavar="NAME", help="Column that is no channel; repeatable."
)
@click.option("--rate-hz", type=float, metavar="HZ", help="Sampling rate, where the data has none.")
@click.option(
    "--from-row",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="First row of each file that counts, from 0; the model sees those before as well.",
)
@json_option
def anomaly(
    model: Path,
    data: Path,
    label: str | None,
    key: str | None,
    ignore: tuple[str, ...],
    rate_hz: float | None,
    from_row: int,
    json_file: Path | None,
) -> None:
    """Measure scores, threshold and alerts of an anomaly encoder on labelled recordings.

    A RUN is scored by PyTorch, a bundle by ONNX Runtime, row by row as a server would. VUS-PR and
    VUS-ROC are those of TSB-AD; F1 is of rows, never point-adjusted. Incidents are what a server
    with default detector settings reports. Rows without a score count with the next score of their
    recording.

    --json writes: model, source (run or bundle), name, engine, data, from_row, threshold,
    release_threshold, open_after_rows, close_after_rows, ranked_files; mean {auroc,
    average_precision, vus_pr, vus_roc} over the files with rows of both kinds; pooled {auroc,
    average_precision}; rows {rows, anomalous, flagged, precision, recall, f1, false_alarm_rate,
    missed_alarm_rate}; events {labelled, detected, incidents, outside, delay_rows, delay_s,
    alert_share_of_normal}; false_alarms {declared_rate, observed_rate, normal_rows, expected_rows,
    observed_rows, declared_per_day, observed_per_day, normal_days}; and files, a list of {path,
    unscored_rows, window_rows, ranking (as mean), rows, events, left_out, warnings}. A figure that
    is not defined is null.
    """
    from limpet.contracts.reports import write_json
    from limpet.export.evaluate_anomaly import evaluate_anomaly

    report = evaluate_anomaly(
        model,
        data,
        key=key,
        ignore=ignore,
        rate_hz=rate_hz,
        label=label,
        from_row=from_row,
    )
    for file in report.files:
        for warning in file.warnings:
            click.echo(f"warning: {file.path}: {warning}", err=True)
    if not write_json(json_file, report):
        click.echo(_describe(report))


@command.command("navigation")
@click.argument("model", metavar="RUN|BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder of pairs: poses, each in several appearances, with LiDAR.",
)
@click.option(
    "--neighbours",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw frames beside their nearest neighbours in another appearance (.png).",
)
@click.option(
    "--episodes",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    metavar="N",
    help="Where there is a policy: episodes to drive in the simulator; 0 drives none.",
)
@click.option(
    "--textures",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Images for the appearances to drive in, as in training [default: drawn patterns only].",
)
@click.option(
    "--record",
    is_flag=True,
    help="Write the figures into the RUN as well: `limpet export` puts them into the manifest.",
)
@json_option
def navigation(
    model: Path,
    data: Path,
    neighbours: Path | None,
    episodes: int,
    textures: Path | None,
    record: bool,
    json_file: Path | None,
) -> None:
    """Measure whether an image encoder's embeddings are as alike as the geometry they show, and how
    well its policy drives, if it has one.

    Beside the model stand an encoder with random weights and the raw pixels. PATH is best of
    layouts and appearances that training has not seen:
    `python -m limpet.training.navigation.pairs --set test --layouts 5000 5024 --out DIR`.

    --json writes: model, source (run or bundle), name, engine, data, poses, views, and embedding,
    random and pixels, each {spearman, spearman_whole_range, recall_at_1, neighbour_similarity,
    probe_error_m, probe_r2_ahead}: rank correlation of embedding with geometric similarity across
    appearances, with ranges cut where training cut them and in full; share of frames whose nearest
    neighbour in another appearance is the same pose; mean geometric similarity of that neighbour;
    error of ranges that a linear map of the embedding tells, and the share of the variance of the
    shortest range ahead that it explains. A figure that is not defined is null. And driving, null
    without a policy: layouts, overall and by_appearance, each {episodes, sr, spl, contacts}, sr and
    spl with a 95 % interval {mean, low, high}, in layouts and appearances that nothing is trained
    in.
    """
    from limpet.contracts.reports import write_json
    from limpet.export.evaluate_navigation import evaluate_navigation
    from limpet.export.navigation_figures import check_recordable, record_figures

    if record:
        check_recordable(model)
    report = evaluate_navigation(
        model, data, neighbours=neighbours, episodes=episodes, textures=textures
    )
    if record:
        record_figures(model, report)
    if not write_json(json_file, report):
        click.echo(_describe_navigation(report))


def _describe_navigation(report: NavigationEvaluation) -> str:
    from limpet.contracts.reports import format_table

    rows = [
        [name, *map(_number, (getattr(one, field) for field in one.__struct_fields__))]
        for name, one in (
            (report.name, report.embedding),
            ("random encoder", report.random),
            ("raw pixels", report.pixels),
        )
    ]
    header = ["", "Spearman", "whole range", "recall@1", "neighbour", "error (m)", "R² ahead"]
    return "\n".join(
        [
            f"{report.name} ({report.source}) by {report.engine} on {report.poses} poses of "
            f"{report.data} in {report.views} appearances each",
            format_table(header, rows),
            *_describe_driving(report.driving),
        ]
    )


def _describe_driving(driving: Driving | None) -> list[str]:
    if driving is None:
        return []
    one, worst = driving.overall, min(each.sr.mean for each in driving.by_appearance.values())
    return [
        f"driving, {one.episodes} episodes in unseen layouts and appearances: success "
        f"{one.sr.mean:.3f} ({one.sr.low:.2f} to {one.sr.high:.2f}), SPL {one.spl.mean:.3f} "
        f"({one.spl.low:.2f} to {one.spl.high:.2f}), {one.contacts:.1f} contacts; success "
        f"{worst:.2f} in the worst appearance"
    ]


HEADER = ["", "rows", "anomalous", "AUROC", "AP", "VUS-PR", "VUS-ROC", "F1", "FAR", "MAR", "found"]


def _describe(report: EvaluationReport) -> str:
    from limpet.contracts.reports import format_table

    mean, pooled, rows, events = report.mean, report.pooled, report.rows, report.events
    table = []
    for file in report.files:
        ranked = file.ranking
        values = [ranked.auroc, ranked.average_precision, ranked.vus_pr, ranked.vus_roc]
        at_threshold = [file.rows.f1, file.rows.false_alarm_rate, file.rows.missed_alarm_rate]
        table.append(
            [
                Path(file.path).name,
                str(file.rows.rows),
                str(file.rows.anomalous),
                *map(_number, [*values, *at_threshold]),
                f"{file.events.detected}/{file.events.labelled}",
            ]
        )
    values = [mean.auroc, mean.average_precision, mean.vus_pr, mean.vus_roc]
    table.append([f"mean of {report.ranked_files}", "", "", *map(_number, values), *[""] * 4])
    table.append(
        [
            "pooled",
            str(rows.rows),
            str(rows.anomalous),
            *map(_number, [pooled.auroc, pooled.average_precision]),
            *["", ""],
            *map(_number, [rows.f1, rows.false_alarm_rate, rows.missed_alarm_rate]),
            f"{events.detected}/{events.labelled}",
        ]
    )
    alarms = report.false_alarms
    lines = [
        f"{report.name} ({report.source}) by {report.engine}, threshold {report.threshold:.4g}",
        format_table(HEADER, table),
        f"rows at the threshold: precision {_number(rows.precision)}, recall "
        f"{_number(rows.recall)}",
        f"false alarms: {_percent(alarms.declared_rate)} of normal rows declared, "
        f"{_percent(alarms.observed_rate)} observed ({alarms.observed_rows} of "
        f"{alarms.normal_rows}, {alarms.expected_rows:.1f} expected)",
        *_per_day(alarms),
        f"incidents: {events.incidents}, {events.outside} of them outside every label; "
        f"{_percent(events.alert_share_of_normal)} of normal time under alert",
    ]
    if events.detected:
        lines.append(
            f"labelled intervals: {events.detected} of {events.labelled} found, reported after "
            f"{events.delay_rows:g} rows ({events.delay_s:g} s) in the median"
        )
    else:
        lines.append(f"labelled intervals: none of {events.labelled} found")
    # Once for all files, of which most leave out the same.
    for columns in dict.fromkeys(", ".join(file.left_out) for file in report.files):
        if columns:
            lines.append(f"left out: {columns}")
    return "\n".join(lines)


def _per_day(alarms: FalseAlarms) -> list[str]:
    if alarms.declared_per_day is None:
        return []
    return [
        f"false alarms a day: {alarms.declared_per_day:g} declared, {alarms.observed_per_day:.3g} "
        f"observed in {alarms.normal_days:.3g} days"
    ]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.2%}"
