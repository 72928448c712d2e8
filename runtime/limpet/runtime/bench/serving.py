"""What a request costs beside its inference, against a raw ZeroMQ echo of the same bytes.

Three sides take turns within one run, so that a change of the machine's speed meets all of them:
the served model, a raw echo in a process of its own with the same frames, and the same engine
called in this process.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import zmq

from limpet.contracts import messages
from limpet.contracts.bundle import read_bundle
from limpet.contracts.wire import Buffer, encode
from limpet.runtime.bench.identity import write_identity_bundle
from limpet.runtime.bench.processes import running
from limpet.runtime.client import RobotClient
from limpet.runtime.engines import open_engine

SIZES = {"4 KB": 1024, "150 KB": 37_632, "0.9 MB": 230_400, "2.7 MB": 691_200}
"""float32 values of a request: a window; RGB images in bytes, 224 x 224, 640 x 480, 1280 x 720."""
LANE = "lane"
ROUNDS = 40


class ServingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One transport and size. Times in microseconds.

    Attributes:
        transport: `tcp`, `ipc`, or `lane`: the same-host lane, beside the quicker of both echoes.
        size: Of the request's tensor; the reply's is the same.
        requests: Timed requests of each side.
        limpet_p50: Served request, from call to result in the client.
        limpet_p99: The same.
        limpet_p999: The same.
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
    limpet_p999: float
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
    with running(serve) as server:
        for size, values in SIZES.items():
            progress(size)
            x = np.random.default_rng(0).normal(size=(1, values)).astype(np.float32)
            frames = encode(messages.Infer(id=1, model="identity"), {"x": x})
            result = messages.Result(
                id=1, model="identity", space_id="identity", engine=engine.name,
                queue_ns=10**5, inference_ns=10**5, total_ns=10**5,
            )  # fmt: skip
            reply_sizes = ",".join(str(len(frame)) for frame in encode(result, {"y": x}))
            sockets = f"tcp://127.0.0.1:0,ipc://{folder / 'echo.sock'}"
            echo_server = ["limpet.runtime.bench.echo", sockets, reply_sizes]
            with contextlib.ExitStack() as stack:
                echo = stack.enter_context(running(echo_server))
                sides: dict[str, Callable[[], object]] = {}
                for endpoint, echo_endpoint in zip(server.endpoints, echo.endpoints, strict=True):
                    transport = endpoint.partition("://")[0]
                    robot = stack.enter_context(RobotClient(endpoint, lane=False))
                    sides[transport] = partial(robot.infer, "identity", {"x": x}, timeout_s=10.0)
                    send_echo = stack.enter_context(_echo_client(echo_endpoint))
                    sides[f"echo {transport}"] = partial(send_echo, frames)
                robot = stack.enter_context(RobotClient(server.endpoints[0]))
                sides[LANE] = partial(robot.infer, "identity", {"x": x}, timeout_s=10.0)
                sides["engine"] = partial(engine.run, {"x": x})
                times = dict(zip(sides, _interleave([*sides.values()], requests), strict=True))
                if not robot.has_lane:
                    del times[LANE]  # this system has none
            rows += _rows(size, times)
    return rows


def _rows(size: str, times: Mapping[str, Sequence[int]]) -> list[ServingRow]:
    """One row a transport, from the nanoseconds of each side."""
    echoes = {name.removeprefix("echo "): t for name, t in times.items() if name[:5] == "echo "}
    echoes[LANE] = min(echoes.values(), key=np.median)
    return [
        _row(name, size, times[name], echo, times["engine"])
        for name, echo in echoes.items()
        if name in times
    ]


def _row(
    transport: str, size: str, limpet: Sequence[int], raw: Sequence[int], inside: Sequence[int]
) -> ServingRow:
    limpet_p50, limpet_p99, limpet_p999 = np.percentile(limpet, [50, 99, 99.9]) / 1e3
    echo_p50, echo_p99 = np.percentile(raw, [50, 99]) / 1e3
    engine_p50 = np.percentile(inside, 50) / 1e3
    return ServingRow(
        transport=transport,
        size=size,
        requests=len(limpet),
        limpet_p50=float(limpet_p50),
        limpet_p99=float(limpet_p99),
        limpet_p999=float(limpet_p999),
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
