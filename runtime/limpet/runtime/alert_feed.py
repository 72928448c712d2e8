"""An alert node: `AlertFeed` gives every alert of a server once, in order, whatever happens.

    with AlertFeed("tcp://127.0.0.1:7700", since=41) as feed:
        for event in feed.events():
            if isinstance(event, Alert): ...

Alerts come live from the XPUB; whatever was missed, before or between, is asked for by number.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import zmq

from limpet.contracts import messages
from limpet.contracts.errors import RequestError, WireError
from limpet.contracts.messages import Alert, Heartbeat
from limpet.contracts.wire import decode_published
from limpet.runtime.client import Connection, same_transport

SILENT_AFTER_BEATS = 3
ASK_AGAIN_S = 0.5


@dataclass(frozen=True)
class ServerSilent:
    """No heartbeat has come for longer than three intervals: nothing is known of the streams."""

    seconds: float


@dataclass(frozen=True)
class ServerBack:
    """Heartbeats come again; alerts of the time between follow."""

    server: str


@dataclass(frozen=True)
class LogReplaced:
    """The server keeps another log than before: numbers begin anew, all its alerts follow."""

    log_id: str


Event = Alert | ServerSilent | ServerBack | LogReplaced


class AlertFeed:
    """Follows a server's alerts.

    Args:
        endpoint: The server's request endpoint; its welcome names the publishing one.
        since: Number of the last alert already known; None starts with the next one.
        timeout_s: Longest wait for the server's welcome.

    Raises:
        RequestTimeoutError: No server answers.
        WireError: The server publishes on no endpoint that can be reached from here.
    """

    def __init__(self, endpoint: str, since: int | None = None, timeout_s: float = 10.0) -> None:
        self._connection = Connection(endpoint, "alerts")
        self._context = zmq.Context()
        try:
            welcome = self._connection.hello(timeout_s)
            self._subscriber: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
            self._subscriber.setsockopt(zmq.LINGER, 0)
            self._subscriber.setsockopt(zmq.RECONNECT_IVL, 50)
            self._subscriber.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
            self._subscriber.setsockopt(zmq.RCVHWM, 10_000)
            for topic in (messages.ALERT_TOPIC, messages.HEARTBEAT_TOPIC):
                self._subscriber.setsockopt(zmq.SUBSCRIBE, topic)
            self._subscriber.connect(same_transport(endpoint, welcome.alerts))
            page = self._ask(0 if since is None else since, timeout_s)
        except Exception:
            self.close()
            raise
        self._log_id = page.log_id
        self.last = page.last if since is None else since
        self._newest = page.last
        self._beat_s, self._interval_s, self._silent = time.monotonic(), 1.0, False

    def __enter__(self) -> AlertFeed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the sockets."""
        self._connection.close()
        self._context.destroy(linger=0)

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """Alerts in order of their numbers, and what becomes of the server.

        Args:
            timeout_s: Ends the iteration when nothing came for so long; None never ends it.
        """
        idle_since_s = time.monotonic()
        while True:
            for event in self._next():
                yield event
                idle_since_s = time.monotonic()
            if timeout_s is not None and time.monotonic() - idle_since_s > timeout_s:
                return

    def _next(self) -> Iterator[Event]:
        if self._newest > self.last:
            yield from self._catch_up()
        if self._subscriber.poll(100, zmq.POLLIN):
            try:
                published = decode_published(self._subscriber.recv_multipart())
            except WireError:
                return
            yield from self._take(published)
        silent_s = time.monotonic() - self._beat_s
        if not self._silent and silent_s > SILENT_AFTER_BEATS * self._interval_s:
            self._silent = True
            yield ServerSilent(silent_s)

    def _take(self, published: messages.Published) -> Iterator[Event]:
        self._beat_s = time.monotonic()
        if published.log_id != self._log_id:
            yield from self._replace_log(published.log_id)
        if isinstance(published, Heartbeat):
            self._interval_s = published.interval_s
            self._newest = max(self._newest, published.last_alert)
            if self._silent:
                self._silent = False
                yield ServerBack(published.server)
            return
        self._newest = max(self._newest, published.sequence)
        if published.sequence == self.last + 1:  # otherwise known already, or there is a gap
            self.last = published.sequence
            yield published

    def _catch_up(self) -> Iterator[Event]:
        """Asks for what lies between the last alert given out and the newest known."""
        while self._newest > self.last:
            try:
                page = self._ask(self.last, ASK_AGAIN_S)
            except (RequestError, WireError):
                return  # not now: the next round tries again
            if page.log_id != self._log_id:
                yield from self._replace_log(page.log_id)
                continue
            self._newest = page.last
            for alert in page.alerts:
                self.last = alert.sequence
                yield alert

    def _replace_log(self, log_id: str) -> Iterator[Event]:
        self._log_id, self.last, self._newest = log_id, 0, 1
        yield LogReplaced(log_id)

    def _ask(self, since: int, timeout_s: float) -> messages.AlertPage:
        page, _ = self._connection.request(
            messages.GetAlerts(id=self._connection.next_id(), since=since),
            messages.AlertPage,
            timeout_s,
        )
        return page
