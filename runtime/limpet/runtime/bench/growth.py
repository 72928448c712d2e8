"""Whether a request costs more where many clients are connected, many streams are registered, or
many requests were served before.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.errors import LimpetError
from limpet.contracts.messages import Hello, Request
from limpet.contracts.stream_messages import CloseStream, OpenStream, StreamClosed, StreamOpened
from limpet.contracts.tensors import Tensors
from limpet.contracts.wire import decode_reply, encode
from limpet.runtime.bench.load import percentiles_of, run_closed
from limpet.runtime.bench.processes import running
from limpet.runtime.bench.stream_bundle import CHANNELS, write_stream_bundle
from limpet.runtime.client import RobotClient
from limpet.runtime.frames import receive_frames, send_frames

COUNTS = (10, 100, 1000)
"""Clients that are connected, streams that are registered."""
SERVED = (1_000, 10_000, 100_000)
"""Requests that were served before, where the machine manages that in time."""
ROUNDS = 2
FILL = 20
"""Times the length of a measurement, to serve what a row wants served before: at most."""
BUSY_CLIENTS = 16
PATIENCE_MS = 20_000
SPARE_FILES = 200
"""Of a process beside its connections' descriptors."""

Of = Literal["clients", "streams", "requests"]


class GrowthRow(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one client to an identity model, one after another, 4 KB.

    Attributes:
        of: What there is much of: `clients` connected that do nothing, `streams` registered, or
            `requests` served since the start.
        count: How much.
        requests: How many were timed.
        p50_ms: Latency.
        p99_ms: The same.
    """

    of: Of
    count: int
    requests: int
    p50_ms: float
    p99_ms: float


def bench_growth(
    folder: Path, inputs: Tensors, seconds: float, progress: Callable[[str], None]
) -> list[GrowthRow]:
    """Measures a server of its own.

    Args:
        folder: Has `identity`; the rest is put there.
        inputs: Of the requests.
        seconds: Of one measurement.
        progress: Told what is being measured.
    """
    write_stream_bundle(folder / "stream")
    config = folder / "growth.toml"
    config.write_text(
        '[server]\nlisten = ["tcp://127.0.0.1:0"]\npublish = ["tcp://127.0.0.1:0"]\n'
        f"state_dir = {json.dumps(str(folder / 'state'))}\n"
        + "".join(f"[[models]]\nbundle = {json.dumps(name)}\n" for name in ("identity", "stream")),
        encoding="utf-8",
    )
    most = _raise_file_limit()
    counts = [count for count in COUNTS if count + SPARE_FILES <= most]
    with running(["limpet.runtime.cli", "serve", str(config)]) as started:
        endpoint = started.endpoints[0]

        def latencies() -> NDArray[np.float64]:
            return run_closed(endpoint, "identity", inputs, 1, seconds).latency_ms

        rows = []
        for served in SERVED:
            progress(f"a request after {served:,} others")
            count = _serve_until(endpoint, inputs, served, FILL * seconds)
            rows.append(_row("requests", count, [latencies()]))
        # In rounds, so that what the machine does meanwhile is not taken for growth.
        taken: dict[tuple[Of, int], list[NDArray[np.float64]]] = {}
        for number in range(ROUNDS):
            for count in counts if number % 2 == 0 else reversed(counts):
                progress(f"a request beside {count} connected clients")
                with _clients(endpoint, count):
                    taken.setdefault(("clients", count), []).append(latencies())
                progress(f"a request beside {count} registered streams")
                with _streams(endpoint, count):
                    taken.setdefault(("streams", count), []).append(latencies())
    return [*(_row(of, count, parts) for (of, count), parts in sorted(taken.items())), *rows]


def _row(of: Of, count: int, parts: Sequence[NDArray[np.float64]]) -> GrowthRow:
    whole = np.concatenate(parts)
    percentiles = percentiles_of(whole)
    return GrowthRow(
        of=of,
        count=count,
        requests=len(whole),
        p50_ms=percentiles["p50_ms"],
        p99_ms=percentiles["p99_ms"],
    )


def _serve_until(endpoint: str, inputs: Tensors, served: int, longest_s: float) -> int:
    """Has the server answer until it has answered so many, or for so long; how many it has."""
    end_s = time.monotonic() + longest_s
    with RobotClient(endpoint, "bench", lane=False) as asks:
        while True:
            found = asks.status().counters.get("requests.Infer", 0)
            if found >= served or time.monotonic() > end_s:
                return found
            run_closed(endpoint, "identity", inputs, BUSY_CLIENTS, longest_s / 50)


@contextlib.contextmanager
def _clients(endpoint: str, count: int) -> Iterator[None]:
    """So many clients that have said hello and ask for nothing."""
    with zmq.Context() as context:
        context.set(zmq.MAX_SOCKETS, count + SPARE_FILES)
        with contextlib.ExitStack() as opened:
            sockets = []
            for number in range(count):
                sockets.append(opened.enter_context(context.socket(zmq.DEALER)))
                sockets[-1].setsockopt(zmq.LINGER, 0)
                sockets[-1].connect(endpoint)
                send_frames(sockets[-1], encode(Hello(id=1, client=f"idle-{number}")))
            for each in sockets:
                _expect(each, messages.Welcome)
            yield


@contextlib.contextmanager
def _streams(endpoint: str, count: int) -> Iterator[None]:
    """So many streams that nobody sends to."""
    names = [f"idle-{number}" for number in range(count)]
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)

        def ask(request: Request, wanted: type[messages.Reply]) -> None:
            send_frames(socket, encode(request))
            _expect(socket, wanted)

        for name in names:
            ask(
                OpenStream(id=1, stream=name, session="bench", channels=list(CHANNELS)),
                StreamOpened,
            )
        yield
        for name in names:
            ask(CloseStream(id=1, stream=name, session="bench"), StreamClosed)


def _expect(socket: zmq.Socket[bytes], wanted: type[messages.Reply]) -> None:
    if not socket.poll(PATIENCE_MS):
        raise LimpetError(f"no {wanted.__name__} within {PATIENCE_MS / 1000:g} s")
    reply, _ = decode_reply(receive_frames(socket))
    if not isinstance(reply, wanted):
        raise LimpetError(f"{reply}, wanted a {wanted.__name__}")


def _raise_file_limit() -> int:
    """Lets this process and the server that it starts have as many files as the system allows."""
    try:
        import resource
    except ImportError:  # not a system with descriptors
        return max(COUNTS) + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(COUNTS) + SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(COUNTS) + SPARE_FILES if soft == resource.RLIM_INFINITY else soft
