"""How far a long computation is: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from limpet.training.ranks import leads

Report = Callable[[int, str], None]
"""Takes the number of steps that are done and a note such as `loss 0.41`."""

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress(
    label: str,
    steps: int,
    start: int = 0,
    *,
    file: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Report]:
    """Shows the progress of `steps` steps on standard error; on ranks other than 0 nothing.

    Args:
        label: What is going on.
        steps: Number of steps in all.
        start: Steps that were done before (a resumed run).
        file: Where to, standard error by default.
        clock: Monotonic time in seconds.
    """
    if not leads():
        yield lambda done, note: None
        return
    file = sys.stderr if file is None else file
    show = _bar if file.isatty() else _lines
    with show(label, steps, start, file, clock) as report:
        yield report


@contextmanager
def _bar(
    label: str, steps: int, start: int, file: TextIO, clock: Callable[[], float]
) -> Iterator[Report]:
    with click.progressbar(
        length=steps, label=label, file=file, item_show_func=lambda note: note
    ) as bar:
        bar.update(start, "")

        def report(done: int, note: str) -> None:
            bar.update(done - bar.pos, note)

        yield report


@contextmanager
def _lines(
    label: str, steps: int, start: int, file: TextIO, clock: Callable[[], float]
) -> Iterator[Report]:
    began = printed = clock()

    def report(done: int, note: str) -> None:
        nonlocal printed
        now = clock()
        if now - printed < SECONDS_BETWEEN_LINES and done < steps:
            return
        printed = now
        left_s = (now - began) * (steps - done) / max(done - start, 1)
        ends = f", {left_s:.0f} s left" if done < steps else f", {now - began:.0f} s"
        click.echo(f"{label} {done}/{steps} {note}{ends}", file=file)

    yield report
