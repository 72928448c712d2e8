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
from urllib.parse import urlsplit

import zmq

from limpet.contracts import messages
from limpet.contracts.errors import RequestError, WireError
from limpet.contracts.messages import Alert, Heartbeat
from limpet.contracts.wire import decode_published
from limpet.runtime.closing import Closing
from limpet.runtime.connection import Connection
from limpet.runtime.keep_alive import notice_vanished_server

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


@dataclass(frozen=True)
class LogEnds:
    """The log ends at `last`, before the number to begin after, and no log was named with that:
    alerts follow once the log has passed it. Or the number is of another log.
    """

    log_id: str
    last: int


Event = Alert | ServerSilent | ServerBack | LogReplaced | LogEnds


class AlertFeed(Closing):
    """Follows a server's alerts.

    Args:
        endpoint: The server's request endpoint; its welcome names the publishing one.
        since: Number of the last alert already known; None starts with the next one.
        log_id: The log that number is of, as its alert said; empty where that is not known. Where
            the server keeps another one, a `LogReplaced` comes first; where none is named and the
            log ends before that number, a `LogEnds`.
        timeout_s: Longest wait for the server's welcome.

    Raises:
        RequestTimeoutError: No server answers.
        WireError: The server publishes on no endpoint that can be reached from here.
    """

    def __init__(
        self, endpoint: str, since: int | None = None, timeout_s: float = 10.0, log_id: str = ""
    ) -> None:
        self._connection = Connection(endpoint, "alerts")
        self._context = zmq.Context()
        try:
            welcome = self._connection.hello(timeout_s)
            self._subscriber: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
            self._subscriber.setsockopt(zmq.LINGER, 0)
            self._subscriber.setsockopt(zmq.RECONNECT_IVL, 50)
            self._subscriber.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
            # It sends nothing, and would wait on a dead connection for ever.
            notice_vanished_server(self._subscriber)
            self._subscriber.setsockopt(zmq.RCVHWM, 10_000)
            for topic in (messages.ALERT_TOPIC, messages.HEARTBEAT_TOPIC):
                self._subscriber.setsockopt(zmq.SUBSCRIBE, topic)
            self._subscriber.connect(same_transport(endpoint, welcome.alerts))
            page = self._ask(0 if since is None else since, timeout_s)
        except Exception:
            self.close()
            raise
        self._log_id = log_id or page.log_id
        self.last = page.last if since is None else since
        self._in_doubt = page.last != self.last or page.log_id != self._log_id
        self._is_of_log = bool(log_id) or page.last >= self.last  # whether `last` surely is
        self._notice = None if self._is_of_log else LogEnds(page.log_id, page.last)
        self._beat_s, self._interval_s, self._silent = time.monotonic(), 1.0, False

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
        if self._notice is not None:
            notice, self._notice = self._notice, None
            yield notice
        if self._in_doubt:
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
        if isinstance(published, Heartbeat):
            self._interval_s = published.interval_s
            if self._silent:
                self._silent = False
                yield ServerBack(published.server)
        ours = published.log_id == self._log_id  # else the log was replaced, or this is from before
        newest = published.last_alert if isinstance(published, Heartbeat) else published.sequence
        if isinstance(published, Alert) and ours and newest == self.last + 1:
            self.last, self._is_of_log = newest, True
            yield published
        elif newest > self.last or not ours:
            self._in_doubt = True

    def _catch_up(self) -> Iterator[Event]:
        """Asks the log itself for what follows the last alert given out."""
        while self._in_doubt:
            try:
                page = self._ask(self.last, ASK_AGAIN_S)
            except (RequestError, WireError):
                return  # not now: the next round tries again
            if page.log_id != self._log_id or (page.last < self.last and self._is_of_log):
                self._log_id, self.last, self._is_of_log = page.log_id, 0, True
                yield LogReplaced(page.log_id)
                continue
            for alert in page.alerts:
                self.last, self._is_of_log = alert.sequence, True
                yield alert
            self._in_doubt = bool(page.alerts) and self.last < page.last

    def _ask(self, since: int, timeout_s: float) -> messages.AlertPage:
        page, _ = self._connection.request(
            messages.GetAlerts(id=self._connection.next_id(), since=since),
            messages.AlertPage,
            timeout_s,
        )
        return page


def same_transport(endpoint: str, offered: list[str]) -> str:
    """Of a server's published endpoints, the one to use by who reached it at `endpoint`.

    Raises:
        WireError: The server publishes on no endpoint of that transport.
    """
    scheme = endpoint.partition("://")[0]
    for candidate in offered:
        if candidate.partition("://")[0] == scheme:
            if scheme != "tcp":
                return candidate
            return f"tcp://{urlsplit(endpoint).hostname}:{urlsplit(candidate).port}"
    raise WireError(
        f"the server at {endpoint} publishes on {offered} only",
        f"add a {scheme} endpoint to `publish` in its configuration",
    )
