"""`limpet export`."""

from __future__ import annotations

from pathlib import Path

import click

from limpet.contracts.manifest import Precision
from limpet.training.commands import json_option


@click.command("export")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Bundle to write; its last part is the model's name.",
)
@click.option(
    "--module",
    metavar="PACKAGE:FUNCTION",
    help="A function that returns a torch.nn.Module to export, instead of RUN.",
)
@click.option(
    "--spec",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="SPEC.toml",
    help="Inputs and outputs of --module or of an ONNX file.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Number format of the graph.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Real data for int8: recordings, images, scenes with depth, or an npz of the inputs.",
)
@click.option("--force", is_flag=True, help="Replace a bundle at --out.")
@json_option
def command(
    run: Path | None,
    out: Path,
    module: str | None,
    spec: Path | None,
    precision: Precision,
    calibration: Path | None,
    force: bool,
    json_file: Path | None,
) -> None:
    """Turn a RUN into a bundle for robots.

    RUN may also be an fp32 bundle, to lower its precision, or a MODEL.onnx. With --module it is
    left out: a PyTorch module of yours becomes a bundle of kind custom, described by --spec, with
    [[inputs]] and [[outputs]] that have name, dtype and shape.

    The model becomes ONNX, and ONNX Runtime has to compute from it what PyTorch computed, on normal
    and anomalous windows and on raw rows. Where it does not, nothing is written and this exits
    with 1.

    fp16 and int8 are in the graph itself, and only in those nodes that keep within tolerances in
    the task's terms; which ones is measured. int8 takes its ranges from --calibration.

    --json writes: bundle (empty when nothing was written), name, space_id, precision, opset,
    model_bytes, passed, and checks, a list of {name, measured, bound, passed}.
    """
    from limpet.contracts.reports import format_parity, write_json
    from limpet.export.package import export_run

    report = export_run(
        run,
        out,
        module=module,
        spec=spec,
        precision=precision,
        calibration=calibration,
        force=force,
    )
    if not write_json(json_file, report):
        click.echo(format_parity(report.parity))
        if report.passed:
            click.echo(
                f"bundle: {report.bundle} ({report.precision}, opset {report.opset}, "
                f"{report.model_bytes / 1e6:.1f} MB of ONNX)"
            )
            click.echo(f"next: limpet verify {report.bundle}")
    if not report.passed:
        click.echo("error: ONNX Runtime differs from PyTorch; nothing was written", err=True)
        raise click.exceptions.Exit(1)
