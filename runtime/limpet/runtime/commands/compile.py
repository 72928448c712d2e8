"""`limpet compile`: a bundle's graph as a TensorRT plan."""

from __future__ import annotations

from pathlib import Path

import click

from limpet.contracts.bundle import read_bundle
from limpet.contracts.reports import write_json
from limpet.runtime.commands import json_option
from limpet.runtime.plans.libraries import Compiler


@click.command("compile")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--engine",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="tensorrt for Jetson and servers, tensorrt-rtx for RTX GPUs  [default: what is installed "
    "and knows the GPU, tensorrt-rtx first].",
)
@click.option(
    "--target",
    default="current",
    show_default=True,
    metavar="GPU",
    help="GPU to compile for: current, sm86, sm89, sm120, …",
)
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="NAME=LEAST:USUAL:MOST",
    help="Sizes of a dynamic axis; batch=1:1:64 and 1:16:1024 for others.",
)
@click.option(
    "--workspace-mib",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Most scratch memory of the GPU that a kernel may use.",
)
@click.option("--force", is_flag=True, help="Build a plan that is there already.")
@json_option
def command(
    bundle: Path,
    engine: Compiler | None,
    target: str,
    axes: tuple[str, ...],
    workspace_mib: int,
    force: bool,
    json_file: Path | None,
) -> None:
    """Compile a bundle for a GPU; the plan goes into its engines/.

    Prints the plan's path. A plan is for one graph, GPU, precision and version of TensorRT; where
    the very same is there already it is kept. Without a GPU only tensorrt-rtx compiles, for a
    --target: else this exits with 4.

    --json writes: bundle, name, precision, engine, library_version, target, plan, plan_bytes,
    cached, build_s, and profile, {axis: [least, usual, most]}.
    """
    from limpet.runtime.plans.compiling import compile_bundle
    from limpet.runtime.plans.libraries import usual_compiler
    from limpet.runtime.plans.profiles import parse_sizes

    report = compile_bundle(
        read_bundle(bundle),
        engine=engine or usual_compiler(),
        target=target,
        axes=dict(map(parse_sizes, axes)),
        workspace_bytes=workspace_mib << 20,
        force=force,
        report=lambda line: click.echo(line, err=True),
    )
    if not write_json(json_file, report):
        click.echo(report.plan)
