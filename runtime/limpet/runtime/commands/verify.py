"""`limpet verify`: whether this machine computes what training computed."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from limpet.contracts.bundle import read_bundle
from limpet.contracts.golden import Check, check_golden
from limpet.contracts.reports import format_parity, write_json
from limpet.runtime.commands import engine_option, json_option


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet verify --json` writes.

    Attributes:
        bundle: The folder, as it was given.
        name: The model's name.
        kind: What the model is for.
        space_id: Its embedding space.
        precision: Number format of the graph.
        engine: Engine and device that ran the golden inputs.
        passed: Whether all checks hold.
        checks: Each comparison; a measured value that is no number is null.
    """

    bundle: str
    name: str
    kind: str
    space_id: str
    precision: str
    engine: str
    passed: bool
    checks: list[Check]


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@engine_option
@json_option
def command(bundle: Path, engine: str, json_file: Path | None) -> None:
    """Check a bundle and run its golden data on this machine.

    Verifies digests, shapes and seal, then compares what the engine computes with what training
    computed, in the task's terms. Exits with 1 when anything differs.

    tensorrt and tensorrt-rtx run the plan that `limpet compile` put into the bundle's engines/. One
    for another GPU, TensorRT or graph is refused: what does not match is named, with the command
    that builds it anew. On a machine without an NVIDIA GPU they exit with 4.

    --json writes: bundle, name, kind, space_id, precision, engine, passed, and checks, a list of
    {name, measured, bound, passed}.
    """
    from limpet.runtime.engines import open_engine

    read = read_bundle(bundle)
    opened = open_engine(read, engine)
    parity = check_golden(read.golden(), read.manifest, opened.run)
    report = VerifyReport(
        bundle=str(bundle),
        name=read.manifest.name,
        kind=read.manifest.kind,
        space_id=read.manifest.space_id,
        precision=read.manifest.precision,
        engine=opened.name,
        passed=parity.passed,
        checks=parity.checks,
    )
    if not write_json(json_file, report):
        click.echo(format_parity(parity))
        outcome = "computes what training computed" if parity.passed else "FAILED the golden check"
        click.echo(f"{report.engine}: {report.name} ({report.kind}, {report.precision}) {outcome}")
    if not parity.passed:
        raise click.exceptions.Exit(1)
