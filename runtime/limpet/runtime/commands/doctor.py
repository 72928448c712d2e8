"""`limpet doctor`: what this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from limpet.contracts.reports import format_table, write_json
from limpet.runtime import extras
from limpet.runtime.commands import json_option
from limpet.runtime.diagnosis.engines import look_at_engines
from limpet.runtime.diagnosis.finding import Finding
from limpet.runtime.diagnosis.graphics import look_at_gpu
from limpet.runtime.diagnosis.host import look_at_clock, look_at_host, look_at_priority
from limpet.runtime.diagnosis.jetson import is_jetson, look_at_jetson
from limpet.runtime.diagnosis.packages import look_at_dependencies, look_at_extras
from limpet.runtime.diagnosis.probe import Probe
from limpet.runtime.diagnosis.serving import look_at_sockets, look_at_state


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet doctor --json` writes.

    Attributes:
        ok: Whether the robot part can run here.
        version: limpet's.
        findings: Everything that was looked at.
    """

    ok: bool
    version: str
    findings: list[Finding]


@click.command("doctor")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Folder whose disk would hold the alert log  [default: here].",
)
@json_option
def command(state_dir: Path, json_file: Path | None) -> None:
    """Show what this machine has, what it lacks, and the command that mends it.

    Exits with 1 when something keeps the robot part from running here.

    --json writes: ok, version, and findings, a list of {group, name, status, found, mend}; status
    is ok, absent (optional), warning or failed; group is machine, jetson (on one), dependencies,
    extras, engines, sockets or state.
    """
    report = diagnose(Probe(), state_dir)
    if not write_json(json_file, report):
        click.echo(_describe(report))
    if not report.ok:
        raise click.exceptions.Exit(1)


def diagnose(probe: Probe, state_dir: Path) -> DoctorReport:
    """Looks at everything.

    Args:
        probe: The machine.
        state_dir: Folder whose disk would hold the alert log.
    """
    findings = list(_look(probe, state_dir))
    return DoctorReport(
        ok=all(finding.status != "failed" for finding in findings),
        version=extras.installed_version("limpet") or "",
        findings=findings,
    )


def _look(probe: Probe, state_dir: Path) -> Iterator[Finding]:
    yield from look_at_host(probe)
    yield look_at_gpu(probe)
    yield look_at_clock(probe)
    yield look_at_priority()
    if is_jetson(probe):
        yield from look_at_jetson(probe)
    yield from look_at_dependencies(probe)
    yield from look_at_extras(probe)
    yield from look_at_engines(probe)
    yield from look_at_sockets()
    yield from look_at_state(state_dir)


def _describe(report: DoctorReport) -> str:
    rows = []
    group = ""
    for finding in report.findings:
        shown = finding.group if finding.group != group else ""
        group = finding.group
        rows.append([shown, finding.name, finding.status, finding.found])
    mends = [f"  {f.name}: {f.mend}" for f in report.findings if f.mend]
    lines = [f"limpet {report.version}", "", format_table(rows[0], rows[1:])]
    if mends:
        lines += ["", "To mend or add:", *mends]
    runs = [
        f.name for f in report.findings
        if f.group == "engines" and f.status == "ok" and "compiles only" not in f.found
        and f.name != "cuda-python"
    ]  # fmt: skip
    can = "can" if report.ok else "CANNOT"
    lines += ["", f"Engines that run here: {', '.join(runs) or 'none'}."]
    lines += [f"The robot part {can} run here."]
    return "\n".join(lines)
