"""`limpet bench export`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from limpet.contracts.reports import write_json
from limpet.training.commands import json_option


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Real data for int8: recordings, images, scenes with depth, or an npz of the inputs.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Timed runs of each way and batch.",
)
@click.option(
    "--compiled/--no-compiled",
    default=True,
    help="Time torch.compile too, which needs a C++ compiler and most of a minute.",
)
@json_option
def command(
    run: Path, calibration: Path | None, rounds: int, compiled: bool, json_file: Path | None
) -> None:
    """Export a RUN at every precision, and measure time, size, parity, plans and latency.

    Latencies are those of one thread of the CPU at batch 1 and 16: ONNX Runtime at each precision
    beside PyTorch eager and torch.compile, in turns. TensorRT-RTX plans are built for three GPUs
    and not run.

    --json writes: kind, machine, precisions, {fp32, fp16, int8: {refused, export_s, verify_s,
    onnx_bytes, lowered, kept, parity, plans, plans_refused}}, latencies, a list of {way, batch,
    p10_ms, median_ms, p90_ms}, failed, {way: why}, and faster, {batch: PyTorch eager / ONNX Runtime
    at p10}.
    """
    from limpet.export.benchmark import bench_export, describe

    with tempfile.TemporaryDirectory(prefix="limpet-bench-") as folder:
        benchmark = bench_export(
            run,
            Path(folder),
            calibration=calibration,
            rounds=rounds,
            report=lambda line: click.echo(line, err=True),
            compiled=compiled,
        )
    if not write_json(json_file, benchmark):
        click.echo(describe(benchmark))
