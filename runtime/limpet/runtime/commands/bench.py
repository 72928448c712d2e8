"""`limpet bench`: what serving costs on this machine, and how many streams it holds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from limpet.contracts.reports import format_table, write_json
from limpet.runtime.commands import entry_points, json_option, load_command

if TYPE_CHECKING:
    from limpet.runtime.bench.streaming import StreamStep


GROUP = "limpet.bench"
"""Entry points of benchmarks that need more than the robot part."""


class Benchmarks(click.Group):
    """Those of this module, and those that entry points name, imported when they are called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all benchmarks, sorted."""
        return sorted({*super().list_commands(ctx), *entry_points(GROUP)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One benchmark."""
        point = entry_points(GROUP).get(cmd_name)
        return super().get_command(ctx, cmd_name) if point is None else load_command(point)


@click.group("bench", cls=Benchmarks)
def command() -> None:
    """Measure this machine: what a request costs, how many sensor streams it holds."""


@command.command("serve")
@click.option(
    "--requests",
    type=click.IntRange(min=40),
    default=4000,
    show_default=True,
    help="Timed requests of each side for one row of an idle server.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=3.0,
    show_default=True,
    help="How long each measurement under load takes.",
)
@click.option(
    "--overload-s",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="How long twice the capacity is asked for; published figures are of 60.",
)
@click.option(
    "--mixed-s",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="How long three models are asked together; published figures are of 600.",
)
@click.option(
    "--part",
    type=click.Choice(["idle", "load", "all"]),
    default="all",
    show_default=True,
    help="What to measure: what a request costs, a server under load, or both.",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Draw the curves (takes limpet[dashboard]).",
)
@json_option
def serve(
    requests: int,
    seconds: float,
    overload_s: float,
    mixed_s: float,
    part: str,
    picture: Path | None,
    json_file: Path | None,
) -> None:
    """Compare served requests with a raw ZeroMQ echo of the same bytes, and load a server.

    Idle: an identity model is served over tcp, ipc and the same-host lane at four sizes; the echo,
    a process of its own with the same frames, and the engine called in process take turns with it.

    Load: clients that each wait for their answer; arrivals at fixed times, evenly or at random
    (latency counts from when a request is due); twice the capacity from one client with a maximum
    age of 50 ms, beside a process that asks 20 times a second; three models together at their
    rates; a request beside 10 to 1,000 idle clients and streams, and after 1,000 to 100,000 others;
    starts.

    A missed deadline of the three models counts as the machine's where the answer came late by no
    more than the bench was late in asking and a core was withheld meanwhile, as a thread on each
    core notices; any other is the runtime's.

    --json writes: machine; rows with transport, size, requests, limpet_p50, limpet_p99,
    limpet_p999, echo_p50, echo_p99, engine_p50 (all in microseconds), ratio_p50 = (limpet - engine)
    / echo and ratio_p99 = limpet / echo; load with throughput (model, clients, per_s), open_loop
    (model, arrivals, load as a part of capacity, offered_per_s, results, other, late_p99_ms), both
    with p50_ms, p99_ms, p999_ms, max_ms; overload (model, capacity_per_s as the mean of
    capacity_before_after, saturated_per_s without a maximum age, offered_per_s, seconds, goodput as
    a part of capacity, max_age_ms, results, too_old of these where they arrive, stale, rejected,
    unanswered, result_age_p50_ms, result_age_p99_ms, result_age_max_ms, queue_max, memory_mb before
    and after, memory, late_p99_ms, recovered_ms, good_idle_p99_ms, good_beside_p50_ms,
    good_beside_p99_ms, batch_p99_ms, good_allowed_ms); mixed (seconds; models with model, rate_hz,
    due_ms, requests, missed, missed_by_machine, missed_by_runtime, and latencies; stretches with
    end_s, p50_ms and p99_ms of each model; memory; withheld_s), where memory has mb_per_min,
    plus_minus (95 %), first_mb, last_mb, largest_mb; growth (of, count, requests, p50_ms, p99_ms);
    start (ready_ms, first_result_ms, memory_mb, memory_after_load_mb). A part that was
    not measured is null.
    """
    from limpet.runtime.bench.serving import bench_serving
    from limpet.runtime.bench.serving_load import bench_load
    from limpet.runtime.bench.serving_picture import check_picture, draw_serving
    from limpet.runtime.bench.serving_tables import idle_table, load_tables
    from limpet.runtime.machine import describe_machine

    def progress(what: str) -> None:
        click.echo(f"measuring {what}", err=True)

    if picture is not None:
        check_picture()
    rows, load = None, None
    with tempfile.TemporaryDirectory(prefix="limpet-bench-") as name:
        if part != "load":
            (folder := Path(name) / "idle").mkdir()
            rows = bench_serving(folder, requests, progress)
        if part != "idle":
            (folder := Path(name) / "load").mkdir()
            load = bench_load(folder, seconds, overload_s, mixed_s, progress)
    if picture is not None:
        draw_serving(picture, rows or [], load)
    if write_json(json_file, {"machine": describe_machine(), "rows": rows, "load": load}):
        return
    if rows is not None:
        click.echo(idle_table(rows))
    if load is not None:
        click.echo(load_tables(load))


@command.command("stream")
@click.option(
    "--streams",
    type=click.IntRange(min=1),
    metavar="N",
    help="Measure N streams only, instead of searching for the largest number.",
)
@click.option(
    "--channels",
    type=click.IntRange(min=1, max=4096),
    help="Channels of a stream  [default: those of --bundle, else 8].",
)
@click.option(
    "--rate-hz",
    type=click.FloatRange(min=1e-3, max=1e6),
    default=1000.0,
    show_default=True,
    help="Rows per second of a stream.",
)
@click.option(
    "--chunk-ms",
    type=click.FloatRange(min=1e-3),
    default=20.0,
    show_default=True,
    help="A message's worth of rows.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="How long each number of streams is measured, after a warm-up.",
)
@click.option(
    "--limit-ms",
    type=click.FloatRange(min=0.0, min_open=True),
    default=50.0,
    show_default=True,
    help="Largest p99 that counts as held.",
)
@click.option(
    "--bundle",
    "bundle_path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Anomaly bundle that scores [default: one of default sizes, made on the spot].",
)
@json_option
def stream(
    streams: int | None,
    channels: int | None,
    rate_hz: float,
    chunk_ms: float,
    seconds: float,
    limit_ms: float,
    bundle_path: Path | None,
    json_file: Path | None,
) -> None:
    """Find how many sensor streams a server on this machine holds.

    Held means: p99 from the moment when the newest row of a message is due to its acknowledgement
    is within --limit-ms, every row is acknowledged and none waits for a credit for longer. Messages
    are due at fixed times, whether or not the server keeps up. Server and sensors are a process
    each. The number is doubled until it is not held, then bisected; each number has a fresh server.

    Without --bundle a few training steps on made-up vibration give a model of default sizes, which
    takes limpet[training,export]; what it scores means nothing, what it costs does. With one, its
    golden rows are played.

    --json writes: machine; setting with channels, rate_hz, chunk_ms, message_rows, seconds,
    warm_up_s, limit_ms, bundle (a folder, or "made"); streams_held (0 for none; with --streams N it
    is N or 0); and steps, in the order of measuring, with streams, held, p50_ms, p99_ms, p999_ms,
    max_ms, alert_p50_ms, alert_p99_ms, alert_p999_ms (a chunk more: from a message's oldest row),
    messages (timed), rows, rows_sent, rows_acknowledged (warm-up included), rows_per_s, server_cpu,
    sensors_cpu (CPU seconds per second), sensors_late_p99_ms, waited_for_credit (messages),
    credit_wait_max_ms, refused (messages by code), dropped (by the server's counter), alerts.
    """
    from limpet.contracts.bundle import read_bundle
    from limpet.contracts.errors import UsageError
    from limpet.runtime.bench.sample_bundle import check_extras, golden_rows, make_bundle
    from limpet.runtime.bench.streaming import find_largest, make_setting, measure_step
    from limpet.runtime.demo.children import Children, termination_interrupts
    from limpet.runtime.machine import describe_machine

    bundle = None if bundle_path is None else read_bundle(bundle_path)
    values = None if bundle is None else golden_rows(bundle)
    if values is None:
        check_extras()
    columns = (channels or 8) if values is None else values.shape[1]
    if channels not in (None, columns):
        raise UsageError(
            f"--channels {channels}, but --bundle {bundle_path} has {columns}",
            "leave --channels out, or --bundle",
        )
    setting = make_setting(
        channels=columns,
        rate_hz=rate_hz,
        chunk_ms=chunk_ms,
        seconds=seconds,
        limit_ms=limit_ms,
        bundle="made" if bundle is None else str(bundle_path),
    )
    steps: list[StreamStep] = []
    with (
        termination_interrupts(),
        tempfile.TemporaryDirectory(prefix="limpet-bench-") as name,
        Children(Path(name)) as children,
    ):
        folder = Path(name)
        if bundle is None or values is None:
            click.echo("making a bundle of default sizes from made-up vibration", err=True)
            bundle, values = make_bundle(children, folder, columns, rate_hz)

        def holds(number: int) -> bool:
            step = measure_step(children, folder, bundle, values, setting, number)
            steps.append(step)
            click.echo(_describe_step(step), err=True)
            return step.held

        if streams is None:
            find_largest(holds)
        else:
            holds(streams)
    held = max((step.streams for step in steps if step.held), default=0)
    report = {
        "machine": describe_machine(),
        "setting": setting,
        "streams_held": held,
        "steps": steps,
    }
    if write_json(json_file, report):
        return
    click.echo(_stream_table(steps))
    click.echo(
        f"held: {held} streams of {columns} channels at {rate_hz:g} Hz in messages of "
        f"{setting.message_rows} rows, p99 within {limit_ms:g} ms and nothing lost"
    )


def _describe_step(step: StreamStep) -> str:
    """One line while the search goes on."""
    lost = step.rows - step.rows_acknowledged
    return (
        f"{step.streams} streams: {'held' if step.held else 'not held'}, p99 {step.p99_ms:.1f} ms"
        + (f", {lost} of {step.rows} rows not acknowledged" if lost else "")
    )


def _stream_table(steps: Sequence[StreamStep]) -> str:
    def cpu(seconds: float | None) -> str:
        return "-" if seconds is None else f"{seconds:.2f}"

    return format_table(
        [
            "streams",
            "held",
            "p50/p99/p99.9 ms",
            "row to alert p99 ms",
            "rows/s",
            "server CPU",
            "sensors CPU",
            "lost",
            "dropped",
        ],
        [
            [
                str(step.streams),
                "yes" if step.held else "no",
                f"{step.p50_ms:.1f} / {step.p99_ms:.1f} / {step.p999_ms:.1f}",
                f"{step.alert_p99_ms:.1f}",
                f"{step.rows_per_s:.0f}",
                cpu(step.server_cpu),
                cpu(step.sensors_cpu),
                str(step.rows - step.rows_acknowledged),
                ", ".join(f"{name} {n}" for name, n in {**step.refused, **step.dropped}.items())
                or "-",
            ]
            for step in sorted(steps, key=lambda step: step.streams)
        ],
    )
