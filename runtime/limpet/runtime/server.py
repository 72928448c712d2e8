"""The server: one I/O thread with a ROUTER for requests and streams and an XPUB for alerts and
heartbeats, one worker thread a model.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
from limpet.runtime.metrics import Metrics
from limpet.runtime.models import ServedModel, load_models
from limpet.runtime.scheduler import Mailbox, ModelWorker
from limpet.runtime.streams import CREDITS, Stream, StreamTable

log = logging.getLogger(__name__)

MESSAGES_PER_POLL = 64
"""Messages read before workers' results get their turn."""
FUTURE_NS = 250_000_000
"""How far ahead of the server's clock a capture time may lie before it must be a mistake."""

Respond = Callable[[Reply, Tensors | None], None]


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
        self._started_s = time.monotonic()
        self._stop_requested = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._mailbox = Mailbox(self.wake)
        self._io_thread = threading.get_ident()
        self._models = load_models(config.models)
        self._log = AlertLog(Path(config.server.state_dir) / "alerts.db", self._publish_alerts)
        self._streams = StreamTable(
            config.streams, self._models, self._log, self._clock, config.server.max_streams
        )
        self._context = zmq.Context()
        self._router = self._socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a lost reply is counted, not silent
        self._router.setsockopt(zmq.MAXMSGSIZE, config.server.max_message_mb << 20)
        self._xpub = self._socket(zmq.XPUB)
        try:
            self.listening = [_bind(self._router, e) for e in config.server.listen]
            self.publishing = [_bind(self._xpub, e) for e in config.server.publish]
        except LimpetError:
            self._context.destroy(linger=0)
            self._log.close()
            raise
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

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 1000)
        # A peer that does not read, or floods, holds at most this much of our memory.
        socket.setsockopt(zmq.SNDHWM, 256)
        socket.setsockopt(zmq.RCVHWM, 64)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10000)
        return socket

    # The I/O thread -----------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until `stop` is called, then finishes what was accepted."""
        self._io_thread = threading.get_ident()
        poller = zmq.Poller()
        for socket in (self._router, self._xpub, self._wake_read):
            poller.register(socket, zmq.POLLIN)
        heartbeat_s = self._config.server.heartbeat_s
        next_heartbeat_s = time.monotonic()
        while not self._stop_requested:
            now_s = time.monotonic()
            if now_s >= next_heartbeat_s:
                self._publish_heartbeat("serving")
                # After a stall the beat starts anew instead of catching up.
                next_heartbeat_s = max(next_heartbeat_s + heartbeat_s, now_s)
            events = dict(poller.poll(math.ceil(max(0.0, next_heartbeat_s - now_s) * 1000)))
            if self._wake_read in events:
                self._clear_wake()
                self._mailbox.run()
            if self._router in events:
                self._read_requests(MESSAGES_PER_POLL)
            if self._xpub in events:
                self._xpub.recv_multipart()  # a subscription came or went
        self._shut_down()

    def stop(self) -> None:
        """Makes `run` return; from any thread or a signal handler."""
        self._stop_requested = True
        self.wake()

    def wake(self) -> None:
        """Makes the poll return."""
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_write, b"\0")

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass

    def _read_requests(self, limit: int) -> None:
        for _ in range(limit):
            try:
                identity, *frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
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
        except Exception:
            log.exception("handling %s failed", type(request).__name__)
            self._metrics.count("dropped.internal_error")
            respond(messages.Failed(id=request.id, reason="internal error, see the log"), None)

    def _reject(self, respond: Respond, request_id: int, error: RejectedError) -> None:
        self._metrics.count(f"rejected.{error.code}")
        respond(
            messages.Rejected(id=request_id, code=error.code, reason=error.reason, hint=error.hint),
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
            self._router.send_multipart([identity, *frames], zmq.NOBLOCK, copy=False)
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
                limpet=version("limpet"),
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
        except Exception as error:  # noqa: BLE001 (answered here, logged with its traceback)
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

    def _fail(self, respond: Respond, request_id: int, error: Exception) -> None:
        """A worker's job failed: the node gets one line, the log the traceback."""
        log.error("request %d failed", request_id, exc_info=error)
        self._metrics.count("dropped.failed")
        reason = error.message if isinstance(error, LimpetError) else "internal error, see the log"
        respond(messages.Failed(id=request_id, reason=reason), None)

    def _open_stream(
        self, request: messages.OpenStream, _: Tensors, respond: Respond, *__: object
    ) -> None:
        stream = self._streams.open(request)
        self._submit_stream(stream, request.id, respond, lambda: (stream.open(request), None))

    def _samples(
        self, request: messages.Samples, tensors: Tensors, respond: Respond, *_: object
    ) -> None:
        stream = self._streams.get(request.stream, request.session)
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
        self, request: messages.CloseStream, _: Tensors, respond: Respond, *__: object
    ) -> None:
        stream = self._streams.get(request.stream, request.session)

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

        def job() -> None:
            try:
                reply, tensors = work()
                respond(reply, tensors)
            except RejectedError as error:
                self._reject(respond, request_id, error)
            except Exception as error:  # noqa: BLE001 (as in `_run_infer`)
                self._fail(respond, request_id, error)
            finally:
                self._mailbox.put(functools.partial(_finish, stream))

        if not self._workers[stream.model.name].submit(job):
            raise RejectedError("overloaded", f"model {stream.model.name!r} has a full queue")
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

    def _publish_heartbeat(self, state: Any) -> None:
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

    def _shut_down(self) -> None:
        """Finishes accepted work, answers the rest with `stopping`, closes everything."""
        deadline_s = time.monotonic() + self._config.server.drain_s
        for name, worker in self._workers.items():
            if not worker.stop(max(0.0, deadline_s - time.monotonic())):
                log.error("model %s did not finish %d requests in time", name, worker.waiting)
        self._mailbox.run()
        self._read_requests(10_000)
        self._publish_heartbeat("stopping")
        self._router.close()
        self._xpub.close()
        self._context.term()
        self._log.close()
        os.close(self._wake_read)
        os.close(self._wake_write)


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
