"""A `Server` in a thread of the test's own process, on free ports, whose engine obeys the test."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import select
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.messages import Reply, Request
from limpet.contracts.stream_messages import OpenStream, Samples
from limpet.contracts.tensors import Tensors
from limpet.runtime.config import DetectorConfig, ModelConfig, ServerConfig, StreamConfig
from limpet.runtime.config import ServerSection as Section
from limpet.runtime.connection import Connection
from limpet.runtime.engines import Engine
from limpet.runtime.run_cost import RunCost
from limpet.runtime.server import Server
from tests.bundles import anomaly_bundle, identity_bundle

CHANNELS = ["speed", "current"]
_SO_ATTACH_FILTER = 26
WARM_UP_ROWS = 7
"""Of `anomaly_bundle` as it comes: a score looks back on eight rows."""
QUICK = DetectorConfig(open_after_rows=2, close_after_rows=3, update_every_rows=5)
PATIENCE_S = 20.0
"""Longest wait for what must happen; far more than it takes."""

Value = TypeVar("Value")


def until(condition: Callable[[], Value], timeout_s: float = PATIENCE_S) -> Value:
    """The first true value of `condition`, asked again and again."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, "what was waited for did not happen"
        time.sleep(0.002)
    return value


class ObedientEngine:
    """Runs another engine; waits while `gate` is closed, raises `failure` where one is set."""

    name = "obedient"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.gate = threading.Event()
        self.gate.set()
        self.failure: BaseException | None = None
        self.replace: Callable[[Tensors], Tensors] = lambda outputs: outputs
        self.runs = 0

    def run(self, inputs: Tensors) -> Tensors:
        self.runs += 1
        assert self.gate.wait(PATIENCE_S)
        if self.failure is not None:
            raise self.failure
        return self.replace(self._engine.run(inputs))


def obedient(server: Server, model: str) -> ObedientEngine:
    """Puts an `ObedientEngine` into a served model, which from then on runs in its worker."""
    served = server._models[model]
    served.engine = engine = ObedientEngine(served.engine)
    served.cost = RunCost(1e8)  # too much for the I/O thread, which a closed gate must never stop
    return engine


def server_config(
    folder: Path,
    *,
    streams: Sequence[StreamConfig] = (StreamConfig(detector=QUICK),),
    queue: int = 256,
    stream_threads: int = 2,
    together: bool = False,
    anomaly: Mapping[str, Any] | None = None,
    more: Sequence[Path] = (),
    **section: Any,
) -> ServerConfig:
    """Serves `identity` and `tiny-anomaly` from `folder`, and what `more` says.

    Args:
        folder: Takes bundles and state; a second server there finds both.
        streams: The `[[streams]]` tables.
        queue: Of both models.
        together: Of both models; without it each request is a run of its own.
        stream_threads: Of both models; with 1, what waits for a stream waits for all.
        anomaly: Options of `anomaly_bundle`.
        more: Bundles to serve as well.
        section: Goes into `[server]`.
    """
    bundles = [folder / "identity", folder / "anomaly"]
    if not bundles[0].exists():
        identity_bundle(bundles[0])
        anomaly_bundle(bundles[1], **(anomaly or {}))
    section = {"heartbeat_s": 0.1, "state_dir": str(folder / "state"), **section}
    return ServerConfig(
        server=Section(
            **{"listen": ("tcp://127.0.0.1:0",), "publish": ("tcp://127.0.0.1:0",), **section}
        ),
        models=[
            ModelConfig(
                bundle=str(path), queue=queue, stream_threads=stream_threads, together=together
            )
            for path in (*bundles, *more)
        ],
        streams=tuple(streams),
    )


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Runs a server in a thread; at the end it must stop in good order."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            server.run()
        except BaseException as error:
            errors.append(error)
            raise

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "the server does not stop"
        assert not errors


@contextlib.contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Server]:
    """A running server; `options` are those of `server_config`."""
    with running(Server(server_config(folder, **options))) as server:
        yield server


class RawStream(Connection):
    """Speaks the protocol of a sensor node without doing anything by itself."""

    def __init__(
        self, endpoint: str, stream: str = "pump", session: str = "s1", **options: Any
    ) -> None:
        super().__init__(endpoint, stream)
        self.stream, self.session = stream, session
        self.opened = self.ask(self.opening(**options))

    def opening(self, channels: Sequence[str] = CHANNELS, **options: Any) -> OpenStream:
        return OpenStream(
            id=self.next_id(),
            stream=self.stream,
            session=self.session,
            channels=list(channels),
            **options,
        )

    def samples(self, sequence: int, **options: Any) -> Samples:
        fields = {"first_time_ns": 10**18 + sequence * 10**8, "rate_hz": 10.0, **options}
        return Samples(
            id=self.next_id(),
            stream=self.stream,
            session=self.session,
            sequence=sequence,
            **fields,
        )

    def tell(self, request: Request, tensors: Tensors | None = None) -> None:
        self.send(request, tensors, time.monotonic() + PATIENCE_S)

    def hear(self) -> tuple[Reply, Tensors]:
        answer = self.receive(time.monotonic() + PATIENCE_S)
        assert answer is not None, "the server does not answer"
        return answer

    def ask(self, request: Request) -> Reply:
        self.tell(request)
        reply, _ = self.hear()
        assert reply.id == request.id
        return reply

    def push(
        self, sequence: int, values: NDArray[Any], **options: Any
    ) -> tuple[Reply, NDArray[np.float32], NDArray[np.uint8]]:
        """Sends rows and waits; reply, scores and states, the last two empty where refused."""
        request = self.samples(sequence, **options)
        self.tell(request, {"values": np.asarray(values)})
        reply, tensors = self.hear()
        assert reply.id == request.id
        nothing = np.empty(0)
        return reply, tensors.get("scores", nothing), tensors.get("states", nothing)

    def __enter__(self) -> RawStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unacknowledged_bytes(connection: socket.socket) -> int:
    """What a connection has sent or is to send (`man 7 tcp`, SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


class Proxy:
    """Forwards TCP connections to a server, so that a test can break the network between.

    `cut` ends the connections that are there, as a broken link does; those that follow work.
    While it is `frozen`, bytes stay where they are and nobody is told. To `vanish`, its end of the
    connections that are there no longer answers TCP itself, as a machine without power.
    """

    def __init__(self, endpoint: str) -> None:
        self._target = int(endpoint.rpartition(":")[2])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._peers: dict[socket.socket, socket.socket] = {}
        self.frozen: frozenset[socket.socket] = frozenset()
        self._closing = False
        self._thread = threading.Thread(target=self._forward, name="proxy")
        self._thread.start()

    def cut(self) -> None:
        with self._lock:
            for each in self._peers:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Leaves the connections that are there silent for ever."""
        with self._lock:
            self.frozen |= frozenset(self._peers)

    def vanish(self) -> None:
        """Drops all that comes over the connections that are there: a filter of one instruction,
        `return 0` bytes (Linux, `man 7 socket`, SO_ATTACH_FILTER).
        """
        self.freeze()
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
        program = struct.pack("HP", 1, ctypes.addressof(instruction))
        for each in self.frozen:
            # Else it would send again what is not acknowledged, and so give signs of life.
            until(lambda each=each: not unacknowledged_bytes(each))
            each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def _forward(self) -> None:
        while not self._closing:
            with self._lock:
                waiting = [self._listener, *(p for p in self._peers if p not in self.frozen)]
            for source in select.select(waiting, [], [], 0.005)[0]:
                if source is self._listener:
                    self._accept()
                elif source in self._peers:
                    self._pass_on(source)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            near.close()
            return
        with self._lock:
            self._peers |= {near: far, far: near}

    def _pass_on(self, source: socket.socket) -> None:
        try:
            if data := source.recv(1 << 16):
                self._peers[source].sendall(data)
                return
        except OSError:
            pass
        with self._lock:
            for each in (source, self._peers[source]):
                del self._peers[each]
                each.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._thread.join()
        for each in (self._listener, *self._peers):
            each.close()
