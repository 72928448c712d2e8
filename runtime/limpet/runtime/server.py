"""The server: one I/O thread with a ROUTER for requests and streams and an XPUB for alerts and
heartbeats, one worker thread a model.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import zmq

from limpet.contracts import messages
from limpet.contracts.clock import Clock
from limpet.contracts.errors import (
    LimpetError,
    RejectCode,
    RejectedError,
    TensorError,
    VersionError,
    WireError,
)
from limpet.contracts.messages import Alert, Reply, Request
from limpet.contracts.tensors import Tensors
from limpet.contracts.wire import Buffer, decode_request, encode, peek_id
from limpet.runtime.alert_log import AlertLog
from limpet.runtime.config import ServerConfig
from limpet.runtime.frames import receive_frames, send_frames
from limpet.runtime.metrics import Metrics
from limpet.runtime.models import ServedModel, load_models
from limpet.runtime.scheduler import Mailbox, ModelWorker
from limpet.runtime.streams import CREDITS, Stream, StreamTable

log = logging.getLogger(__name__)

MESSAGES_PER_POLL = 64
"""Messages read before workers' results get their turn."""
DRAIN_TURN_S = 0.005
"""Longest sleep while workers finish: no socket says when a thread has ended."""
GREETING_S = 0.05
"""A new subscriber gets a heartbeat within this time; many of them share one."""
MAX_REASON_CHARS = 1000
"""Longest text in a refusal, which may quote what a node sent."""
HANDSHAKE_S = 5.0
"""Longest time from a connection to the end of its ZMTP handshake."""
MAX_SUBSCRIPTION_BYTES = 4096
"""Largest message that a subscriber may send."""
FUTURE_NS = 250_000_000
"""How far ahead of the server's clock a capture time may lie before it must be a mistake."""

Respond = Callable[[Reply, Tensors | None], None]
ServerState = Literal["serving", "stopping"]


class Server:
    """Loads models, binds, and serves until `stop`.

    Args:
        config: A configuration as `load_config` returned it.

    Raises:
        LimpetError: A model, the alert log or an endpoint cannot be had.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._clock, self._metrics = Clock(), Metrics()
        self._started_s, self._version = time.monotonic(), version("limpet")
        self._stop_requested = False
        self._io_thread = threading.get_ident()
        self._models = load_models(config.models)
        with contextlib.ExitStack() as opened:  # closed again where something fails
            # Not a pipe: a worker that outlives the server must not write to a reused descriptor.
            self._wake_read, self._wake_write = map(opened.enter_context, socket.socketpair())
            self._wake_read.setblocking(False)
            self._wake_write.setblocking(False)
            self._mailbox = Mailbox(self.wake)
            alerts_db = Path(config.server.state_dir) / "alerts.db"
            self._log = AlertLog(alerts_db, self._publish_alerts)
            opened.callback(self._log.close)
            self._streams = StreamTable(
                config.streams, self._models, self._log, self._clock, config.server.max_streams
            )
            self._context = zmq.Context()
            opened.callback(self._context.destroy, linger=0)
            self._router = self._socket(zmq.ROUTER, config.server.max_message_mb << 20)
            self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a lost reply is counted, not silent
            self._xpub = self._socket(zmq.XPUB, MAX_SUBSCRIPTION_BYTES)
            self._xpub.setsockopt(zmq.XPUB_VERBOSE, 1)  # tells of every subscriber
            self.listening = [_bind(self._router, e) for e in config.server.listen]
            self.publishing = [_bind(self._xpub, e) for e in config.server.publish]
            self._opened = opened.pop_all()
        self._workers = {
            name: ModelWorker(name, model.config.queue) for name, model in self._models.items()
        }
        self._handlers: dict[type[Request], Callable[..., None]] = {
            messages.Hello: self._hello,
            messages.Ping: self._ping,
            messages.Infer: self._infer,
            messages.OpenStream: self._open_stream,
            messages.Samples: self._samples,
            messages.CloseStream: self._close_stream,
            messages.GetAlerts: self._get_alerts,
            messages.GetStatus: self._get_status,
        }

    def _socket(self, kind: int, max_bytes: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
        socket.setsockopt(zmq.LINGER, 1000)
        # A peer that does not read, or floods, holds at most this much of our memory.
        socket.setsockopt(zmq.SNDHWM, 256)
        socket.setsockopt(zmq.RCVHWM, 64)
        socket.setsockopt(zmq.HANDSHAKE_IVL, round(HANDSHAKE_S * 1000))
        socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10000)
        return socket

    # The I/O thread -----------------------------------------------------------------------------

    def run(self) -> bool:
        """Serves until `stop` is called, then finishes what was accepted.

        Returns:
            Whether it did. Where a model took longer than `drain_s`, its thread is still inside the
            engine, and Python ends in an abort if it takes the usual way out meanwhile.
        """
        self._io_thread = threading.get_ident()
        self._turn_while(lambda: not self._stop_requested, "serving", math.inf)
        deadline_s = time.monotonic() + self._config.server.drain_s
        self._turn_while(lambda: self._has_work(deadline_s), "stopping", DRAIN_TURN_S)
        return self._shut_down()

    def _turn_while(
        self, wanted: Callable[[], bool], state: ServerState, longest_sleep_s: float
    ) -> None:
        poller, wake = zmq.Poller(), self._wake_read.fileno()
        for source in (self._router, self._xpub, wake):
            poller.register(source, zmq.POLLIN)
        heartbeat_s = self._config.server.heartbeat_s
        next_heartbeat_s = time.monotonic()
        while wanted():
            now_s = time.monotonic()
            if now_s >= next_heartbeat_s:
                self._publish_heartbeat(state)
                # After a stall the beat starts anew instead of catching up.
                next_heartbeat_s = max(next_heartbeat_s + heartbeat_s, now_s)
            sleep_s = min(max(0.0, next_heartbeat_s - now_s), longest_sleep_s)
            events = dict(poller.poll(math.ceil(sleep_s * 1000)))
            if wake in events:
                self._clear_wake()
                self._mailbox.run()
            if self._router in events:
                self._read_requests(MESSAGES_PER_POLL)
            if self._xpub in events:
                self._xpub.recv_multipart()  # a subscription came or went
                next_heartbeat_s = min(next_heartbeat_s, now_s + GREETING_S)

    def _has_work(self, deadline_s: float) -> bool:
        """Whether a worker still runs and may; from the first call on they finish and end."""
        ended = [worker.stop(0.0) for worker in self._workers.values()]
        return not all(ended) and time.monotonic() < deadline_s

    def stop(self) -> None:
        """Makes `run` return; from any thread or a signal handler."""
        self._stop_requested = True
        self.wake()

    def wake(self) -> None:
        """Makes the poll return."""
        with contextlib.suppress(OSError):  # a full buffer wakes as well; at the end none listens
            self._wake_write.send(b"\0")

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass

    def _read_requests(self, limit: int) -> None:
        for _ in range(limit):
            try:
                identity, *frames = receive_frames(self._router)
            except zmq.Again:
                return
            self._handle(identity.bytes, [frame.buffer for frame in frames])

    def _handle(self, identity: bytes, frames: Sequence[Buffer]) -> None:
        arrived_ns = time.monotonic_ns()
        respond = functools.partial(self._respond, identity)
        try:
            request, tensors = decode_request(frames)
        except WireError as error:
            self._metrics.count("dropped.malformed")
            code: RejectCode = "version" if isinstance(error, VersionError) else "malformed"
            self._reject(respond, peek_id(frames), RejectedError(code, error.message, error.hint))
            return
        self._metrics.count(f"requests.{type(request).__name__}")
        try:
            if self._stop_requested:
                raise RejectedError("stopping", "the server is shutting down", "try again later")
            self._handlers[type(request)](request, tensors, respond, arrived_ns, identity)
        except RejectedError as error:
            self._reject(respond, request.id, error)
        except Exception as error:  # noqa: BLE001 (as in `_run_infer`)
            self._fail(respond, request.id, error)

    def _reject(self, respond: Respond, request_id: int, error: RejectedError) -> None:
        self._metrics.count(f"rejected.{error.code}")
        respond(
            messages.Rejected(
                id=request_id,
                code=error.code,
                reason=error.reason[:MAX_REASON_CHARS],
                hint=error.hint[:MAX_REASON_CHARS],
            ),
            None,
        )

    def _respond(self, identity: bytes, reply: Reply, tensors: Tensors | None) -> None:
        """Sends a reply; from a worker thread through the mailbox."""
        frames = encode(reply, tensors)
        if threading.get_ident() == self._io_thread:
            self._send(identity, frames)
        else:
            self._mailbox.put(functools.partial(self._send, identity, frames))

    def _send(self, identity: bytes, frames: Sequence[Buffer]) -> None:
        try:
            send_frames(self._router, [identity, *frames])
        except zmq.Again:
            self._metrics.count("dropped.reply_peer_does_not_read")
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._metrics.count("dropped.reply_peer_gone")

    # Handlers: each answers, raises RejectedError, or submits a job that answers ------------------

    def _hello(self, request: messages.Hello, _: Tensors, respond: Respond, *__: object) -> None:
        respond(
            messages.Welcome(
                id=request.id,
                server=self._config.server.name,
                limpet=self._version,
                alerts=self.publishing,
                models=[model.info() for model in self._models.values()],
            ),
            None,
        )

    def _ping(self, request: messages.Ping, _: Tensors, respond: Respond, *__: object) -> None:
        respond(
            messages.Pong(
                id=request.id,
                client_time_ns=request.client_time_ns,
                server_time_ns=self._clock.now_ns(),
            ),
            None,
        )

    def _infer(
        self,
        request: messages.Infer,
        inputs: Tensors,
        respond: Respond,
        arrived_ns: int,
        identity: bytes,
    ) -> None:
        model = self._models.get(request.model)
        if model is None:
            raise RejectedError(
                "unknown_model",
                f"no model {request.model!r}",
                f"served: {', '.join(self._models)}",
            )
        try:
            batch = model.check_request(inputs)
        except TensorError as error:
            raise RejectedError("bad_input", error.message, error.hint) from error
        if request.capture_time_ns is None:
            request.capture_time_ns = self._clock.now_ns()
        elif request.capture_time_ns > self._clock.now_ns() + FUTURE_NS:
            raise RejectedError(
                "bad_input", "captured in the future", "measure the clock offset with Ping"
            )
        replaced = messages.Stale(id=request.id, stage="replaced")
        accepted = self._workers[model.name].submit(
            functools.partial(self._run_infer, model, request, inputs, respond, arrived_ns),
            priority=request.priority,
            cost_ns=model.cost_ns * batch,
            key=(identity, request.replaces) if request.replaces else None,
            on_replaced=functools.partial(self._drop_stale, replaced, respond),
        )
        if not accepted:
            raise RejectedError(
                "overloaded",
                f"{model.config.queue} requests wait for model {model.name!r}",
                "send less often, or ask for the newest only with `replaces`",
            )

    def _run_infer(
        self,
        model: ServedModel,
        request: messages.Infer,
        inputs: Tensors,
        respond: Respond,
        arrived_ns: int,
    ) -> None:
        try:
            started_ns = time.monotonic_ns()
            if (stale := self._stale(request, "queue")) is not None:
                return self._drop_stale(stale, respond)
            outputs = model.infer(inputs)
            finished_ns = time.monotonic_ns()
            if (stale := self._stale(request, "reply")) is not None:
                return self._drop_stale(stale, respond)
            respond(
                messages.Result(
                    id=request.id,
                    model=model.name,
                    space_id=model.manifest.space_id,
                    engine=model.engine.name,
                    queue_ns=started_ns - arrived_ns,
                    inference_ns=finished_ns - started_ns,
                    total_ns=finished_ns - arrived_ns,
                ),
                outputs,
            )
            self._metrics.record(model.name, finished_ns - arrived_ns)
        except TensorError as error:
            self._reject(respond, request.id, RejectedError("bad_input", error.message, error.hint))
        except BaseException as error:  # noqa: BLE001 (answered and logged; a worker must not end)
            self._fail(respond, request.id, error)

    def _stale(self, request: messages.Infer, stage: Any) -> messages.Stale | None:
        if request.max_age_ns is None or request.capture_time_ns is None:
            return None
        age_ns = max(0, self._clock.now_ns() - request.capture_time_ns)
        if age_ns <= request.max_age_ns:
            return None
        return messages.Stale(
            id=request.id, stage=stage, age_ns=age_ns, max_age_ns=request.max_age_ns
        )

    def _drop_stale(self, stale: messages.Stale, respond: Respond) -> None:
        self._metrics.count(f"dropped.stale_{stale.stage}")
        respond(stale, None)

    def _fail(self, respond: Respond, request_id: int, error: BaseException) -> None:
        """What was accepted failed: the node gets one line, the log the traceback."""
        log.error("request %d failed", request_id, exc_info=error)
        self._metrics.count("dropped.failed")
        reason = error.message if isinstance(error, LimpetError) else "internal error, see the log"
        respond(messages.Failed(id=request_id, reason=reason[:MAX_REASON_CHARS]), None)

    def _open_stream(
        self,
        request: messages.OpenStream,
        _: Tensors,
        respond: Respond,
        __: int,
        identity: bytes,
    ) -> None:
        stream = self._streams.open(request, identity)
        self._submit_stream(stream, request.id, respond, lambda: (stream.open(request), None))

    def _samples(
        self,
        request: messages.Samples,
        tensors: Tensors,
        respond: Respond,
        _: int,
        identity: bytes,
    ) -> None:
        stream = self._streams.get(request.stream, request.session, identity)
        if set(tensors) != {"values"}:
            raise RejectedError("bad_input", f"wanted tensor 'values', found {sorted(tensors)}")
        if stream.pending >= CREDITS:
            raise RejectedError(
                "no_credit",
                f"{CREDITS} samples of stream {stream.name!r} wait",
                "wait for their scores",
            )
        values = tensors["values"]
        self._submit_stream(stream, request.id, respond, lambda: stream.push(request, values))

    def _close_stream(
        self,
        request: messages.CloseStream,
        _: Tensors,
        respond: Respond,
        __: int,
        identity: bytes,
    ) -> None:
        stream = self._streams.get(request.stream, request.session, identity)

        def close() -> tuple[Reply, None]:
            self._mailbox.put(functools.partial(self._streams.remove, stream))
            closed = messages.StreamClosed(
                id=request.id, stream=stream.name, next_sequence=stream.next_sequence
            )
            return closed, None

        self._submit_stream(stream, request.id, respond, close)

    def _submit_stream(
        self,
        stream: Stream,
        request_id: int,
        respond: Respond,
        work: Callable[[], tuple[Reply, Tensors | None]],
    ) -> None:
        """Queues a stream's message behind those that came before it."""

        def settle(reply: Reply, tensors: Tensors | None) -> None:
            # Before the reply: whoever reads it may use the credit at once.
            self._mailbox.put(functools.partial(_finish, stream))
            respond(reply, tensors)

        def job() -> None:
            try:
                settle(*work())
            except RejectedError as error:
                self._reject(settle, request_id, error)
            except BaseException as error:  # noqa: BLE001 (as in `_run_infer`)
                self._fail(settle, request_id, error)

        if not self._workers[stream.model.name].submit(job):
            stream.peer = b""  # else rows that follow would be taken, and these come late
            raise RejectedError(
                "overloaded",
                f"model {stream.model.name!r} has a full queue",
                "open the stream again and go on with these rows",
            )
        stream.pending += 1

    def _get_alerts(
        self, request: messages.GetAlerts, _: Tensors, respond: Respond, *__: object
    ) -> None:
        last = self._log.last
        alerts = self._log.since(request.since, request.limit)
        respond(
            messages.AlertPage(id=request.id, log_id=self._log.log_id, alerts=alerts, last=last),
            None,
        )

    def _get_status(
        self, request: messages.GetStatus, _: Tensors, respond: Respond, *__: object
    ) -> None:
        respond(
            messages.Status(
                id=request.id,
                server=self._config.server.name,
                uptime_s=time.monotonic() - self._started_s,
                counters=self._metrics.counters(),
                streams={s.name: {**dict(s.counts), "state": s.state} for s in self._streams},
                models={
                    name: {
                        "engine": model.engine.name,
                        "waiting": self._workers[name].waiting,
                        **self._metrics.latency_ms(name),
                    }
                    for name, model in self._models.items()
                },
            ),
            None,
        )

    # Publishing ---------------------------------------------------------------------------------

    def _publish_alerts(self, alerts: Sequence[Alert]) -> None:
        """Called by the log, in a worker thread, before the rows are acknowledged."""
        self._metrics.count("alerts", len(alerts))
        for alert in alerts:
            self._mailbox.put(functools.partial(self._publish, messages.ALERT_TOPIC, encode(alert)))

    def _publish(self, topic: bytes, frames: Sequence[Buffer]) -> None:
        self._xpub.send_multipart([topic, *frames])  # XPUB drops for a subscriber that is full

    def _publish_heartbeat(self, state: ServerState) -> None:
        heartbeat = messages.Heartbeat(
            server=self._config.server.name,
            log_id=self._log.log_id,
            state=state,
            time_ns=self._clock.now_ns(),
            interval_s=self._config.server.heartbeat_s,
            last_alert=self._log.last,
            engines={name: model.engine.name for name, model in self._models.items()},
            streams={stream.name: stream.state for stream in self._streams},
            dropped=self._metrics.counters("dropped."),
        )
        self._publish(messages.HEARTBEAT_TOPIC, encode(heartbeat))

    # The end --------------------------------------------------------------------------------------

    def _shut_down(self) -> bool:
        """Answers what nobody will work on with `stopping`, closes everything."""
        late = {n: w.waiting for n, w in self._workers.items() if not w.stop(0.0)}
        for name, waiting in late.items():
            log.error("model %s did not finish in time, %d requests wait", name, waiting)
        self._mailbox.run()
        self._read_requests(10_000)
        self._publish_heartbeat("stopping")
        self._router.close()
        self._xpub.close()
        self._context.term()
        self._opened.close()
        return not late


def _finish(stream: Stream) -> None:
    stream.pending -= 1


def _bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Binds and returns the endpoint with the port that was taken."""
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise LimpetError(
            f"cannot bind {endpoint}: {error.strerror}",
            "is another server running? change the endpoint in the configuration, or stop it",
        ) from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)
