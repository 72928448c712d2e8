"""The demo's processes: started, watched, and ended whatever happens.

Each child is a session of its own, so that Ctrl-C reaches the demo alone, which then ends the
children in good order; and each has a parent-death signal, so that none outlives a demo that was
killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from limpet.contracts.errors import LimpetError

TERM_S = 15.0
"""Longest wait for a child that was told to stop; the server drains for up to 10 s."""
TAIL_LINES = 12

# Bound before any fork: the child of a fork must not import.
_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

# Two OpenMP threads on two busy cores wait for each other: 200 training steps took 41 s with two
# threads and 8 s with one, on the same machine in the same minute.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


class ChildError(LimpetError):
    """A process of the demo failed, and what it said last."""


@dataclass(frozen=True)
class Child:
    """One process.

    Attributes:
        name: For messages.
        arguments: Its command line, after the module.
        process: The process.
        output: File with its standard output.
        errors: File with its standard error.
    """

    name: str
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes]
    output: Path
    errors: Path

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self.process.poll() is not None

    def check(self) -> None:
        """Raises `ChildError` if it ended with anything but 0."""
        if (code := self.process.poll()) not in (None, 0):
            raise ChildError(
                f"{self.name} {_ending(code)}:\n{self.tail()}", f"all of it: {self.errors}"
            )

    def check_alive(self) -> None:
        """Raises `ChildError` if it ended at all."""
        self.check()
        if self.has_ended:
            raise ChildError(
                f"{self.name} ended too early:\n{self.tail()}", f"all of it: {self.errors}"
            )

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of its standard error, or of its output if it is empty, indented."""
        texts = (
            f.read_text(encoding="utf-8", errors="replace") for f in (self.errors, self.output)
        )
        text = next((text for text in texts if text.strip()), "")
        return (
            "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
            or "    (it said nothing)"
        )

    def last_line(self) -> str:
        """The newest line of its standard error, where it tells its progress."""
        with self.errors.open("rb") as file:
            file.seek(max(0, self.errors.stat().st_size - 1000))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class Children:
    """All processes of a demo; leaving the context ends those that still run, newest first.

    Args:
        logs: Folder for their outputs.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._all: list[Child] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        with signals_ignored():
            self._end(self._all)

    def start(self, name: str, module: str, *arguments: str | Path) -> Child:
        """Runs a module of limpet's.

        Args:
            name: For messages and files: `serve`, `train-machine`.
            module: What to run: `limpet.runtime.cli`.
            arguments: Its command line.
        """
        command = tuple(map(str, arguments))
        output, errors = self._logs / f"{name}.out", self._logs / f"{name}.err"
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**_ENVIRONMENT, **os.environ},
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        child = Child(name, command, process, output, errors)
        self._all.append(child)
        return child

    def limpet(self, name: str, *arguments: str | Path) -> Child:
        """Runs a limpet command; `start` has the arguments."""
        return self.start(name, "limpet.runtime.cli", *arguments)

    def wait(
        self,
        children: Sequence[Child],
        meanwhile: Callable[[], None] = lambda: None,
        every_s: float = 0.1,
    ) -> None:
        """Waits until all have ended well.

        Args:
            children: Whom to wait for.
            meanwhile: Called again and again.
            every_s: Seconds between two looks.

        Raises:
            ChildError: One failed.
        """
        while True:
            for child in children:
                child.check()
            if all(child.has_ended for child in children):
                return
            meanwhile()
            time.sleep(every_s)

    def wait_for_line(self, child: Child, start: str, timeout_s: float) -> str:
        """The first line of a child's standard output that starts so, without that start.

        Raises:
            ChildError: It ended before, or did not say it in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            # A line counts when it is whole.
            for line in child.output.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.startswith(start) and line.endswith("\n"):
                    return line[len(start) :].strip()
            child.check_alive()
            time.sleep(0.02)
        raise ChildError(
            f"{child.name} did not say {start.strip()!r} within {timeout_s:g} s:\n{child.tail()}"
        )

    def stop(self, child: Child) -> None:
        """Tells a child to stop and waits until it has.

        Raises:
            ChildError: It ended badly, or had to be killed.
        """
        self._end([child])
        child.check()

    def _end(self, children: Sequence[Child]) -> None:
        running = [child for child in reversed(children) if not child.has_ended]
        deadline_s = time.monotonic() + TERM_S
        for child in running:
            child.process.terminate()
        for child in running:
            try:
                child.process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


@contextlib.contextmanager
def termination_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind as Ctrl-C does, so that they leave no process behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Nothing interrupts the ending of the children; it takes `TERM_S` at most."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _ending(code: int | None) -> str:
    assert code is not None
    return f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
