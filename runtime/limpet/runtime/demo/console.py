"""What the demo says while it runs: numbered stages, facts, alerts as they come, progress.

Lines go to standard output. On a terminal the last one is a status that the next line replaces;
elsewhere the status is a plain line every few seconds.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

INDENT = "      "
STATUS_EVERY_S = 5.0


class Console:
    """The demo's voice.

    Args:
        stages: How many there will be.
        quiet: Say nothing: the report alone goes to standard output.
    """

    def __init__(self, stages: int, *, quiet: bool = False) -> None:
        self._stages, self._quiet = stages, quiet
        self._number = 0
        self._is_terminal = sys.stdout.isatty() and not quiet
        self._status_s = 0.0
        self._shown = ""
        self.stage_s: dict[str, float] = {}
        """Seconds that each stage took."""

    def line(self, text: str = "", **style: Any) -> None:
        """Writes one line."""
        if self._quiet:
            return
        self._clear()
        click.secho(text, **style)
        sys.stdout.flush()

    def fact(self, text: str, **style: Any) -> None:
        """Writes one line below a stage."""
        self.line(f"{INDENT}{text}", **style)

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """A numbered stage, and how long it took."""
        self._number += 1
        self.line()
        self.line(f"[{self._number}/{self._stages}] {name}: {what}", bold=True)
        began_s = self._status_s = time.monotonic()
        yield
        self.stage_s[name] = round(time.monotonic() - began_s, 3)
        self.fact(f"{name} took {self.stage_s[name]:.1f} s", dim=True)

    def status(self, text: str) -> None:
        """How far something is: now on a terminal, every few seconds elsewhere."""
        now_s = time.monotonic()
        if self._quiet:
            return
        if not self._is_terminal:
            if now_s - self._status_s >= STATUS_EVERY_S:
                self._status_s = now_s
                self.fact(text)
            return
        shown = f"{INDENT}{text}"[: shutil.get_terminal_size().columns - 1]
        if shown == self._shown:
            return
        click.echo(f"\r{shown:<{len(self._shown)}}", nl=False)
        self._shown = shown
        sys.stdout.flush()

    def _clear(self) -> None:
        if self._shown:
            click.echo(f"\r{'':<{len(self._shown)}}\r", nl=False)
            self._shown = ""
