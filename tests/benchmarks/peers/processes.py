"""Servers and clients as processes that are told what to do, bounded in time, and ended with all
that they started.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from limpet.runtime.demo.children import signals_ignored
from tests.benchmarks.peers.catalogue import Peer
from tests.benchmarks.peers.environments import PeerError

ROOT = Path(__file__).resolve().parents[3]
TERM_S = 10.0
"""Longest wait for a process that was told to end."""
TAIL_LINES = 12


class Process:
    """One process of ours, from its start to the end of its last descendant.

    Args:
        command: What to run.
        python: Whether limpet's packages are on its path: `own` or another environment's.
        libpython: Whether it has to find the interpreter's own libpython.
    """

    def __init__(self, command: Sequence[str], *, own: bool, libpython: bool = False) -> None:
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        if not own:
            variables["PYTHONPATH"] = str(ROOT)
        if libpython:
            variables["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))
        self._errors: IO[str] = tempfile.TemporaryFile(  # noqa: SIM115 - `end` closes it
            "w+", encoding="utf-8", errors="replace"
        )
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=variables,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for the benchmark, which then ends them
        )

    def line(self, timeout_s: float, others: Sequence[Process] = ()) -> str:
        """Its next line.

        Raises:
            PeerError: None came in time, or it or one of the others ended.
        """
        assert self._process.stdout is not None
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            if select.select([self._process.stdout], [], [], 0.2)[0]:
                line = self._process.stdout.readline()
                if not line:
                    raise PeerError(f"it ended:\n{self.tail()}")
                return line
            for other in others:
                if other._process.poll() is not None:
                    raise PeerError(f"the server ended:\n{other.tail()}")
        said = "\n".join(each.tail() for each in (self, *others))
        raise PeerError(f"nothing within {timeout_s:g} s:\n{said}")

    def tell(self, what: dict[str, Any]) -> None:
        """Sends it a line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise PeerError(f"it ended:\n{self.tail()}") from error

    def tail(self) -> str:
        """The last lines that it wrote to standard error."""
        self._errors.seek(0)
        return "\n".join(self._errors.read().splitlines()[-TAIL_LINES:])

    def end(self) -> None:
        """Ends it and everything that it started."""
        with signals_ignored():
            family = descendants(self._process.pid)
            self._process.terminate()
            try:
                self._process.wait(TERM_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            # Some servers leave children behind; others were started after the first look.
            family |= descendants(self._process.pid)
            for number in (signal.SIGTERM, signal.SIGKILL):
                family = {pid: start for pid, start in family.items() if is_alive(pid, start)}
                for pid in family:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                until_s = time.monotonic() + TERM_S
                while time.monotonic() < until_s and any(map(is_alive, *_columns(family))):
                    time.sleep(0.02)
            for stream in (self._process.stdin, self._process.stdout, self._errors):
                with contextlib.suppress(BrokenPipeError):
                    stream.close()  # type: ignore[union-attr]


def _columns(family: dict[int, str]) -> tuple[list[int], list[str]]:
    return list(family), list(family.values())


def _stat(pid: int) -> list[str]:
    """State, parent, group, session, ... of a process; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid: int, start: str) -> bool:
    """Whether the process that began then still runs."""
    stat = _stat(pid)
    return bool(stat) and stat[0] != "Z" and stat[19] == start


def descendants(pid: int) -> dict[int, str]:
    """When each process began that `pid` started, or that is of its session."""
    stats = {int(each.name): _stat(int(each.name)) for each in Path("/proc").glob("[0-9]*")}
    stats = {each: stat for each, stat in stats.items() if stat and each != pid}
    found: set[int] = set()
    new = {each for each, stat in stats.items() if pid in (int(stat[1]), int(stat[3]))}
    while new:
        found |= new
        new = {each for each, stat in stats.items() if int(stat[1]) in found} - found
    return {each: stats[each][19] for each in found}


@contextlib.contextmanager
def ended(process: Process) -> Iterator[Process]:
    """Ends it when the block does."""
    try:
        yield process
    finally:
        process.end()


def server(python: str, peer: Peer, model: Path, *, own: bool) -> Process:
    """A peer's server, which prints its endpoints."""
    module = "tests.benchmarks.peers.run_server"
    command = [python, "-m", module, peer.module, str(model), json.dumps(peer.settings)]
    return Process(command, own=own, libpython=peer.libpython)


def client(python: str, peer: Peer, row: str, endpoint: str, *, own: bool) -> Process:
    """A client of one row."""
    module = "tests.benchmarks.peers.run_client"
    return Process([python, "-m", module, peer.module, row, endpoint], own=own)


def ask(
    process: Process, timeout_s: float, others: Sequence[Process] = (), **what: Any
) -> dict[str, Any]:
    """What a client answers.

    Raises:
        PeerError: It does not.
    """
    process.tell(what)
    answer: dict[str, Any] = json.loads(process.line(timeout_s, others))
    return answer
