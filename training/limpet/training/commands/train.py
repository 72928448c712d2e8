"""`limpet train`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.commands import json_option
from limpet.training.commands.train_grasp import grasp
from limpet.training.commands.train_options import (
    FiniteRange,
    check_extra,
    config_option,
    configure,
    device_option,
    force_option,
    out_option,
    resume_option,
    seed_option,
    show,
    steps_option,
)
from limpet.training.navigation.config import NavigationConfig

if TYPE_CHECKING:
    from limpet.training.anomaly.train import AnomalyReport
    from limpet.training.navigation.train import NavigationReport

# `169_SMAP_id_26_Sensor_tr_1811_1st_4510.csv`: the first 1,811 rows are meant to train.
_TSB_AD_NAME = re.compile(r"_tr_(?P<rows>[1-9]\d*)_1st_\d+\.csv$", re.ASCII)


@click.group("train")
def command() -> None:
    """Trains an encoder on your own data and writes a RUN, which `limpet export` packs."""


command.add_command(grasp)


@command.command("anomaly")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Recording of normal operation (.csv, .npy, .npz, .mat, …), or a folder of them.",
)
@out_option
@config_option("limpet.training.anomaly.config")
@device_option
@click.option(
    "--train-rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train and calibrate on the first N rows only.",
)
@click.option(
    "--key",
    metavar="NAME",
    help="Array of an .npz or .mat; A,B joins two.",
)
@click.option(
    "--ignore", multiple=True, metavar="NAME", help="Column that is no channel; repeatable."
)
@click.option("--rate-hz", type=float, metavar="HZ", help="Sampling rate, where the data has none.")
@click.option(
    "--label",
    metavar="NAME",
    help="Label column, never a channel [default: anomaly, label or is_anomaly, if present].",
)
@click.option(
    "--false-alarm-rate",
    type=FiniteRange(min=0.0, max=1.0, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of normal rows that may reach the threshold "
    f"[default: {AnomalyConfig().false_alarm_rate:g}].",
)
@click.option(
    "--false-alarms-per-day",
    type=FiniteRange(min=0.0, min_open=True),
    metavar="NUMBER",
    help="Incidents that normal operation may open in a day; sets the threshold instead.",
)
@seed_option
@steps_option(AnomalyConfig().steps)
@resume_option
@force_option
@json_option
def anomaly(
    data: Path,
    out: Path,
    config_file: Path | None,
    device: Literal["cpu", "cuda"],
    train_rows: int | None,
    key: str | None,
    ignore: tuple[str, ...],
    rate_hz: float | None,
    label: str | None,
    false_alarm_rate: float | None,
    false_alarms_per_day: float | None,
    seed: int | None,
    steps: int | None,
    resume: bool,
    force: bool,
    json_file: Path | None,
) -> None:
    """Trains a streaming anomaly encoder on recordings of normal operation.

    Every numeric column is a channel, except a time column, label columns and those of --ignore.
    The encoder never sees the last quarter of the rows; rows that were scored unseen set the alarm
    threshold.

    PATH is .csv, .tsv, .txt, .npy, .npz, .mat or .data (robot failures as UCI has them), or a
    folder of such files. A folder of snapshots as PRONOSTIA has them (acc_00001.csv, …) is one
    recording that starts anew with each.

    --json writes: run, channels, left_out, rate_hz, fit_frames, calibration {threshold,
    release_threshold, false_alarm_rate, held_out_rows, false_alarms_per_day, data}, metrics,
    warnings, seconds.
    """
    from limpet.training.run import command_line

    config = configure(
        config_file,
        AnomalyConfig,
        false_alarm_rate=false_alarm_rate,
        false_alarms_per_day=false_alarms_per_day,
        seed=seed,
        steps=steps,
    )
    if false_alarm_rate is not None and false_alarms_per_day is not None:
        raise click.UsageError(
            "--false-alarm-rate and --false-alarms-per-day both set the threshold: give one"
        )
    check_extra()
    from limpet.training.anomaly.train import train_anomaly

    announced = _announced_prefix(data) if train_rows is None else ()
    for warning in announced:  # now, since it may be a reason to stop
        click.echo(f"warning: {warning}", err=True)
    report = train_anomaly(
        data,
        out,
        config,
        device=device,
        key=key,
        ignore=ignore,
        rate_hz=rate_hz,
        label=label,
        train_rows=train_rows,
        resume=resume,
        force=force,
        command=command_line(),
    )
    show(report, json_file, _describe, told=announced)


def _announced_prefix(data: Path) -> tuple[str, ...]:
    """A warning where the file's name announces a training prefix, as in TSB-AD."""
    match = _TSB_AD_NAME.search(data.name)
    if match is None or data.is_dir():
        return ()
    return (
        f"{data.name} announces a training prefix of {match['rows']} rows, and all rows train: "
        f"say --train-rows {match['rows']}",
    )


@command.command("navigation")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder of pairs, or a recording with camera and LiDAR (or a folder of them).",
)
@out_option
@config_option("limpet.training.navigation.config")
@device_option
@seed_option
@steps_option(NavigationConfig().steps)
@resume_option
@force_option
@json_option
def navigation(
    data: Path,
    out: Path,
    config_file: Path | None,
    device: Literal["cpu", "cuda"],
    seed: int | None,
    steps: int | None,
    resume: bool,
    force: bool,
    json_file: Path | None,
) -> None:
    """Trains an image encoder whose embeddings are as alike as what a LiDAR sees.

    The LiDAR is needed for training alone: the bundle takes a camera's images.

    PATH is a folder of pairs, the same poses in several appearances, as
    `python -m limpet.training.navigation.pairs --out DIR` makes them in simulation; or a recording
    of your own: a folder with images/<time>.png and lidar.npz or lidar.csv, a ROS 2 bag, an .mcap,
    a ROS 1 .bag, or a folder of such recordings.

    --json writes: run, poses, views, weights, metrics, warnings, seconds.
    """
    from limpet.training.run import command_line

    config = configure(config_file, NavigationConfig, seed=seed, steps=steps)
    check_extra()
    from limpet.training.navigation.train import train_navigation

    report = train_navigation(
        data,
        out,
        config,
        device=device,
        resume=resume,
        force=force,
        command=command_line(),
    )
    show(report, json_file, _describe_navigation)


def _describe_navigation(report: NavigationReport) -> str:
    return "\n".join(
        [
            f"run: {report.run}",
            f"fitted on {report.poses} poses in {report.views} appearances each in "
            f"{report.seconds:.0f} s; {report.weights} weights",
            *(f"{name}: {value:.3f}" for name, value in report.metrics.items()),
            f"next: limpet evaluate navigation {report.run} --data PATH",
            f"      python -m limpet.training.navigation.policy_train {report.run}",
            f"      limpet export {report.run} --out BUNDLE",
        ]
    )


def _describe(report: AnomalyReport) -> str:
    calibration = report.calibration
    lines = [
        f"run: {report.run}",
        f"channels: {', '.join(report.channels)} at {report.rate_hz:g} Hz",
    ]
    if report.left_out:
        lines.append(f"left out: {', '.join(report.left_out)}")
    lines += [
        f"fitted on {report.fit_frames} frames in {report.seconds:.0f} s",
        f"threshold: {calibration.threshold:.4g}, reached by {calibration.false_alarm_rate:.2%} "
        f"of normal rows, by {calibration.held_out_rows} that were scored unseen"
        + _per_day(calibration.false_alarms_per_day),
        *(f"{name}: {value:.3f}" for name, value in report.metrics.items()),
        f"next: limpet export {report.run} --out BUNDLE",
    ]
    return "\n".join(lines)


def _per_day(false_alarms: float | None) -> str:
    return "" if false_alarms is None else f", set for {false_alarms:g} false alarms a day"
