"""Whose turn it is to run Python.

ZeroMQ and NumPy let go of the interpreter's lock at nearly every call, however short. Threads that
have work at the same time then hand it to and fro, at two switches each time: three switches a
message, a fifth of a busy server's time. So they take turns explicitly, and keep theirs for as long
as there is something to do, except inside an engine or while they wait for a disk.

There is one turn in a process, as there is one interpreter. Whoever has it must not wait for what
another thread does in its own.
"""

from __future__ import annotations

import threading

TURN = threading.RLock()
"""Held within a `with` block; a thread that has it already keeps it."""


class OutsideTurn:
    """Lets others have the turn within a `with` block, where this thread has it."""

    def __enter__(self) -> None:
        self._depth = 0
        try:
            while True:
                TURN.release()
                self._depth += 1
        except RuntimeError:  # it is not ours any more, or never was
            pass

    def __exit__(self, *_: object) -> None:
        while self._depth:
            TURN.acquire()
            self._depth -= 1
