"""SIGTERM: what was accepted is finished, what was acknowledged is kept, the process ends."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from limpet.contracts import messages
from limpet.contracts.bundle import GOLDEN, MODEL, write_bundle
from limpet.contracts.errors import RejectedError
from limpet.contracts.golden import Golden
from limpet.contracts.manifest import SCHEMA_VERSION, Manifest
from limpet.contracts.tensors import TensorSpec
from limpet.runtime.client import RobotClient
from limpet.runtime.sensor import SensorStream
from tests.bundles import OPSET, onnx_bytes
from tests.end_to_end.serving import Serve, ServerProcess, write_config

PATIENCE_S = 60.0
SIDE = 1000
"""Of the square matrix that the slow model multiplies: some 20 to 100 ms."""


def slow_bundle(path: Path) -> Path:
    """Gives its input back after a multiplication that takes long and changes nothing."""
    x = TensorSpec(name="x", dtype="float32", shape=["batch", 4])
    y = TensorSpec(name="y", dtype="float32", shape=["batch", 4])
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["level"], keepdims=0),
        helper.make_node("Mul", ["ones", "level"], ["matrix"]),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "nearly_nothing"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    constants = {
        "ones": np.ones((SIDE, SIDE), np.float32),
        "nearly_nothing": np.array(1e-30, np.float32),
    }
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="slow",
        kind="custom",
        space_id="slow",
        inputs=[x],
        outputs=[y],
        opset=OPSET,
    )
    ones = np.ones((1, 4), np.float32)
    files = {
        MODEL: onnx_bytes(nodes, [x], [y], constants),
        GOLDEN: Golden(inputs={"x": ones}, outputs={"y": ones}, tolerances={"y": 1e-6}).encode(),
    }
    return write_bundle(path, manifest, files).path


@pytest.fixture
def serve_slow(tmp_path: Path) -> Iterator[Callable[[str], ServerProcess]]:
    with ExitStack() as stack:

        def start(server: str) -> ServerProcess:
            bundle = slow_bundle(tmp_path / "slow")
            alone = "together = false\n"  # each request takes its time
            process = ServerProcess(write_config(tmp_path, [bundle], server=server, tables=alone))
            stack.callback(process.clean_up)
            process.start()
            return process

        yield start


def ends(server: ServerProcess) -> tuple[int, str]:
    """Waits for the process; its exit status, and what it printed since it was ready."""
    process = server._process
    assert process is not None
    try:
        out, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise AssertionError("the server does not end") from None
    server._process = None
    return process.returncode, out


def replace(server: ServerProcess) -> list[int]:
    """Stops the server and starts the next one; the incidents in the log between them."""
    os.kill(server.pid, signal.SIGTERM)
    assert ends(server) == (0, "stopped\n")
    with closing(sqlite3.connect(server.config_path.parent / "state" / "alerts.db")) as log:
        opened = log.execute("SELECT sequence FROM alerts WHERE event = 'open'").fetchall()
    server.start()
    return [sequence for (sequence,) in opened]


def flood(robot: RobotClient, count: int) -> None:
    """Asks the slow model for much; returns when the server has accepted all of it."""
    for value in range(count):
        request = messages.Infer(id=robot.next_id(), model="slow")
        inputs = {"x": np.full((1, 4), value, np.float32)}
        robot.send(request, inputs, time.monotonic() + PATIENCE_S)
    # Status comes over the same connection, so after what was sent before.
    assert robot.status(PATIENCE_S).counters["requests.Infer"] == count


def hear(robot: RobotClient, count: int) -> list[float]:
    """What the next replies echo, all of which must be results."""
    values = []
    while len(values) < count:
        answer = robot.receive(time.monotonic() + PATIENCE_S)
        assert answer is not None
        reply, outputs = answer
        assert isinstance(reply, messages.Result), reply
        values.append(float(outputs["y"][0, 0]))
    return values


def until_refused(robot: RobotClient) -> None:
    """Asks until the server's signal has arrived."""
    with pytest.raises(RejectedError, match="stopping: the server is shutting down"):
        ask_for_ever(robot)


def ask_for_ever(robot: RobotClient) -> None:
    while True:
        robot.hello(PATIENCE_S)


class Collecting(RobotClient):
    """Keeps results that come while it waits for another reply."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.values: list[float] = []
        self.on_other = lambda reply, outputs: self.values.append(float(outputs["y"][0, 0]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once_and_says_so(serve: Serve, number: signal.Signals) -> None:
    server = serve()
    start = time.monotonic()
    os.kill(server.pid, number)
    assert ends(server) == (0, "stopped\n")
    assert time.monotonic() - start < 5.0
    assert "Traceback" not in server.log_path.read_text()


def test_requests_that_were_accepted_are_finished_and_later_ones_refused(
    serve_slow: Callable[[str], ServerProcess],
) -> None:
    server = serve_slow("drain_s = 30")
    with Collecting(server.endpoint) as robot, RobotClient(server.endpoint) as late:
        late.hello()
        flood(robot, 20)
        os.kill(server.pid, signal.SIGTERM)
        until_refused(late)
        results = robot.values + hear(robot, 20 - len(robot.values))
        assert results == list(range(20))
    assert ends(server) == (0, "stopped\n")


def test_work_beyond_the_time_for_it_is_given_up(
    serve_slow: Callable[[str], ServerProcess],
) -> None:
    """How much was left is what tells that it did: clocks tell a busy machine from an idle one."""
    server = serve_slow("drain_s = 0.3")
    with Collecting(server.endpoint) as robot:
        flood(robot, 200)
        os.kill(server.pid, signal.SIGTERM)
        assert ends(server) == (0, "stopped\n")
        given_up = re.search(
            r"model slow did not finish in time, (\d+) requests wait", server.log_path.read_text()
        )
        assert given_up is not None
        waiting = int(given_up[1])
        assert waiting >= 100  # a second or more of work
        results = robot.values + hear(robot, 200 - 1 - waiting - len(robot.values))
        assert results == list(range(200 - 1 - waiting)), "one was in the engine"


def test_a_second_signal_ends_the_server_at_once(
    serve_slow: Callable[[str], ServerProcess],
) -> None:
    server = serve_slow("drain_s = 60")
    with RobotClient(server.endpoint) as robot, RobotClient(server.endpoint) as late:
        late.hello()
        flood(robot, 200)
        os.kill(server.pid, signal.SIGTERM)
        until_refused(late)
        start = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        code, out = ends(server)
        assert time.monotonic() - start < 2.0
        assert (code, out) == (-signal.SIGTERM, "")


def test_a_stream_is_stopped_in_the_middle_and_goes_on_with_the_next_server(serve: Serve) -> None:
    tables = "[[streams]]\n[streams.detector]\nopen_after_rows = 2\nclose_after_rows = 3\n"
    server = serve(tables=tables)
    levels = np.tile(np.repeat([1.0, 9.0], [16, 9]), 80)
    parts = []
    with (
        ThreadPoolExecutor() as pool,
        SensorStream(server.endpoint, "pump", ["speed", "current"], rate_hz=1000.0) as pump,
    ):
        for start in range(0, len(levels), 5):
            if start == 1000:
                restart = pool.submit(replace, server)
            chunk = levels[start : start + 5]
            parts += pump.send(np.repeat(chunk[:, None], 2, axis=1))
        parts += pump.flush()
    logged = restart.result()
    told = {part.incident for part in parts if part.sequence < 900} - {0}
    assert len(told) > 10
    assert told <= set(logged)
    sequence = np.concatenate([p.sequence + np.arange(len(p.scores)) for p in parts])
    np.testing.assert_array_equal(np.sort(sequence), np.arange(len(levels)))
    scores = np.concatenate([p.scores for p in parts])[np.argsort(sequence)]
    np.testing.assert_array_equal(scores[~np.isnan(scores)], levels[~np.isnan(scores)])
    assert np.isnan(scores).sum() == 2 * 7  # one warm-up on each server
    assert server.terminate() == 0
