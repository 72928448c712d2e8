"""When the machine gave a core to somebody else: `python -m limpet.runtime.bench.stalls`.

On each core a thread asks to be woken every few milliseconds. Where it is woken late by more than
a scheduler's usual slice, the core was not to be had. A deadline that was missed by no more than
that says nothing of the server.

It says `ready`, watches until it is told anything, and says what it saw as a line of JSON.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence

import msgspec

EVERY_S = 0.002
LATE_S = 0.003
"""Late by less is not a stall: the threads of the measurement share the cores, too."""


class Stall(msgspec.Struct, frozen=True, array_like=True):
    """A core could not be had; monotonic clock, seconds.

    Attributes:
        core: Which.
        begin_s: From then.
        end_s: Until then.
    """

    core: int
    begin_s: float
    end_s: float


def stalled_s(stalls: Sequence[Stall], begin_s: float, end_s: float) -> float:
    """How long a core could not be had within a stretch, of that where it was longest."""
    of_core: dict[int, float] = {}
    for stall in stalls:
        overlap_s = min(stall.end_s, end_s) - max(stall.begin_s, begin_s)
        if overlap_s > 0:
            of_core[stall.core] = of_core.get(stall.core, 0.0) + overlap_s
    return max(of_core.values(), default=0.0)


def _watch(core: int, stalls: list[Stall], ended: threading.Event) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})  # of this thread
    while not ended.is_set():
        asked_s = time.monotonic() + EVERY_S
        time.sleep(EVERY_S)
        woken_s = time.monotonic()
        if woken_s - asked_s > LATE_S:
            stalls.append(Stall(core, asked_s, woken_s))


def main() -> None:
    """Serves one measurement."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    stalls: list[Stall] = []
    ended = threading.Event()
    threads = [
        threading.Thread(target=_watch, args=(core, stalls, ended), daemon=True) for core in cores
    ]
    for thread in threads:
        thread.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    ended.set()
    for thread in threads:
        thread.join()
    sys.stdout.write(msgspec.json.encode(stalls).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
