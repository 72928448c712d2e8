"""Same-host lanes: who dies, and what stays behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limpet.contracts.errors import RequestTimeoutError
from limpet.runtime.bench.identity import write_identity_bundle
from limpet.runtime.client import RobotClient
from limpet.runtime.lane_memory import SUPPORTED
from limpet.runtime.server import Server
from tests.runtime.lanes import (
    ask,
    lanes_of,
    mapped_lanes,
    take_lane,
    wide_serving,
    x,
)
from tests.runtime.serving import obedient, until

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="lanes need Linux: memfd and its seals")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with wide_serving(tmp_path) as served:
        yield served


VICTIM = """
import sys, numpy as np
from limpet.runtime.client import RobotClient
robot = RobotClient(sys.argv[1])
robot.infer("identity", {"x": np.ones((1, 4), np.float32)}, timeout_s=20.0)
assert robot._lane is not None
print("ready", flush=True)
sys.stdin.readline()
robot.infer("identity", {"x": np.ones((1, 40_000), np.float32)}, timeout_s=20.0)
"""


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_client_killed_in_a_request_leaves_neither_memory_nor_files(server: Server) -> None:
    files = set(os.listdir("/dev/shm"))
    descriptors = len(os.listdir("/proc/self/fd"))
    engine = obedient(server, "identity")
    with child("-c", VICTIM, server.listening[0]) as victim:
        assert line_of(victim) == "ready"
        engine.gate.clear()
        runs = engine.runs
        assert victim.stdin is not None
        victim.stdin.write("\n")
        victim.stdin.flush()
        until(lambda: engine.runs > runs)
        assert mapped_lanes() == 1
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        until(lambda: lanes_of(server) == 0)
        engine.gate.set()  # whose inputs lie in that memory
    until(lambda: mapped_lanes() == 0)
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    assert set(os.listdir("/dev/shm")) <= files
    with RobotClient(server.listening[0]) as robot:
        take_lane(robot)


def test_a_server_killed_leaves_nothing_and_its_client_goes_on_with_the_next_one(
    tmp_path: Path,
) -> None:
    files = set(os.listdir("/dev/shm"))
    write_identity_bundle(tmp_path / "identity")
    config = tmp_path / "serve.toml"

    def serve(listen: str) -> Any:
        config.write_text(
            f'[server]\nlisten = ["{listen}"]\npublish = ["tcp://127.0.0.1:0"]\n'
            '[[models]]\nbundle = "identity"\n',
            encoding="utf-8",
        )
        return child("-m", "limpet.runtime.cli", "serve", str(config))

    with contextlib.ExitStack() as stack:
        with serve("tcp://127.0.0.1:0") as first:
            endpoint = line_of(first).split()[1]
            robot = stack.enter_context(RobotClient(endpoint))
            take_lane(robot)
            kept = ask(robot, 5.0)
            first.send_signal(signal.SIGKILL)
            first.wait()
        start = time.monotonic()
        with pytest.raises(RequestTimeoutError):
            robot.infer("identity", x(1.0), timeout_s=0.3)
        assert time.monotonic() - start < 2.0
        assert robot._lane is None
        assert np.all(kept == 5.0)
        del kept
        assert set(os.listdir("/dev/shm")) <= files
        assert mapped_lanes() == 0
        with serve(endpoint) as second:
            assert line_of(second).startswith("ready")
            ask(robot, 6.0)
            until(lambda: ask(robot, 7.0) is not None and robot._lane is not None)
