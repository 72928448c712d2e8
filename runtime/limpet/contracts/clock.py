"""Wall-clock time that never steps: Unix nanoseconds carried by the monotonic clock."""

from __future__ import annotations

import time


class Clock:
    """Reads the wall clock once and counts on from there monotonically.

    NTP may step the system's clock while a process runs; ages and durations must not jump with it.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Unix nanoseconds."""
        return time.monotonic_ns() + self._offset_ns
