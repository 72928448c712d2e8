"""Sockets that nodes connect to, and the disk that the alert log is on."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from limpet.runtime.diagnosis.finding import Finding, Status

FSYNC_RUNS = 20
SLOW_FSYNC_MS = 50.0
"""Median above which waiting for the alert log shows in a stream's latency."""
LITTLE_DISK_GB = 1.0


def look_at_sockets() -> Iterator[Finding]:
    """Whether ZeroMQ may listen."""
    try:
        import zmq
    except (ImportError, OSError):
        return  # told among the dependencies
    with tempfile.TemporaryDirectory(prefix="limpet-") as folder, zmq.Context() as context:
        for name, endpoint in (("tcp", "tcp://127.0.0.1:*"), ("ipc", f"ipc://{folder}/socket")):
            try:
                with context.socket(zmq.ROUTER) as socket:
                    socket.bind(endpoint)
            except zmq.ZMQError as error:
                mend = "allow loopback connections" if name == "tcp" else "use tcp:// endpoints"
                status: Status = "failed" if name == "tcp" else "warning"
                yield Finding("sockets", name, status, f"{endpoint}: {error}", mend)
            else:
                yield Finding("sockets", name, "ok", f"binds {endpoint.partition('://')[0]}://")


def look_at_state(folder: Path) -> Iterator[Finding]:
    """Room for the alert log, and how long it takes to write to it for good."""
    folder = folder.absolute()
    folder = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    try:
        free_gb = shutil.disk_usage(folder).free / 1e9
        fsync_ms = measure_fsync_ms(folder)
    except OSError as error:
        mend = "choose a folder that can be written: state_dir in the configuration"
        yield Finding("state", "disk", "failed", f"{folder}: {error.strerror}", mend)
        return
    disk = f"{free_gb:.1f} GB free at {folder}"
    if free_gb < LITTLE_DISK_GB:
        yield Finding("state", "disk", "warning", disk, "free some space for the alert log")
    else:
        yield Finding("state", "disk", "ok", disk)
    fsync = f"{fsync_ms:.2g} ms (median of {FSYNC_RUNS})"
    if fsync_ms > SLOW_FSYNC_MS:
        mend = "put state_dir on a faster disk: every alert waits for this"
        yield Finding("state", "fsync", "warning", fsync, mend)
    else:
        yield Finding("state", "fsync", "ok", fsync)


def measure_fsync_ms(folder: Path) -> float:
    """Median time of one durable 4 KiB write."""
    times_s = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(FSYNC_RUNS):
            start_s = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - start_s)
    return sorted(times_s)[FSYNC_RUNS // 2] * 1e3
