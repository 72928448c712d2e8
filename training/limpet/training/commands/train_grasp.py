"""`limpet train grasp`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from limpet.training.commands import json_option
from limpet.training.commands.train_options import (
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
from limpet.training.grasp.config import GraspConfig

if TYPE_CHECKING:
    from limpet.training.grasp.train import GraspReport


@click.command("grasp")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder in GraspNet-1Billion's layout: models, grasp_label, collision_label, scenes.",
)
@out_option
@config_option("limpet.training.grasp.config")
@click.option(
    "--camera",
    type=click.Choice(["realsense", "kinect"]),
    default="realsense",
    show_default=True,
    help="Whose images of each scene.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for unpacked labels and prepared samples [default: ~/.cache/limpet/grasp].",
)
@device_option
@seed_option
@steps_option(GraspConfig().steps)
@resume_option
@force_option
@json_option
def grasp(
    data: Path,
    out: Path,
    config_file: Path | None,
    camera: str,
    cache: Path | None,
    device: Literal["cpu", "cuda"],
    seed: int | None,
    steps: int | None,
    resume: bool,
    force: bool,
    json_file: Path | None,
) -> None:
    """Trains an encoder that finds grasps in one or two depth images.

    PATH holds scenes in the layout of GraspNet-1Billion, that data set itself or synthetic ones.
    Scenes 0 to 89 are learnt from; where 90 to 99 are there, figures are measured on them.

    --json writes: run, scenes, samples, weights, metrics, warnings, seconds.
    """
    from limpet.training.run import command_line

    config = configure(config_file, GraspConfig, seed=seed, steps=steps)
    check_extra()
    from limpet.training.grasp.train import train_grasp

    report = train_grasp(
        data,
        out,
        config,
        camera=camera,
        device=device,
        resume=resume,
        force=force,
        cache=cache,
        command=command_line(),
    )
    show(report, json_file, _describe_grasp)


def _describe_grasp(report: GraspReport) -> str:
    return "\n".join(
        [
            f"run: {report.run}",
            f"fitted on {report.samples} samples of {report.scenes} scenes in "
            f"{report.seconds:.0f} s; {report.weights} weights",
            *(f"{name}: {value:.3f}" for name, value in report.metrics.items()),
            f"next: limpet evaluate grasp {report.run} --data PATH",
            f"      limpet export {report.run} --out BUNDLE",
        ]
    )
