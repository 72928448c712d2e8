"""Processes that a benchmark of serving needs: the server, the echo."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from limpet.contracts.errors import LimpetError


class Started(NamedTuple):
    """A process that is ready.

    Attributes:
        endpoints: The first line that it printed, in words, without `ready`.
        pid: Its number.
        start_s: From its start to that line.
    """

    endpoints: list[str]
    pid: int
    start_s: float


@contextlib.contextmanager
def running(module_and_arguments: Sequence[str]) -> Iterator[Started]:
    """Runs a module of ours until the block ends."""
    begun_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *module_and_arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise LimpetError(f"{' '.join(module_and_arguments)} ended before it was ready")
        words = line.removeprefix("ready ").split()
        yield Started(words, process.pid, time.monotonic() - begun_s)
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def memory_mb(pid: int) -> float | None:
    """What a process has in memory, MiB; None where the system does not tell."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            (kilobytes,) = (line.split()[1] for line in file if line.startswith("VmRSS:"))
    except (OSError, ValueError):
        return None
    return int(kilobytes) / 1024
