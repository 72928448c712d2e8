"""`limpet stream`: plays a recording to a server as a sensor node would."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import UsageError
from limpet.contracts.message_base import MAX_NAME_LENGTH
from limpet.contracts.recording_scores import match_channels
from limpet.contracts.recordings import Recording, load_recording
from limpet.contracts.reports import write_json
from limpet.contracts.scores_file import check_scores_file, write_scores
from limpet.contracts.signals import RowState
from limpet.runtime.commands import force_option, json_option

LARGEST_CHUNK = 256
CHUNKS_PER_S = 50.0


@click.command(name="stream")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", "endpoint", required=True, help="The server's endpoint.")
@click.option("--stream", "name", required=True, help="Name of the stream.")
@click.option(
    "--speed", default="1", show_default=True,
    help="Times real time (1, 10, 0.5), or `max` for as fast as rows are acknowledged.",
)  # fmt: skip
@click.option("--model", default="", help="Model that scores it; by default the server chooses.")
@click.option("--key", help="Array of an .npz or .mat; A,B joins two.")
@click.option("--ignore", multiple=True, help="Column that is no channel; may be repeated.")
@click.option("--rate-hz", type=float, help="Rows per second, where the file does not say.")
@click.option("--label", help="Label column, never a channel.")
@click.option("--from-row", type=click.IntRange(min=0), default=0, help="First row to send.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the scores (csv, npy, npz).")
@force_option
@click.option("--timeout", "timeout_s", type=float, default=30.0, show_default=True,
              help="Seconds without any acknowledgement before giving up.")  # fmt: skip
@json_option
def command(
    file: Path,
    endpoint: str,
    name: str,
    speed: str,
    model: str,
    key: str | None,
    ignore: tuple[str, ...],
    rate_hz: float | None,
    label: str | None,
    from_row: int,
    out: Path | None,
    force: bool,
    timeout_s: float,
    json_file: Path | None,
) -> None:
    """Play a recording to a server and report how its rows were scored.

    FILE is .csv, .tsv, .txt, .npy, .npz, .mat or .data, or a PRONOSTIA folder of snapshots
    (acc_00001.csv, …).

    Channels go by name, as in `limpet predict`; those of an array without names by position.

    Rows the server has not acknowledged are sent again, also across its restarts: each row is
    acknowledged once.

    --json writes: rows, acknowledged, states (rows by state), seconds, latency_p50_ms and
    latency_p99_ms of a message.
    """
    from limpet.runtime.sensor import ScoredRows, SensorStream

    factor = _speed(speed)
    if not 0.0 < timeout_s < math.inf:
        raise UsageError(f"--timeout is {timeout_s:g}, wanted a number of seconds above 0")
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise UsageError(
            f"--stream is a name of {len(name)} characters, wanted 1 to {MAX_NAME_LENGTH}"
        )
    if out is not None:  # before hours of streaming, not after
        _check_out(out, file, force)
    recording = load_recording(file, key=key, ignore=ignore, rate_hz=rate_hz, label=label)
    wanted = _channels(endpoint, name, model, timeout_s)
    if wanted is not None:
        recording = match_channels(recording, wanted)
    if from_row >= len(recording.values):
        raise UsageError(
            f"--from-row {from_row} leaves nothing of {file}, which has {len(recording.values)} "
            "rows (counted from 0)"
        )
    recording = recording.rows(from_row, len(recording.values))
    for note in (*recording.warnings, *(f"left out: {column}" for column in recording.left_out)):
        click.echo(f"{file}: {note}", err=True)
    scores = np.full(len(recording.values), np.nan, np.float32)
    states = np.full(len(recording.values), -1, np.int16)
    latencies_s: list[float] = []

    def note_scores(batch: list[ScoredRows], segment: int) -> None:
        for scored in batch:
            first = segment + scored.sequence
            rows = slice(first, first + len(scored.scores))
            assert (states[rows] < 0).all(), "a row was acknowledged twice"
            scores[rows], states[rows] = scored.scores, scored.states
            latencies_s.append(scored.latency_s)

    started_s = time.monotonic()
    for start, stop in zip(recording.segments, (*recording.segments[1:], len(scores)), strict=True):
        # Segments do not follow each other in time: each is a session of its own.
        with SensorStream(
            endpoint, name, recording.channels,
            rate_hz=recording.rate_hz, model=model, timeout_s=timeout_s,
        ) as sensor:  # fmt: skip
            for row, values, time_ns in _chunks(recording, start, stop, factor):
                if factor is not None:
                    due_s = started_s + (row + len(values) - 1) / recording.rate_hz / factor
                    note_scores(sensor.wait(due_s - time.monotonic()), start)
                note_scores(sensor.send(values, time_ns), start)
            note_scores(sensor.flush(), start)
    if out is not None:
        write_scores(out, scores)
    counts = {state.name.lower(): int((states == state).sum()) for state in RowState}
    p50, p99 = np.percentile(latencies_s, [50, 99]) * 1e3 if latencies_s else (0.0, 0.0)
    report = {
        "rows": len(scores),
        "acknowledged": int((states >= 0).sum()),
        "states": counts,
        "seconds": time.monotonic() - started_s,
        "latency_p50_ms": float(p50),
        "latency_p99_ms": float(p99),
    }
    if write_json(json_file, report):
        return
    click.echo(
        f"{report['acknowledged']} of {len(scores)} rows acknowledged in {report['seconds']:.1f} s"
        f" ({', '.join(f'{count} {state}' for state, count in counts.items() if count)});"
        f" a message took {p50:.1f} ms (p50), {p99:.1f} ms (p99)"
    )


def _channels(endpoint: str, name: str, model: str, timeout_s: float) -> list[str] | None:
    """What the server's model takes; None where the server's configuration says which model."""
    from limpet.runtime.client import RobotClient

    with RobotClient(endpoint, name) as client:
        models = client.hello(timeout_s).models
    scoring = [info for info in models if info.channels and model in ("", info.name)]
    return scoring[0].channels if len(scoring) == 1 else None


def _check_out(out: Path, file: Path, force: bool) -> None:
    check_scores_file(out)
    if out.exists() and not force:
        raise UsageError(f"{out} exists already", "say --force to replace it, or another --out")
    if out.exists() and file.exists() and out.samefile(file):
        raise UsageError(f"--out {out} is FILE, which it would replace", "give another --out")


def _speed(text: str) -> float | None:
    """Times real time, None for as fast as possible."""
    if text == "max":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0.0 < factor < 1e9:
        raise UsageError(f"--speed {text!r} is neither a number above 0 and below 1e9 nor `max`")
    return factor


def _chunks(
    recording: Recording, start: int, stop: int, factor: float | None
) -> Iterator[tuple[int, NDArray[np.float64], int | None]]:
    """Rows of one segment with the time of the first, split where the recording's clock jumps."""
    size = LARGEST_CHUNK
    if factor is not None:
        size = int(np.clip(recording.rate_hz * factor / CHUNKS_PER_S, 1, LARGEST_CHUNK))
    times_ns, period_ns = recording.times_ns, 1e9 / recording.rate_hz
    edges = list(range(start, stop, size))
    if times_ns is not None:
        jumps = np.abs(np.diff(times_ns[start:stop]) - period_ns) > 0.5 * period_ns
        edges = sorted({*edges, *(np.flatnonzero(jumps) + 1 + start).tolist()})
    for first, last in zip(edges, [*edges[1:], stop], strict=True):
        time_ns = int(times_ns[first]) if times_ns is not None else None
        yield first, recording.values[first:last], time_ns
