"""Cores and priorities: what is asked for is had, or said to be impossible with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.contracts.errors import ConfigError
from limpet.runtime import placement
from limpet.runtime.placement import may_be_realtime, place

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system lets no process choose its cores"
)


@pytest.fixture
def cores() -> Iterator[list[int]]:
    """The cores of these tests, which have them again afterwards."""
    before = os.sched_getaffinity(0)
    yield sorted(before)
    for task in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(task), before)


def refuse(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_process_is_moved_whole_and_threads_that_it_starts_later_stay_there(
    cores: list[int],
) -> None:
    seen: list[set[int]] = []
    end = threading.Event()
    early = threading.Thread(target=end.wait)
    early.start()
    place([cores[-1]], None)
    late = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
    late.start()
    late.join()
    assert early.native_id is not None
    assert os.sched_getaffinity(early.native_id) == {cores[-1]}
    assert seen == [{cores[-1]}]
    end.set()
    early.join()


def test_without_a_wish_nothing_is_changed(
    cores: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    place([], None)
    assert sorted(os.sched_getaffinity(0)) == cores


def test_a_core_that_is_not_there_is_refused_with_those_that_are(cores: list[int]) -> None:
    with pytest.raises(ConfigError) as caught:
        place([4000], None)
    assert str(caught.value) == (
        "[server] cores = [4000]: [Errno 22] Invalid argument\n"
        f"  this process may run on cores {cores}; take cores out to let the system choose"
    )


def test_a_priority_that_is_not_permitted_is_refused_with_what_permits_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(placement, "permitted_priority", lambda: 0)
    with pytest.raises(ConfigError) as caught:
        place([], 10)
    assert caught.value.message == (
        "[server] realtime_priority = 10: [Errno 1] Operation not permitted; the limit is 0"
    )
    for way in ("ulimit -r 10", "rtprio 10", "LimitRTPRIO=10", "CAP_SYS_NICE", "realtime_priority"):
        assert way in caught.value.hint
    assert not may_be_realtime()


def test_a_priority_is_asked_for_first_in_first_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []

    def schedule(process: int, policy: int, param: os.sched_param) -> None:
        asked.append((process, policy, param.sched_priority))

    monkeypatch.setattr(os, "sched_setscheduler", schedule)
    place([], 10)
    assert asked == [(0, os.SCHED_FIFO, 10)]
    assert may_be_realtime()


def test_whether_a_thread_may_be_realtime_leaves_this_one_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    may_be_realtime()
    assert os.sched_getscheduler(0) == before


@pytest.mark.skipif(not may_be_realtime(), reason="SCHED_FIFO is not permitted here")
def test_threads_inherit_the_priority_where_it_is_permitted() -> None:
    code = (
        "import os, threading\nfrom limpet.runtime.placement import place\nplace([], 1)\n"
        "got = []\n"
        "thread = threading.Thread(target=lambda: got.append(os.sched_getscheduler(0)))\n"
        "thread.start(); thread.join()\nassert got == [os.SCHED_FIFO]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def test_serve_does_not_start_on_a_core_that_is_not_there(tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text("[server]\ncores = [4000]\n[[models]]\nbundle = 'none'\n")
    done = subprocess.run(
        [sys.executable, "-m", "limpet.runtime.cli", "serve", str(config)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "[server] cores = [4000]" in done.stderr
