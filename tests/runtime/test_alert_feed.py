from __future__ import annotations

import functools
import itertools
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq

from limpet.contracts import messages
from limpet.contracts.errors import RequestTimeoutError, WireError
from limpet.contracts.messages import Alert, ChannelShare, Heartbeat, Published
from limpet.contracts.wire import decode_published, encode
from limpet.runtime import alert_feed
from limpet.runtime.alert_feed import (
    AlertFeed,
    Event,
    LogEnds,
    LogReplaced,
    ServerBack,
    ServerSilent,
)
from limpet.runtime.io_loop import GREETING_S
from limpet.runtime.keep_alive import gone_after_s
from limpet.runtime.server import Server
from tests.runtime.serving import PATIENCE_S, Proxy, serving, until

AnyEvent = TypeVar("AnyEvent", bound=Event)


def fixed(server: Server) -> dict[str, Any]:
    """Options with which another server takes this one's place."""
    return {"listen": tuple(server.listening), "publish": tuple(server.publishing)}


def alert(row: int = 0, text: str = "") -> Alert:
    return Alert(
        log_id="",
        sequence=0,
        event="open",
        incident=0,
        stream="pump",
        model="m",
        space_id="s",
        start_time_ns=1,
        time_ns=2,
        row=row,
        score=4.0,
        peak_score=5.0,
        threshold=3.0,
        rows=3,
        channels=[ChannelShare("speed" + text, 0.75)],
        recorded_ns=3,
    )


def raise_alerts(server: Server, count: int) -> None:
    """Appends to the server's log, as its streams do."""
    for row in range(count):
        server._log.append([alert(row)])


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
    server._log.append([alert(row) for row in range(count)])
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
            server._log.append([alert(text="x" * 1000) for _ in range(1000)])
        until(lambda: not server._io.mailbox._calls)
        assert numbers(take(feed, count)) == list(range(1, count + 1))
        assert asked(server) - pages > 2, "nothing was dropped, so nothing was recovered"
        assert numbers(rest(feed, server)) == []


# The server goes and comes -----------------------------------------------------------------------


def test_silence_is_said_and_so_is_its_end(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        feed = AlertFeed(first.listening[0])
        raise_alerts(first, 2)
        assert numbers(take(feed, 2)) == [1, 2]
    silent, before = until_kind(feed, ServerSilent)
    assert before == []
    assert 0.3 <= silent.seconds < PATIENCE_S
    assert list(feed.events(timeout_s=0.5)) == []  # it is said once
    with feed, serving(tmp_path, **fixed(first)) as second:
        raise_alerts(second, 2)
        back, before = until_kind(feed, ServerBack)
        assert back.server == "limpet"
        # An alert may overtake the first heartbeat.
        assert numbers([*before, *take(feed, 2 - len(before))]) == [3, 4]
        assert rest(feed, second) == []


def test_nothing_raised_while_a_feed_was_cut_off_is_lost(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        feed = AlertFeed(first.listening[0], since=0)
        raise_alerts(first, 1)
        assert numbers(take(feed, 1)) == [1]
        last = first
    with feed:
        for _ in range(3):
            with serving(tmp_path, **fixed(first)) as last:
                raise_alerts(last, 3)  # most likely before the subscriber is connected again
        with serving(tmp_path, **fixed(first)) as last:
            alerts = [e for e in rest(feed, last) if isinstance(e, Alert)]
            assert numbers(alerts) == list(range(2, 11))


def test_a_feed_does_not_call_a_server_silent_whose_heartbeats_are_rare(tmp_path: Path) -> None:
    with serving(tmp_path, heartbeat_s=60.0) as server, AlertFeed(server.listening[0]) as feed:
        until(lambda: list(feed.events(timeout_s=0.0)) or feed._interval_s == 60.0)
        feed._beat_s -= 100.0
        assert rest(feed, server) == []


def test_each_new_subscriber_is_greeted_with_a_heartbeat(tmp_path: Path) -> None:
    with serving(tmp_path, heartbeat_s=60.0) as server, zmq.Context() as context:
        for _ in range(3):
            with context.socket(zmq.SUB) as subscriber:
                subscriber.setsockopt(zmq.SUBSCRIBE, messages.HEARTBEAT_TOPIC)
                subscriber.connect(server.publishing[0])
                assert subscriber.poll(round(PATIENCE_S * 1000))
                beat = decode_published(subscriber.recv_multipart())
                assert isinstance(beat, Heartbeat)
                assert (beat.state, beat.interval_s, beat.last_alert) == ("serving", 60.0, 0)
                assert beat.engines["identity"] == "onnxruntime-cpu"


def test_subscriptions_do_not_multiply_heartbeats(tmp_path: Path) -> None:
    # One client must not make the server flood all the others.
    with (
        serving(tmp_path, heartbeat_s=60.0) as server,
        zmq.Context() as context,
        context.socket(zmq.SUB) as quiet,
        context.socket(zmq.SUB) as busy,
    ):
        for subscriber in (quiet, busy):
            subscriber.connect(server.publishing[0])
        quiet.setsockopt(zmq.SUBSCRIBE, messages.HEARTBEAT_TOPIC)
        start = time.monotonic()
        for number in range(2000):
            busy.setsockopt(zmq.SUBSCRIBE, b"topic %d" % number)
        assert quiet.poll(round(PATIENCE_S * 1000))
        beats = 0
        while quiet.poll(300):
            quiet.recv_multipart()
            beats += 1
        assert beats <= 2 + (time.monotonic() - start) / GREETING_S


@pytest.mark.usefixtures("quickly_gone")
def test_a_feed_finds_out_that_its_server_vanished_and_misses_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(server.publishing[0]) as proxy:
        monkeypatch.setattr(alert_feed, "same_transport", lambda *_: proxy.endpoint)
        with AlertFeed(server.listening[0]) as feed:
            raise_alerts(server, 1)
            assert numbers(take(feed, 1)) == [1]
            proxy.vanish()
            begun_s = time.monotonic()
            raise_alerts(server, 1)
            events = [e for e in rest(feed, server) if not isinstance(e, ServerSilent | ServerBack)]
            assert numbers(events) == [2]
            assert time.monotonic() - begun_s < gone_after_s() + PATIENCE_S


def test_without_a_server_a_feed_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(RequestTimeoutError, match="no server at"):
        AlertFeed(f"tcp://127.0.0.1:{port}", timeout_s=0.2)


def test_a_server_that_publishes_where_a_feed_cannot_reach_is_an_error(tmp_path: Path) -> None:
    with (
        serving(tmp_path, publish=(f"ipc://{tmp_path}/p",)) as server,
        pytest.raises(WireError, match="publishes on"),
    ):
        AlertFeed(server.listening[0])


# Another log -------------------------------------------------------------------------------------


def test_a_replaced_log_is_said_and_then_comes_whole(tmp_path: Path) -> None:
    with serving(tmp_path, state_dir=str(tmp_path / "old")) as first:
        feed = AlertFeed(first.listening[0])
        raise_alerts(first, 4)
        assert numbers(take(feed, 4)) == [1, 2, 3, 4]
    options = {**fixed(first), "state_dir": str(tmp_path / "new")}
    with feed, serving(tmp_path, **options) as second:
        raise_alerts(second, 2)
        replaced, before = until_kind(feed, LogReplaced)
        assert replaced.log_id == second._log.log_id
        assert not any(isinstance(event, Alert) for event in before)
        events = [e for e in rest(feed, second) if not isinstance(e, ServerSilent | ServerBack)]
        assert numbers(events) == [1, 2]
        # What the old server said may still be under way; it changes nothing.
        old = alert()
        old.log_id, old.sequence = first._log.log_id, 5
        beat = Heartbeat(
            server="old", log_id=old.log_id, state="serving", time_ns=0, interval_s=0.1,
            last_alert=9, engines={}, streams={}, dropped={},
        )  # fmt: skip
        publish(second, old)
        publish(second, beat)
        assert rest(feed, second) == []


def test_a_number_beyond_the_end_of_a_log_that_is_not_named_is_waited_for(server: Server) -> None:
    raise_alerts(server, 2)
    with AlertFeed(server.listening[0], since=3) as feed:
        assert take(feed, 1) == [LogEnds(server._log.log_id, 2)]
        raise_alerts(server, 2)
        assert numbers(take(feed, 1)) == [4]
        assert rest(feed, server) == []


def test_a_number_beyond_the_end_of_its_own_log_means_that_this_was_replaced(
    server: Server,
) -> None:
    raise_alerts(server, 2)
    with AlertFeed(server.listening[0], since=41, log_id=server._log.log_id) as feed:
        replaced, *alerts = take(feed, 3)
        assert replaced == LogReplaced(server._log.log_id)
        assert numbers(alerts) == [1, 2]
        assert rest(feed, server) == []


@pytest.mark.parametrize("since", [1, 2, 3])
def test_a_feed_that_knows_its_log_notices_another_one_at_once(server: Server, since: int) -> None:
    raise_alerts(server, 2)
    with AlertFeed(server.listening[0], since=since, log_id="the one before") as feed:
        replaced, *alerts = take(feed, 3)
        assert replaced == LogReplaced(server._log.log_id)
        assert numbers(alerts) == [1, 2]


def test_a_feed_that_knows_its_log_goes_on_in_it(server: Server) -> None:
    raise_alerts(server, 3)
    with AlertFeed(server.listening[0], since=1, log_id=server._log.log_id) as feed:
        assert numbers(take(feed, 2)) == [2, 3]
        assert rest(feed, server) == []
