"""How many sensor streams this machine holds, server and sensors together.

Each number of streams gets a fresh server (`limpet serve` with its defaults) and a fresh sensor
process (`limpet.runtime.bench.sensors`), over tcp on this host.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import UsageError
from limpet.runtime.bench.sensors_plan import SensorsPlan, SensorsReport
from limpet.runtime.config import ServerSection
from limpet.runtime.demo.children import Children
from limpet.runtime.stream import MAX_ROWS

MOST_STREAMS = 4096
"""Where the search ends; far more than one process of Python feeds."""
READY_S = 60.0
WARM_UP_S = 2.0


class StreamSetting(msgspec.Struct, frozen=True, kw_only=True):
    """What every step has in common.

    Attributes:
        channels: Columns of a row.
        rate_hz: Rows per second of a stream.
        chunk_ms: Time between two messages of a stream.
        message_rows: Rows of a message.
        seconds: How long a step measures.
        warm_up_s: What runs before, untimed.
        limit_ms: Largest p99 of a step that counts as held.
        bundle: What scores, `made` where the bench made it itself.
    """

    channels: int
    rate_hz: float
    chunk_ms: float
    message_rows: int
    seconds: float
    warm_up_s: float
    limit_ms: float
    bundle: str


class StreamStep(msgspec.Struct, frozen=True, kw_only=True):
    """One number of streams. Times in milliseconds, except where the name says otherwise.

    Attributes:
        streams: How many.
        held: p99 within the limit, and nothing lost: every row acknowledged, no message refused,
            nothing dropped, no wait for a credit longer than the limit.
        p50_ms: From the moment when the newest row of a message is due to its acknowledgement.
        p99_ms: The same.
        p999_ms: The same.
        max_ms: The same.
        alert_p50_ms: The same for a message's oldest row, which waited for a whole chunk before:
            from a row to its alert.
        alert_p99_ms: The same.
        alert_p999_ms: The same.
        messages: Timed messages.
        rows: Rows that were due, those of the warm-up included.
        rows_sent: Of these, rows that were sent.
        rows_acknowledged: Of these, rows that were acknowledged.
        rows_per_s: Rows acknowledged per second, all streams together.
        server_cpu: CPU seconds of the server per second; None where the system does not tell.
        sensors_cpu: CPU seconds of the sensor process per second.
        sensors_late_p99_ms: How late the sensor process sends; it counts in every latency.
        waited_for_credit: Messages that were due while their stream had no credit.
        credit_wait_max_ms: Longest wait for one.
        refused: Messages that the server refused or failed, by code.
        dropped: The server's counters of drops.
        alerts: Alerts that the server recorded.
    """

    streams: int
    held: bool
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    alert_p50_ms: float
    alert_p99_ms: float
    alert_p999_ms: float
    messages: int
    rows: int
    rows_sent: int
    rows_acknowledged: int
    rows_per_s: float
    server_cpu: float | None
    sensors_cpu: float
    sensors_late_p99_ms: float
    waited_for_credit: int
    credit_wait_max_ms: float
    refused: dict[str, int]
    dropped: dict[str, int]
    alerts: int


def make_setting(
    *, channels: int, rate_hz: float, chunk_ms: float, seconds: float, limit_ms: float, bundle: str
) -> StreamSetting:
    """Checks what the command line says.

    Raises:
        UsageError: The chunk is no whole number of rows that one message may have, or the time is
            too short for some chunks.
    """
    wanted = rate_hz * chunk_ms / 1000
    rows = round(wanted)
    if abs(wanted - rows) > 1e-6 or not 1 <= rows <= MAX_ROWS:
        raise UsageError(
            f"--chunk-ms {chunk_ms:g} at --rate-hz {rate_hz:g} is {wanted:g} rows, wanted a whole "
            f"number from 1 to {MAX_ROWS}",
            f"one row is {1000 / rate_hz:g} ms",
        )
    if seconds * 1000 < 2 * chunk_ms:
        raise UsageError(f"--seconds {seconds:g} is shorter than two chunks of {chunk_ms:g} ms")
    return StreamSetting(
        channels=channels,
        rate_hz=rate_hz,
        chunk_ms=chunk_ms,
        message_rows=rows,
        seconds=seconds,
        warm_up_s=min(WARM_UP_S, seconds / 2),
        limit_ms=limit_ms,
        bundle=bundle,
    )


def find_largest(holds: Callable[[int], bool], most: int = MOST_STREAMS) -> int:
    """The largest number that holds, found by doubling and then by bisection; 0 where 1 does not.

    Args:
        holds: Tries a number; numbers above one that does not hold are taken not to hold.
        most: Largest number to try.
    """
    good, bad = 0, 1
    while bad <= most and holds(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good


def measure_step(
    children: Children,
    folder: Path,
    bundle: Bundle,
    values: NDArray[np.float32],
    setting: StreamSetting,
    streams: int,
) -> StreamStep:
    """Measures one number of streams.

    Args:
        children: Runs server and sensors.
        folder: Takes configuration, alert log and plan.
        bundle: What scores.
        values: Rows to play, again and again. (n, channels)
        setting: How.
        streams: How many.

    Raises:
        ChildError: Server or sensors failed.
    """
    own = folder / f"step-{len(list(folder.glob('step-*')))}"
    own.mkdir()
    config, plan_file, values_file = own / "serve.toml", own / "plan.json", own / "values.npy"
    max_streams = max(streams, ServerSection().max_streams)
    config.write_text(
        '[server]\nlisten = ["tcp://127.0.0.1:0"]\npublish = ["tcp://127.0.0.1:0"]\n'
        f"max_streams = {max_streams}\n"
        f"[[models]]\nbundle = {json.dumps(str(bundle.path.absolute()))}\n",
        encoding="utf-8",
    )
    np.save(values_file, values)
    server = children.limpet(f"serve-{own.name}", "serve", config)
    endpoint = children.wait_for_line(server, "ready ", READY_S).split()[0]
    plan = SensorsPlan(
        endpoint=endpoint,
        server_pid=server.process.pid,
        values=str(values_file),
        channels=list(bundle.manifest.signal().channels),
        streams=streams,
        message_rows=setting.message_rows,
        rate_hz=setting.rate_hz,
        warm_up_s=setting.warm_up_s,
        seconds=setting.seconds,
    )
    plan_file.write_bytes(msgspec.json.encode(plan))
    sensors = children.start(f"sensors-{own.name}", "limpet.runtime.bench.sensors", plan_file)
    children.wait([sensors], server.check_alive)
    children.stop(server)
    report = msgspec.json.decode(sensors.output.read_bytes(), type=SensorsReport)
    return judge(report, setting, streams)


def judge(report: SensorsReport, setting: StreamSetting, streams: int) -> StreamStep:
    """Whether the streams were held, and all figures."""
    dropped = {
        name.removeprefix("dropped."): count
        for name, count in report.counters.items()
        if name.startswith("dropped.") and count
    }
    held = (
        report.p99_ms <= setting.limit_ms
        and report.rows == report.rows_sent == report.rows_acknowledged
        and report.credit_wait_max_ms <= setting.limit_ms
        and not report.refused
        and not dropped
    )
    return StreamStep(
        streams=streams,
        held=held,
        p50_ms=report.p50_ms,
        p99_ms=report.p99_ms,
        p999_ms=report.p999_ms,
        max_ms=report.max_ms,
        alert_p50_ms=setting.chunk_ms + report.p50_ms,
        alert_p99_ms=setting.chunk_ms + report.p99_ms,
        alert_p999_ms=setting.chunk_ms + report.p999_ms,
        messages=report.messages,
        rows=report.rows,
        rows_sent=report.rows_sent,
        rows_acknowledged=report.rows_acknowledged,
        rows_per_s=report.rows_per_s,
        server_cpu=report.server_cpu,
        sensors_cpu=report.sensors_cpu,
        sensors_late_p99_ms=report.late_p99_ms,
        waited_for_credit=report.waited_for_credit,
        credit_wait_max_ms=report.credit_wait_max_ms,
        refused=report.refused,
        dropped=dropped,
        alerts=report.counters.get("alerts", 0),
    )
