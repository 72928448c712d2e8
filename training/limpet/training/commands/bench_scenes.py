"""`limpet bench scenes`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from limpet.contracts.reports import write_json
from limpet.training.commands import json_option


@click.command("scenes")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="N",
    help="Processes that render at the same time; repeatable  [default: 1, and one a core].",
)
@click.option(
    "--layouts",
    type=click.IntRange(min=1),
    default=6,
    show_default=True,
    help="Layouts of each process, each in one appearance.",
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Poses in each layout, in sixteens.",
)
@click.option(
    "--textures",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Images for some surfaces  [default: drawn patterns only].",
)
@json_option
def command(
    processes: tuple[int, ...],
    layouts: int,
    frames: int,
    textures: Path | None,
    json_file: Path | None,
) -> None:
    """Measure how fast navigation's scenes are rendered: image, depth, labels, LiDAR.

    Images are of 128 by 128 pixels and a scan of 180 beams, with the sensors' noise. Each process
    has layouts and one thread of its own. Building a layout and an appearance of it is timed apart.

    --json writes: machine (with the load before); setting with layouts, frames, camera, lidar,
    textures; and rows with processes, frames_per_s (all processes), frames_per_cpu_s (one, by CPU
    time), frames_per_s_with_building, frame_ms {look, photograph, sensors} and building_s {layout,
    geometry, appearance, painting}.
    """
    from limpet.training.navigation.benchmark import Setting, bench_scenes, describe

    setting = Setting(layouts=layouts, frames=frames, textures=textures is not None)
    benchmark = bench_scenes(
        setting,
        processes or sorted({1, os.cpu_count() or 1}),
        textures,
        lambda line: click.echo(line, err=True),
    )
    if not write_json(json_file, benchmark):
        click.echo(describe(benchmark))
