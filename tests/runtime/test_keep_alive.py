"""Servers that vanish without a word: noticed in time, whatever waits, and outlived."""

from __future__ import annotations

import time

import pytest
import zmq

from limpet.contracts.errors import RequestTimeoutError
from limpet.runtime.client import RobotClient
from limpet.runtime.keep_alive import (
    gone_after_s,
    notice_vanished_peers,
    notice_vanished_server,
)
from limpet.runtime.server import Server
from tests.runtime.clients import value_of, x
from tests.runtime.serving import PATIENCE_S, Proxy


def test_a_vanished_peer_is_gone_after_ten_seconds() -> None:
    assert gone_after_s() == 10
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        notice_vanished_server(socket)
        options = (zmq.TCP_KEEPALIVE_IDLE, zmq.TCP_KEEPALIVE_INTVL, zmq.TCP_KEEPALIVE_CNT)
        idle_s, interval_s, count = map(socket.getsockopt, options)
        assert idle_s + interval_s * count == gone_after_s()
        assert socket.getsockopt(zmq.TCP_MAXRT) == gone_after_s() * 1000
        assert socket.getsockopt(zmq.HEARTBEAT_IVL) == 0


def test_a_server_does_not_cut_a_client_that_lives_and_does_not_read() -> None:
    """What it was sent and has no room for counts as not acknowledged."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        notice_vanished_peers(socket)
        assert socket.getsockopt(zmq.TCP_KEEPALIVE) == 1
        assert socket.getsockopt(zmq.TCP_MAXRT) == 0


@pytest.mark.usefixtures("quickly_gone")
@pytest.mark.parametrize("asks", [False, True])
def test_a_client_reaches_its_server_again_after_the_way_to_it_vanished(
    server: Server, asks: bool
) -> None:
    # With a question under way TCP asks nothing of its own, and would send that one again for 15
    # minutes; without one it asks.
    with Proxy(server.listening[0]) as proxy, RobotClient(proxy.endpoint, lane=False) as robot:
        assert value_of(robot.infer("identity", x(1.0))) == 1.0
        proxy.vanish()
        begun_s = time.monotonic()
        if asks:
            with pytest.raises(RequestTimeoutError, match="no reply"):
                robot.infer("identity", x(2.0), timeout_s=0.05)
        assert robot._is_connected()
        while robot._is_connected():
            robot._news.poll(round(PATIENCE_S * 1000))
            assert time.monotonic() - begun_s < gone_after_s() + PATIENCE_S
        assert value_of(robot.infer("identity", x(3.0), timeout_s=PATIENCE_S)) == 3.0
