"""A feed whose server goes and comes, or comes with another log."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import zmq

from limpet.contracts import messages
from limpet.contracts.errors import RequestTimeoutError, WireError
from limpet.contracts.messages import Alert, Heartbeat
from limpet.contracts.wire import decode_published
from limpet.runtime import alert_feed
from limpet.runtime.alert_feed import (
    AlertFeed,
    LogEnds,
    LogReplaced,
    ServerBack,
    ServerSilent,
)
from limpet.runtime.io_loop import GREETING_S
from limpet.runtime.keep_alive import gone_after_s
from limpet.runtime.server import Server
from tests.runtime.alert_feeds import (
    fixed,
    numbers,
    publish,
    raise_alerts,
    rest,
    take,
    until_kind,
)
from tests.runtime.alert_logs import alert
from tests.runtime.serving import PATIENCE_S, Proxy, serving, until

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
