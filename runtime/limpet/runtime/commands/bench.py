"""`limpet bench`: what serving costs on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from limpet.contracts.reports import format_table, write_json
from limpet.runtime.commands import json_option


@click.group("bench")
def command() -> None:
    """Measure this machine: what a request costs beside its inference."""


@command.command("serve")
@click.option(
    "--requests",
    type=click.IntRange(min=40),
    default=4000,
    show_default=True,
    help="Timed requests of each side for one row.",
)
@json_option
def serve(requests: int, json_file: Path | None) -> None:
    """Compare served requests with a raw ZeroMQ echo of the same bytes.

    An identity model is served over tcp and ipc at three sizes; the echo, a process of its own
    with the same frames, and the engine called in process take turns with it.

    --json writes: machine, and rows with transport, size, requests, limpet_p50, limpet_p99,
    echo_p50, echo_p99, engine_p50 (all in microseconds), ratio_p50 = (limpet - engine) / echo and
    ratio_p99 = limpet / echo.
    """
    from limpet.runtime.bench.serving import bench_serving
    from limpet.runtime.machine import describe_machine

    with tempfile.TemporaryDirectory(prefix="limpet-bench-") as folder:
        rows = bench_serving(
            Path(folder), requests, lambda what: click.echo(f"measuring {what}", err=True)
        )
    if write_json(json_file, {"machine": describe_machine(), "rows": rows}):
        return
    click.echo(
        format_table(
            [
                "",
                "size",
                "limpet p50/p99 µs",
                "echo p50/p99 µs",
                "engine p50 µs",
                "ratio p50",
                "p99",
            ],
            [
                [
                    row.transport,
                    row.size,
                    f"{row.limpet_p50:.0f} / {row.limpet_p99:.0f}",
                    f"{row.echo_p50:.0f} / {row.echo_p99:.0f}",
                    f"{row.engine_p50:.0f}",
                    f"{row.ratio_p50:.2f}",
                    f"{row.ratio_p99:.2f}",
                ]
                for row in rows
            ],
        )
    )
