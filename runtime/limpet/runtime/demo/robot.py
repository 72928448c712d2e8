"""The demo's robot node: asks a server for embeddings at a steady rate, as a controller would.

    python -m limpet.runtime.demo.robot ENDPOINT ROWS.npz REPORT.json

`ROWS.npz` holds real rows (n, c) under the name of each model. Prints `ready` after the first
answer; SIGTERM ends it, and then it writes its report.
"""

from __future__ import annotations

import signal
import sys
import time
from itertools import count, cycle
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import RequestError, StaleReplyError
from limpet.contracts.messages import ModelInfo
from limpet.runtime.client import RobotClient

RATE_HZ = 20.0
MAX_AGE_S = 0.25
"""Older input is not worth an answer to this robot."""
TIMEOUT_S = 2.0


class RobotReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the robot met.

    Attributes:
        rate_hz: Requests per second that it meant to send.
        max_age_ms: Oldest input worth an answer.
        requests: Requests sent.
        answered: Requests that got an embedding.
        stale: Requests answered `Stale`: their input was older than `max_age_ms`.
        failed: Requests that got neither.
        late_ticks: Ticks of its clock that passed while it waited for an answer.
        p50_ms: Median time from asking to having the embedding.
        p99_ms: 99th percentile of the same.
    """

    rate_hz: float
    max_age_ms: float
    requests: int
    answered: int
    stale: int
    failed: int
    late_ticks: int
    p50_ms: float | None
    p99_ms: float | None


class Stopped:
    """Set by SIGTERM."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, *_: object) -> None:
        self.is_set = True


def ask_steadily(
    robot: RobotClient, rows: dict[str, NDArray[np.float32]], stopped: Stopped
) -> RobotReport:
    """Asks for embeddings of stretches of `rows`, one model after the other, until told to stop."""
    models = [model for model in robot.hello().models if model.name in rows]
    latencies_s: list[float] = []
    stale = failed = late = 0
    robot.sync_clock()
    next_s = time.monotonic()
    for number, model in zip(count(), cycle(models)):
        stretch = _stretch(model, rows[model.name], number)
        began_s = time.monotonic()
        try:
            robot.infer(
                model.name,
                {model.inputs[0].name: stretch},
                capture_time_ns=time.time_ns(),
                max_age_s=MAX_AGE_S,
                timeout_s=TIMEOUT_S,
            )
            latencies_s.append(time.monotonic() - began_s)
            if len(latencies_s) == 1:
                sys.stdout.write("ready\n")
                sys.stdout.flush()
        except StaleReplyError:
            stale += 1
        except RequestError as error:
            failed += 1
            sys.stderr.write(f"request {number + 1}: {error}\n")
        next_s += 1.0 / RATE_HZ
        while next_s < time.monotonic():
            next_s += 1.0 / RATE_HZ
            late += 1
        if stopped.is_set:
            break
        time.sleep(max(0.0, next_s - time.monotonic()))
    p50, p99 = np.percentile(latencies_s, [50, 99]) * 1e3 if latencies_s else (None, None)
    return RobotReport(
        rate_hz=RATE_HZ,
        max_age_ms=MAX_AGE_S * 1e3,
        requests=len(latencies_s) + stale + failed,
        answered=len(latencies_s),
        stale=stale,
        failed=failed,
        late_ticks=late,
        p50_ms=None if p50 is None else float(p50),
        p99_ms=None if p99 is None else float(p99),
    )


def _stretch(model: ModelInfo, rows: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """As many rows as a first score takes, beginning one later at each call. (1, n, c)"""
    length = model.inputs[0].shape[1]
    assert isinstance(length, int), "an anomaly encoder takes the rows up to a first score"
    # Of fast rows, such as vibration, that may be more than there are: then they begin again.
    return rows[None, (number + np.arange(length)) % len(rows)]


def main(endpoint: str, rows_file: str, report_file: str) -> None:
    """Runs the node."""
    stopped = Stopped()
    with np.load(rows_file, allow_pickle=False) as archive:
        rows = {name: np.asarray(archive[name], np.float32) for name in archive.files}
    with RobotClient(endpoint, "demo-robot") as robot:
        report = ask_steadily(robot, rows, stopped)
    Path(report_file).write_bytes(msgspec.json.encode(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
