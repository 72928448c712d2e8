"""The demo's processes: a failure shows what was said, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from limpet.runtime.demo.children import Child, ChildError, Children, termination_interrupts

SCRIPT = "script_of_a_test"


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Children, str], Child]:
    """Starts a child that runs a program."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def start(children: Children, program: str) -> Child:
        (tmp_path / f"{SCRIPT}.py").write_text(textwrap.dedent(program))
        return children.start("child", SCRIPT)

    return start


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until_gone(pid: int, timeout_s: float = 20.0) -> bool:
    """Whether a process ends in time."""
    deadline_s = time.monotonic() + timeout_s
    while is_running(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return not is_running(pid)


Start = Callable[[Children, str], Child]


def test_a_child_that_fails_is_told_with_its_last_words(tmp_path: Path, start: Start) -> None:
    with Children(tmp_path) as children:
        child = start(children, "import sys; sys.exit('error: no such recording')")
        with pytest.raises(ChildError, match=r"(?s)child failed with exit code 1.*no such rec"):
            children.wait([child])


def test_a_child_that_only_wrote_output_is_told_with_that(tmp_path: Path, start: Start) -> None:
    with Children(tmp_path) as children:
        child = start(children, "print('score 3 <= 1 FAILED'); raise SystemExit(1)")
        with pytest.raises(ChildError, match="score 3 <= 1 FAILED"):
            children.wait([child])


def test_the_first_line_that_starts_so_is_waited_for(tmp_path: Path, start: Start) -> None:
    with Children(tmp_path) as children:
        child = start(
            children,
            "import time\nprint('hello', flush=True)\nprint('ready tcp://x', flush=True)\n"
            "time.sleep(60)",
        )
        assert children.wait_for_line(child, "ready ", 20.0) == "tcp://x"


def test_a_child_that_ends_before_it_is_ready_is_told(tmp_path: Path, start: Start) -> None:
    with Children(tmp_path) as children:
        child = start(children, "")
        with pytest.raises(ChildError, match="ended too early"):
            children.wait_for_line(child, "ready ", 20.0)


def test_leaving_ends_the_children_even_after_an_error(tmp_path: Path, start: Start) -> None:
    children = Children(tmp_path)
    child = start(children, "import time\nprint('ready', flush=True)\ntime.sleep(60)")

    def fail() -> None:
        with children:
            children.wait_for_line(child, "ready", 20.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert child.has_ended


def test_a_child_that_ends_well_when_told_to_is_no_failure(tmp_path: Path, start: Start) -> None:
    program = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print("ready", flush=True)
        time.sleep(60)
    """
    with Children(tmp_path) as children:
        child = start(children, program)
        children.wait_for_line(child, "ready", 20.0)
        children.stop(child)
    assert child.process.returncode == 0


def test_a_child_does_not_outlive_a_killed_demo(tmp_path: Path) -> None:
    (tmp_path / f"{SCRIPT}.py").write_text("import time; time.sleep(120)")
    program = f"""
        import time
        from pathlib import Path
        from limpet.runtime.demo.children import Children
        with Children(Path({str(tmp_path)!r})) as children:
            print(children.start("child", {SCRIPT!r}).process.pid, flush=True)
            time.sleep(120)
    """
    demo = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert demo.stdout is not None
    with demo, demo.stdout:
        child = int(demo.stdout.readline())
        assert is_running(child)
        demo.kill()
    assert wait_until_gone(child)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_unwinds_as_ctrl_c_does(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), termination_interrupts():
        signal.raise_signal(number)
