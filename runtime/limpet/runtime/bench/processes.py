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


@contextlib.contextmanager
def conversing(module_and_arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Runs a module of ours that says `ready`, is told something and answers, until the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module_and_arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise LimpetError(f"{' '.join(module_and_arguments)} ended before it was ready")
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def ask(process: subprocess.Popen[str], line: str) -> None:
    """Tells a process of `conversing` a line."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def answer_of(process: subprocess.Popen[str]) -> str:
    """What it says, a line.

    Raises:
        LimpetError: It ended instead.
    """
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise LimpetError(f"{process.args!r} ended without an answer")
    return line


def memory_mb(pid: int) -> float | None:
    """What a process has in memory, MiB; None where the system does not tell."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            (kilobytes,) = (line.split()[1] for line in file if line.startswith("VmRSS:"))
    except (OSError, ValueError):
        return None
    return int(kilobytes) / 1024
