from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import pytest

from tests.benchmarks.peers.environments import PeerError
from tests.benchmarks.peers.processes import Process, ask, ended, is_alive

PARENT = """
import subprocess, sys
child = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print(); time.sleep(99)"
child = [sys.executable, "-c", child]
started = subprocess.Popen(child, stdout=subprocess.PIPE, start_new_session=True)
started.stdout.readline()
with open(f"/proc/{started.pid}/stat") as file:
    print(started.pid, file.read().rpartition(")")[2].split()[19], flush=True)
sys.stdin.read()
"""


def python(program: str) -> Process:
    return Process([sys.executable, "-c", program], own=True)


def said(process: Process) -> Sequence[str]:
    return process.line(20.0).split()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_a_server_started_ends_with_it_even_in_a_session_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.benchmarks.peers.processes.TERM_S", 0.1)
    with ended(python(PARENT)) as process:
        pid, start = said(process)
        assert is_alive(int(pid), start)
        assert not is_alive(int(pid), "another time")
    assert not is_alive(int(pid), start)


def test_a_process_that_ends_says_why() -> None:
    program = "import sys; sys.exit('the model is missing')"
    with ended(python(program)) as process, pytest.raises(PeerError, match="the model is missing"):
        process.line(20.0)


def test_a_client_does_not_wait_for_a_server_that_ended() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ended(python("raise SystemExit('no port')")))
        client = stack.enter_context(ended(python("import sys; sys.stdin.read()")))
        with pytest.raises(PeerError, match=r"the server ended:\nno port"):
            ask(client, 20.0, [server], do="ready", ready_s=20.0)


def test_waiting_is_bounded() -> None:
    with (
        ended(python("import sys; sys.stdin.read()")) as process,
        pytest.raises(PeerError, match=r"nothing within 0\.1 s"),
    ):
        ask(process, 0.1, do="nothing")
