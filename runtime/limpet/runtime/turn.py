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

_lock = threading.Lock()
_holder = 0  # the thread that has the turn


class Turn:
    """Has the turn within a `with` block; a thread that has it already keeps it."""

    def __enter__(self) -> None:
        global _holder
        self._had = _holder == threading.get_ident()
        if not self._had:
            _lock.acquire()
            _holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        global _holder
        if not self._had:
            _holder = 0
            _lock.release()


class OutsideTurn:
    """Lets others have the turn within a `with` block, where this thread has it."""

    def __enter__(self) -> None:
        global _holder
        self._had = _holder == threading.get_ident()
        if self._had:
            _holder = 0
            _lock.release()

    def __exit__(self, *_: object) -> None:
        global _holder
        if self._had:
            _lock.acquire()
            _holder = threading.get_ident()
