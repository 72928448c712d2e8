"""Alerts come once and in order, whatever is lost, repeated or late on the way."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import pytest

from limpet.contracts import messages
from limpet.runtime.alert_feed import (
    AlertFeed,
)
from limpet.runtime.server import Server
from tests.runtime.alert_feeds import (
    asked,
    numbers,
    publish,
    raise_alerts,
    rest,
    take,
)
from tests.runtime.alert_logs import alert
from tests.runtime.serving import serving, until

# In good order -----------------------------------------------------------------------------------


def test_alerts_come_once_and_in_order_as_they_are_raised(server: Server) -> None:
    with AlertFeed(server.listening[0]) as feed:
        raise_alerts(server, 5)
        first = take(feed, 5)
        assert numbers(first) == [1, 2, 3, 4, 5]
        assert first == server._log.since(0, 5)
        raise_alerts(server, 3)
        assert numbers(take(feed, 3)) == [6, 7, 8]
        assert feed.last == 8
        assert rest(feed, server) == []


@pytest.mark.parametrize(
    ("since", "wanted"), [(None, []), (0, [1, 2, 3, 4, 5]), (3, [4, 5]), (5, [])]
)
def test_a_feed_starts_after_the_number_it_was_given(
    server: Server, since: int | None, wanted: list[int]
) -> None:
    raise_alerts(server, 5)
    with AlertFeed(server.listening[0], since=since) as feed:
        assert numbers(rest(feed, server)) == wanted


@pytest.mark.parametrize("count", [99, 100, 101, 250])
def test_more_alerts_than_a_page_holds_come_whole(server: Server, count: int) -> None:
    server._log.append([alert(row=row) for row in range(count)])
    before = asked(server)
    with AlertFeed(server.listening[0], since=0) as feed:
        assert numbers(take(feed, count)) == list(range(1, count + 1))
        assert numbers(rest(feed, server)) == []
    assert asked(server) - before <= 5 + count // 100


def test_the_iteration_ends_when_nothing_came_for_so_long(server: Server) -> None:
    with AlertFeed(server.listening[0]) as feed:
        start = time.monotonic()
        assert list(feed.events(timeout_s=0.3)) == []
        assert 0.3 <= time.monotonic() - start < 5.0


def test_an_iteration_left_early_goes_on_with_the_next_alert(server: Server) -> None:
    server._log.append([alert() for _ in range(150)])
    with AlertFeed(server.listening[0], since=0) as feed:
        seen = [event for _ in range(150) for event in take(feed, 1)]
        assert numbers(seen) == list(range(1, 151))


def test_feeds_do_not_disturb_each_other(server: Server) -> None:
    endpoint = server.listening[0]
    with AlertFeed(endpoint) as slow, AlertFeed(endpoint, since=0) as quick:
        raise_alerts(server, 3)
        assert numbers(take(quick, 3)) == [1, 2, 3]
        raise_alerts(server, 3)
        assert numbers(take(quick, 3)) == [4, 5, 6]
        assert numbers(take(slow, 6)) == [1, 2, 3, 4, 5, 6]


def test_alerts_come_over_a_unix_socket_too(tmp_path: Path) -> None:
    options = {"listen": (f"ipc://{tmp_path}/r",), "publish": (f"ipc://{tmp_path}/p",)}
    with serving(tmp_path, **options) as server, AlertFeed(server.listening[0]) as feed:
        raise_alerts(server, 2)
        assert numbers(take(feed, 2)) == [1, 2]


# Lost, repeated, late ----------------------------------------------------------------------------


def test_an_alert_that_was_not_published_is_asked_for_when_the_next_one_is(server: Server) -> None:
    with AlertFeed(server.listening[0]) as feed:
        raise_alerts(server, 1)
        assert numbers(take(feed, 1)) == [1]
        quiet, server._log._on_append = server._log._on_append, lambda alerts: None
        raise_alerts(server, 3)
        server._log._on_append = quiet
        raise_alerts(server, 1)
        assert numbers(take(feed, 4)) == [2, 3, 4, 5]
        assert rest(feed, server) == []


def test_an_alert_that_was_not_published_is_asked_for_at_the_next_heartbeat(
    server: Server,
) -> None:
    with AlertFeed(server.listening[0]) as feed:
        server._log._on_append = lambda alerts: None
        raise_alerts(server, 3)
        assert numbers(take(feed, 3)) == [1, 2, 3]


def test_an_alert_published_twice_comes_once(server: Server) -> None:
    with AlertFeed(server.listening[0]) as feed:
        raise_alerts(server, 3)
        for repeated in server._log.since(0, 3):
            publish(server, repeated)
        assert numbers(take(feed, 3)) == [1, 2, 3]
        assert rest(feed, server) == []


def test_bytes_that_are_no_message_are_passed_over(server: Server) -> None:
    with AlertFeed(server.listening[0]) as feed:
        for frames in ([b"\xff"], [b""], [b"a", b"b"], []):
            server._io.mailbox.put(
                functools.partial(server._io.publish, messages.ALERT_TOPIC, frames)
            )
        assert rest(feed, server) == []


def test_a_subscriber_that_is_slow_beyond_all_queues_still_gets_every_alert(
    server: Server,
) -> None:
    # More than the socket's 10,000 messages, the kernel's buffers and the XPUB's 256 hold.
    count, pages = 24_000, asked(server)
    with AlertFeed(server.listening[0]) as feed:
        for _ in range(count // 1000):
            server._log.append([alert(stream="x" * 1000) for _ in range(1000)])
        until(lambda: not server._io.mailbox._calls)
        assert numbers(take(feed, count)) == list(range(1, count + 1))
        assert asked(server) - pages > 2, "nothing was dropped, so nothing was recovered"
        assert numbers(rest(feed, server)) == []
