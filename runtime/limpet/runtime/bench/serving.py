"""What a request costs beside its inference, against a raw ZeroMQ echo of the same bytes.

Three sides take turns within one run, so that a change of the machine's speed meets all of them:
the served model, a raw echo in a process of its own with the same frames, and the same engine
called in this process.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import zmq

from limpet.contracts import messages
from limpet.contracts.bundle import read_bundle
from limpet.contracts.errors import LimpetError
from limpet.contracts.wire import Buffer, encode
from limpet.runtime.bench.identity import write_identity_bundle
from limpet.runtime.client import RobotClient
from limpet.runtime.engines import open_engine

SIZES = {"4 KB": 1024, "150 KB": 37_632, "0.9 MB": 230_400}
"""float32 values of a request: a window, a 224 x 224 RGB image in bytes, a 640 x 480 one."""
ROUNDS = 40


class ServingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One transport and size. Times in microseconds.

    Attributes:
        transport: `tcp` or `ipc`.
        size: Of the request's tensor; the reply's is the same.
        requests: Timed requests of each side.
        limpet_p50: Served request, from call to result in the client.
        limpet_p99: The same.
        echo_p50: Raw ZeroMQ echo.
        echo_p99: The same.
        engine_p50: Engine called in process.
        ratio_p50: (limpet_p50 - engine_p50) / echo_p50.
        ratio_p99: limpet_p99 / echo_p99, nothing subtracted: an identity model's own time counts
            against limpet.
    """

    transport: str
    size: str
    requests: int
    limpet_p50: float
    limpet_p99: float
    echo_p50: float
    echo_p99: float
    engine_p50: float
    ratio_p50: float
    ratio_p99: float


def bench_serving(folder: Path, requests: int, progress: Callable[[str], None]) -> list[ServingRow]:
    """Measures every transport and size.

    Args:
        folder: Empty; holds bundle, configuration and sockets while it runs.
        requests: Timed requests of each side for one row, spread over `ROUNDS` turns.
        progress: Told what is being measured.
    """
    bundle = write_identity_bundle(folder / "identity")
    engine = open_engine(read_bundle(bundle.path))
    config = folder / "serve.toml"
    config.write_text(
        "[server]\n"
        'listen = ["tcp://127.0.0.1:0", "ipc://limpet.sock"]\n'
        'publish = ["tcp://127.0.0.1:0"]\n'
        '[[models]]\nbundle = "identity"\n'
    )
    rows = []
    serve = ["limpet.runtime.cli", "serve", str(config)]
    with _process(serve) as listening:
        endpoints = listening.removeprefix("ready ").split()
        for size, values in SIZES.items():
            x = np.random.default_rng(0).normal(size=(1, values)).astype(np.float32)
            frames = encode(messages.Infer(id=1, model="identity"), {"x": x})
            result = messages.Result(
                id=1, model="identity", space_id="identity", engine=engine.name,
                queue_ns=10**5, inference_ns=10**5, total_ns=10**5,
            )  # fmt: skip
            reply_sizes = ",".join(str(len(frame)) for frame in encode(result, {"y": x}))
            sockets = f"tcp://127.0.0.1:0,ipc://{folder / 'echo.sock'}"
            with _process(["limpet.runtime.bench.echo", sockets, reply_sizes]) as echoing:
                for endpoint, echo in zip(endpoints, echoing.split(), strict=True):
                    transport = endpoint.partition("://")[0]
                    progress(f"{size} over {transport}")
                    with RobotClient(endpoint) as robot, _echo_client(echo) as send_echo:
                        limpet, raw, inside = _interleave(
                            [
                                partial(robot.infer, "identity", {"x": x}, timeout_s=10.0),
                                partial(send_echo, frames),
                                partial(engine.run, {"x": x}),
                            ],
                            requests,
                        )
                    rows.append(_row(transport, size, limpet, raw, inside))
    return rows


def _row(
    transport: str, size: str, limpet: Sequence[int], raw: Sequence[int], inside: Sequence[int]
) -> ServingRow:
    limpet_p50, limpet_p99 = np.percentile(limpet, [50, 99]) / 1e3
    echo_p50, echo_p99 = np.percentile(raw, [50, 99]) / 1e3
    engine_p50 = np.percentile(inside, 50) / 1e3
    return ServingRow(
        transport=transport,
        size=size,
        requests=len(limpet),
        limpet_p50=float(limpet_p50),
        limpet_p99=float(limpet_p99),
        echo_p50=float(echo_p50),
        echo_p99=float(echo_p99),
        engine_p50=float(engine_p50),
        ratio_p50=float((limpet_p50 - engine_p50) / echo_p50),
        ratio_p99=float(limpet_p99 / echo_p99),
    )


def _interleave(sides: Sequence[Callable[[], object]], requests: int) -> list[list[int]]:
    """Nanoseconds of each call of each side, in turns; the first turn only warms up."""
    a_turn = max(1, requests // ROUNDS)
    times: list[list[int]] = [[] for _ in sides]
    for turn in range(ROUNDS + 1):
        for side, record in zip(sides, times, strict=True):
            for _ in range(a_turn):
                start = time.perf_counter_ns()
                side()
                took = time.perf_counter_ns() - start
                if turn:
                    record.append(took)
    return times


@contextlib.contextmanager
def _echo_client(endpoint: str) -> Iterator[Callable[[Sequence[Buffer]], object]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(endpoint)

        def send(frames: Sequence[Buffer]) -> object:
            socket.send_multipart(frames, copy=False)
            return socket.recv_multipart(copy=False)

        yield send
        socket.close(linger=0)


@contextlib.contextmanager
def _process(module_and_arguments: Sequence[str]) -> Iterator[str]:
    """Runs a module of ours until the block ends; gives the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module_and_arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise LimpetError(f"{' '.join(module_and_arguments)} ended before it was ready")
        yield line
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
