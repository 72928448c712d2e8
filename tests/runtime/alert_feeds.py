"""What tests of alert feeds share: alerts raised and published, and events awaited."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

from limpet.contracts import messages
from limpet.contracts.messages import Alert, Published
from limpet.contracts.wire import encode
from limpet.runtime.alert_feed import (
    AlertFeed,
    Event,
)
from limpet.runtime.server import Server
from tests.runtime.alert_logs import alert
from tests.runtime.serving import PATIENCE_S

AnyEvent = TypeVar("AnyEvent", bound=Event)


def fixed(server: Server) -> dict[str, Any]:
    """Options with which another server takes this one's place."""
    return {"listen": tuple(server.listening), "publish": tuple(server.publishing)}


def raise_alerts(server: Server, count: int) -> None:
    """Appends to the server's log, as its streams do."""
    for row in range(count):
        server._log.append([alert(row=row)])


def publish(server: Server, message: Published) -> None:
    """Publishes what the server's log knows nothing of."""
    topic = messages.ALERT_TOPIC if isinstance(message, Alert) else messages.HEARTBEAT_TOPIC
    server._io.mailbox.put(functools.partial(server._io.publish, topic, encode(message)))


def take(feed: AlertFeed, count: int) -> list[Event]:
    """The next events, which must come."""
    events = list(itertools.islice(feed.events(timeout_s=PATIENCE_S), count))
    assert len(events) == count, f"no more came than {events}"
    return events


def rest(feed: AlertFeed, server: Server) -> list[Event]:
    """What comes until an alert that is raised now, which must come once and last."""
    raise_alerts(server, 1)
    events: list[Event] = []
    for event in feed.events(timeout_s=PATIENCE_S):
        if isinstance(event, Alert) and event.sequence == server._log.last:
            break
        events.append(event)
    events += feed.events(timeout_s=0.25)
    return events


def numbers(events: Sequence[Event]) -> list[int]:
    assert all(isinstance(event, Alert) for event in events), events
    return [event.sequence for event in events if isinstance(event, Alert)]


def until_kind(feed: AlertFeed, kind: type[AnyEvent]) -> tuple[AnyEvent, list[Event]]:
    """The next event of a kind, and those that came before it."""
    before: list[Event] = []
    for event in feed.events(timeout_s=PATIENCE_S):
        if isinstance(event, kind):
            return event, before
        before.append(event)
    raise AssertionError(f"no {kind.__name__} came, only {before}")


def asked(server: Server) -> int:
    """How often the log was asked for alerts."""
    return server._metrics.counters().get("requests.GetAlerts", 0)
