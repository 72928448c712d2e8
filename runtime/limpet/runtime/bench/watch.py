"""What grows while a server is loaded: a figure once a second, and a line through a memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import msgspec
import numpy as np

EVERY_S = 1.0
BLOCKS = 10
STUDENT_95 = 2.306
"""Of a line through ten blocks: eight degrees of freedom."""


class Slope(msgspec.Struct, frozen=True, kw_only=True):
    """A line through the memory of a process.

    Attributes:
        mb_per_min: Its slope, MiB a minute.
        plus_minus: Half of its 95 % interval.
        first_mb: Memory at the beginning.
        last_mb: Memory at the end.
        largest_mb: The most in between.
    """

    mb_per_min: float
    plus_minus: float
    first_mb: float
    last_mb: float
    largest_mb: float

    @property
    def is_flat(self) -> bool:
        """Whether a memory that does not grow could have given this slope."""
        return self.mb_per_min <= self.plus_minus


def fit_slope(seconds: Sequence[float], megabytes: Sequence[float]) -> Slope | None:
    """The line through the means of ten blocks.

    Neighbouring samples of a memory are nearly the same, so that a line through all of them would
    be far too sure of its slope.

    Returns:
        None of fewer samples than blocks.
    """
    if len(seconds) < BLOCKS:
        return None
    x = np.array([block.mean() for block in np.array_split(np.array(seconds) / 60.0, BLOCKS)])
    y = np.array([block.mean() for block in np.array_split(np.array(megabytes), BLOCKS)])
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    residual = y - y.mean() - slope * centred
    error = float(np.sqrt(residual @ residual / (BLOCKS - 2) / spread))
    return Slope(
        mb_per_min=slope,
        plus_minus=STUDENT_95 * error,
        first_mb=float(megabytes[0]),
        last_mb=float(megabytes[-1]),
        largest_mb=float(max(megabytes)),
    )


class Watch:
    """Asks for a figure again and again within a `with` block, in a thread of its own.

    Args:
        figure: Gives it; None where it cannot be had.
        every_s: Between two of them.

    Attributes:
        seconds: When, monotonic.
        values: What.
    """

    def __init__(self, figure: Callable[[], float | None], every_s: float = EVERY_S) -> None:
        self._figure, self._every_s = figure, every_s
        self.seconds: list[float] = []
        self.values: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            if (value := self._figure()) is not None:
                self.seconds.append(time.monotonic())
                self.values.append(value)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
