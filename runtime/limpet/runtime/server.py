"""The server: one I/O thread, worker threads for each model, and what each request is for."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

from msgspec import UNSET

from limpet.contracts import messages
from limpet.contracts.clock import Clock
from limpet.contracts.errors import RejectCode, RejectedError, VersionError, WireError
from limpet.contracts.messages import Alert, Request
from limpet.contracts.stream_messages import CloseStream, OpenStream, Samples
from limpet.contracts.tensors import Tensors
from limpet.contracts.wire import Buffer, decode_request, encode, peek_id
from limpet.runtime.alert_log import AlertLog
from limpet.runtime.config import ServerConfig
from limpet.runtime.inference import InferenceRequests
from limpet.runtime.io_loop import IoLoop
from limpet.runtime.lane_host import LaneHost
from limpet.runtime.lane_memory import SUPPORTED
from limpet.runtime.metrics import Metrics
from limpet.runtime.models import check_load, load_models
from limpet.runtime.replies import Refusals, Respond
from limpet.runtime.scheduler import InlineBudget, ModelWorker
from limpet.runtime.stream_requests import StreamRequests
from limpet.runtime.stream_table import StreamTable

log = logging.getLogger(__name__)

DRAIN_TURN_S = 0.005
"""Longest sleep while workers finish: no socket says when a thread has ended."""

_COUNTERS = {kind: f"requests.{kind.__name__}" for kind in get_args(Request)}

GARBAGE_FROM = 1000
"""Objects, more made than freed, from which on it is worth looking for cycles."""

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
        self._refusals = Refusals(self._metrics)
        self._started_s, self._version = time.monotonic(), version("limpet")
        self._stop_requested = False
        self._models = load_models(config.models)
        section = config.server
        check_load(self._models, section.when_overloaded)
        budget = InlineBudget()
        with contextlib.ExitStack() as opened:  # closed again where something fails
            self._io = IoLoop(
                section.listen,
                section.publish,
                section.max_message_mb << 20,
                self._metrics,
                self._handle,
                budget.renew,
                _collect_garbage,
            )
            opened.callback(self._io.abandon)
            self._log = AlertLog(
                Path(section.state_dir) / "alerts.db", self._publish_alerts, config.grouping
            )
            opened.callback(self._log.close)
            self._streams = StreamTable(
                config.streams, self._models, self._log, self._clock, section.max_streams
            )
            self._lanes = self._open_lanes(section.lane_mb << 20)
            if self._lanes is not None:
                opened.callback(self._lanes.close)
                self._io.watch(self._lanes.fileno(), self._lanes.serve)
            self._opened = opened.pop_all()
        self.listening, self.publishing = self._io.listening, self._io.publishing
        self._workers = {
            name: ModelWorker(name, model.config.queue, model.config.stream_threads, budget)
            for name, model in self._models.items()
        }
        inference = InferenceRequests(
            self._models, self._workers, self._clock, self._metrics, self._refusals
        )
        streams = StreamRequests(self._streams, self._workers, self._log, self._io, self._refusals)
        # Each answers, raises RejectedError, or submits a job that answers.
        self._handlers: dict[type[Request], Callable[..., None]] = {
            messages.Hello: self._hello,
            messages.Ping: self._ping,
            messages.Infer: inference.infer,
            OpenStream: streams.open,
            Samples: streams.samples,
            CloseStream: streams.close,
            messages.GetAlerts: self._get_alerts,
            messages.GetStatus: self._get_status,
        }

    def _open_lanes(self, area_bytes: int) -> LaneHost | None:
        """What offers same-host lanes; None where there are to be none, or cannot be."""
        if not area_bytes or not SUPPORTED:
            return None
        handle = functools.partial(self._handle, only=messages.Infer)
        try:
            return LaneHost(
                area_bytes, self._metrics, self._refusals, self._io.mailbox, handle, self._io.send
            )
        except OSError as error:  # some sandboxes have no such sockets
            log.warning("no same-host lanes: %s", error)
            return None

    def run(self) -> bool:
        """Serves until `stop` is called, then finishes what was accepted.

        Returns:
            Whether it did. Where a model took longer than `drain_s`, its thread is still inside the
            engine, and Python ends in an abort if it takes the usual way out meanwhile.
        """
        self._turn_while(lambda: not self._stop_requested, "serving", math.inf)
        deadline_s = time.monotonic() + self._config.server.drain_s
        self._turn_while(lambda: self._has_work(deadline_s), "stopping", DRAIN_TURN_S)
        return self._shut_down()

    def _turn_while(
        self, wanted: Callable[[], bool], state: ServerState, longest_sleep_s: float
    ) -> None:
        beat = functools.partial(self._publish_heartbeat, state)
        self._io.turn_while(wanted, beat, self._config.server.heartbeat_s, longest_sleep_s)

    def _has_work(self, deadline_s: float) -> bool:
        """Whether a worker still runs and may; from the first call on they finish and end."""
        ended = [worker.stop(0.0) for worker in self._workers.values()]
        return not all(ended) and time.monotonic() < deadline_s

    def stop(self) -> None:
        """Makes `run` return; from any thread or a signal handler."""
        self._stop_requested = True
        self._io.wake()

    def _shut_down(self) -> bool:
        """Answers what nobody will work on with `stopping`, closes everything."""
        late = {n: w.waiting for n, w in self._workers.items() if not w.stop(0.0)}
        for name, waiting in late.items():
            log.error("model %s did not finish in time, %d requests wait", name, waiting)
        self._io.mailbox.run()
        self._io.read_requests(10_000)
        self._publish_heartbeat("stopping")
        self._io.close()
        self._opened.close()
        return not late

    # Requests -----------------------------------------------------------------------------------

    def _handle(
        self,
        identity: bytes,
        frames: Sequence[Buffer],
        respond: Respond,
        only: type[Request] | None = None,
    ) -> None:
        arrived_ns = time.monotonic_ns()
        try:
            request, tensors = decode_request(frames)
        except WireError as error:
            self._metrics.count("dropped.malformed")
            code: RejectCode = "version" if isinstance(error, VersionError) else "malformed"
            refused = RejectedError(code, error.message, error.hint)
            self._refusals.reject(respond, peek_id(frames), refused)
            return
        self._metrics.count(_COUNTERS[type(request)])
        try:
            if only is not None and type(request) is not only:
                raise RejectedError(
                    "malformed",
                    f"a {type(request).__name__} over a lane, which takes {only.__name__} only",
                    "send it over the ZeroMQ socket",
                )
            if self._stop_requested:
                raise RejectedError("stopping", "the server is shutting down", "try again later")
            self._handlers[type(request)](request, tensors, respond, arrived_ns, identity)
        except RejectedError as error:
            self._refusals.reject(respond, request.id, error)
        except Exception as error:  # noqa: BLE001 (answered and logged; the server goes on)
            self._refusals.fail(respond, request.id, error)

    def _hello(
        self,
        request: messages.Hello,
        _: Tensors,
        respond: Respond,
        __: int,
        identity: bytes,
    ) -> None:
        lanes = self._lanes if request.lane is True else None
        respond(
            messages.Welcome(
                id=request.id,
                server=self._config.server.name,
                limpet=self._version,
                alerts=self.publishing,
                models=[model.info() for model in self._models.values()],
                lane=UNSET if lanes is None else lanes.offer(identity),
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
                streams={s.name: {**s.counts, "state": s.state} for s in self._streams},
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
            publish = functools.partial(self._io.publish, messages.ALERT_TOPIC, encode(alert))
            self._io.mailbox.put(publish)

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
        self._io.publish(messages.HEARTBEAT_TOPIC, encode(heartbeat))


def _collect_garbage() -> None:
    """Looks for cycles while nobody waits, so that Python does not while somebody does."""
    if gc.get_count()[0] >= GARBAGE_FROM:
        gc.collect()
