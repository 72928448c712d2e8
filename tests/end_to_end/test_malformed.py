"""What no right node would send: each message is answered or dropped and counted, the server stays
up in bounded memory, and everybody else is served meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq

from limpet.contracts.messages import Rejected
from limpet.contracts.wire import decode_reply
from limpet.runtime.client import RobotClient
from limpet.runtime.config import load_config
from limpet.runtime.sensor import ScoredRows, SensorStream
from tests.end_to_end.attacks import (
    GREETING,
    KINDS,
    Attacker,
    Frames,
    Kind,
    handshaken,
    hello,
    is_closed_by_peer,
    ready,
    receive,
    tcp,
    zmtp_frame,
)
from tests.end_to_end.serving import Serve, ServerProcess

SETTINGS = "max_message_mb = 1\nmax_streams = 32"
COUNT, BATCHES = 100_000, 20
PATIENCE_S = 20.0
PATIENCE_MS = 20_000
PACE_S = 0.002
"""Between two rounds of requests of a good node."""
MB = 1 << 20


class GoodNode(threading.Thread):
    """A robot and a sensor that do nothing wrong, until they are told to stop."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(name="good-node")
        self._endpoint = endpoint
        self._stop_requested = threading.Event()
        self.is_served = threading.Event()
        self.latencies_s: list[float] = []
        self.rows_sent = 0
        self.scored: list[ScoredRows] = []
        self.requests = 0
        """Messages sent."""
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with (
                RobotClient(self._endpoint) as robot,
                SensorStream(self._endpoint, "taken", ["speed", "current"], rate_hz=10.0) as sensor,
            ):
                while not self._stop_requested.wait(PACE_S):
                    x = np.full((1, 4), len(self.latencies_s), np.float32)
                    started_s = time.monotonic()
                    found = robot.infer("identity", {"x": x}, timeout_s=PATIENCE_S)
                    self.latencies_s.append(time.monotonic() - started_s)
                    assert np.array_equal(found.outputs["y"], x)
                    self.scored += sensor.send(np.zeros((3, 2)))
                    self.rows_sent += 3
                    self.is_served.set()
                self.scored += sensor.flush()
            self.requests = sum(each.next_id() - 1 for each in (robot, sensor._connection))
        except BaseException as error:
            self.error = error
            raise

    def stop(self) -> None:
        """Waits for the end; everything must have been answered rightly."""
        self._stop_requested.set()
        self.join(PATIENCE_S)
        assert not self.is_alive()
        assert self.error is None
        assert [rows.sequence for rows in self.scored] == list(range(0, self.rows_sent, 3))
        assert sum(len(rows.scores) for rows in self.scored) == self.rows_sent


@contextlib.contextmanager
def good_node(endpoint: str) -> Iterator[GoodNode]:
    """Runs beside the block, which must leave it unharmed."""
    node = GoodNode(endpoint)
    node.start()
    try:
        assert node.is_served.wait(PATIENCE_S)
        yield node
    finally:
        node.stop()


def counters(server: ServerProcess) -> dict[str, int]:
    with RobotClient(server.endpoint) as client:
        return client.status().counters


def handled(counts: dict[str, int]) -> int:
    """Messages that the server has read, the `GetStatus` that asked included."""
    requests = sum(count for name, count in counts.items() if name.startswith("requests."))
    return requests + counts.get("dropped.malformed", 0)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def test_malformed_messages_are_answered_or_counted_and_harm_nobody(
    serve: Serve,
    context: zmq.Context[zmq.Socket[bytes]],
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    server = serve(server=SETTINGS)
    attackers = [Attacker(context, server.endpoint, kind) for kind in KINDS]
    # A fifth as many again come from a node that asks and asks and never reads an answer.
    deaf = Attacker(context, server.endpoint, Kind(hello, 0, frozenset()), reads=False)
    for attacker in (*attackers, deaf):
        request.addfinalizer(attacker.close)
    draw = random.Random(0)
    half_open: list[socket.socket] = []
    rss = [server.rss_bytes()]
    started_s = time.monotonic()
    with contextlib.ExitStack() as opened, good_node(server.endpoint) as good:
        for batch in range(BATCHES):
            for attacker in attackers:
                wanted = COUNT * attacker.kind.share * (batch + 1) // (1000 * BATCHES)
                attacker.send(wanted - attacker.sent)
            deaf.send(COUNT // 5 // BATCHES)
            for start in (
                b"",
                GREETING[: draw.randrange(64)],
                GREETING,
                GREETING + ready(b"DEALER")[:9],
            ):
                half_open.append(opened.enter_context(tcp(server.endpoint)))
                half_open[-1].sendall(start)
            with tcp(server.endpoint) as connection:
                connection.sendall(GREETING[:11] + draw.randbytes(draw.randrange(5000)))
            rss.append(server.rss_bytes())
        took_s = time.monotonic() - started_s
        assert all(is_closed_by_peer(connection) for connection in half_open)
        for attacker in attackers:
            attacker.drain()

    sent = sum(attacker.sent for attacker in attackers)
    assert sent == COUNT
    for attacker in attackers:
        expected = attacker.kind.replies
        assert not expected or set(attacker.replies) == expected, attacker.kind.make.__name__
    counts = until_handled(server, sent + deaf.sent + good.requests)
    dropped = counts.get("dropped.reply_peer_does_not_read", 0)
    deaf.drain(dropped)
    assert counts.get("dropped.failed", 0) == 0, "nothing took the server by surprise"
    malformed = sum(a.replies["malformed"] + a.replies["version"] for a in attackers)
    assert counts["dropped.malformed"] == malformed
    growth, late_growth = max(rss) - rss[0], max(rss[BATCHES // 2 :]) - rss[BATCHES // 2]
    assert growth < 100 * MB
    assert late_growth < 10 * MB

    median_s, p99_s = np.percentile(good.latencies_s, [50, 99])
    figures = {
        "messages": sent,
        "of a node that reads nothing": deaf.sent,
        "messages per second": round((sent + deaf.sent) / took_s),
        "malformed": malformed,
        "replies dropped": dropped,
        "resident MB": round(rss[0] / MB),
        "resident MB more": round(growth / MB, 1),
        "of these in the second half": round(late_growth / MB, 1),
        "good requests": len(good.latencies_s),
        "good requests' median ms": round(median_s * 1e3, 2),
        "good requests' 99th percentile ms": round(p99_s * 1e3, 2),
    }
    for name, value in figures.items():
        record_property(name, value)
    print(figures)
    assert server.terminate() == 0
    assert "Traceback" not in server.log_path.read_text()


def until_handled(server: ServerProcess, messages: int) -> dict[str, int]:
    """The counters once so many messages were handled, besides those that ask for the counters."""
    deadline_s = time.monotonic() + PATIENCE_S
    with RobotClient(server.endpoint) as client:
        for asked in itertools.count(1):
            counts = client.status().counters
            if handled(counts) == messages + asked:
                return counts
            assert handled(counts) < messages + asked
            assert time.monotonic() < deadline_s, f"{handled(counts)} of {messages + asked}"
    raise AssertionError


def test_bytes_that_pass_for_an_older_zmtp_are_answered_and_counted(serve: Serve) -> None:
    server = serve(server=SETTINGS)
    with tcp(server.endpoint) as connection:
        connection.sendall(b"\x01\x00" + b"\x06\x00hello")  # anonymous, then one frame
        receive(connection, 10)  # the beginning of the server's own greeting
        size, _ = receive(connection, 2)
        reply, _ = decode_reply([receive(connection, size - 1)])
        assert isinstance(reply, Rejected)
        assert reply.code == "malformed"
    assert counters(server)["dropped.malformed"] == 1
    draw = random.Random(0)
    with good_node(server.endpoint):
        for _ in range(200):
            with tcp(server.endpoint) as connection:
                connection.sendall(draw.randbytes(draw.randrange(3000)))
    assert counters(server)["dropped.malformed"] > 1


def test_a_frame_beyond_the_limit_ends_its_connection_and_no_other(
    serve: Serve, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    server = serve(server=SETTINGS)
    with good_node(server.endpoint), context.socket(zmq.DEALER) as dealer:
        before = server.rss_bytes()
        dealer.connect(server.endpoint)
        for _ in range(5):
            dealer.send_multipart([b"x", bytes(MB + 1)])
        for announced in (MB + 1, 2**40, 2**63 - 1, 2**64 - 1):
            with handshaken(server.endpoint, b"DEALER") as connection:
                connection.sendall(b"\x02" + struct.pack(">Q", announced))
                assert is_closed_by_peer(connection)
        assert server.rss_bytes() - before < 50 * MB
    assert "dropped.malformed" not in counters(server), "none of them came through"
    largest: Frames = [b"x", bytes(MB)]
    with context.socket(zmq.DEALER) as dealer:
        dealer.connect(server.endpoint)
        dealer.send_multipart(largest)
        assert dealer.poll(PATIENCE_MS)
    assert counters(server)["dropped.malformed"] == 1


def test_the_publishing_socket_takes_no_abuse_either(
    serve: Serve, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    server = serve(server=SETTINGS)
    (publish,) = load_config(server.config_path).server.publish
    before = server.rss_bytes()
    draw = random.Random(0)
    with context.socket(zmq.SUB) as good:
        good.connect(publish)
        good.subscribe(b"heartbeat")
        # 1 subscribes, 0 ends a subscription, whatever else a subscriber says is passed on.
        for first in (b"\x01", b"\x00", b"\x07"):
            with handshaken(publish, b"SUB") as connection:
                for size in (0, 1, 100, 4095):
                    connection.sendall(zmtp_frame(first + bytes(size)) * 100)
                    connection.sendall(zmtp_frame(first + draw.randbytes(size)) * 100)
                connection.sendall(zmtp_frame(first + bytes(5000)))
                assert is_closed_by_peer(connection)
            with handshaken(publish, b"SUB") as connection:
                connection.sendall(b"\x02" + struct.pack(">Q", 2**40) + first)
                assert is_closed_by_peer(connection)
        for _ in range(20):
            with tcp(publish) as connection:
                connection.sendall(draw.randbytes(3000))
        for _ in range(5):
            assert good.poll(PATIENCE_MS), "heartbeats go on"
            good.recv_multipart()
    assert server.rss_bytes() - before < 20 * MB
    with RobotClient(server.endpoint) as client:
        assert client.status().counters


def test_a_message_of_a_million_frames_is_dropped_without_being_kept(
    serve: Serve, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    server = serve(server=SETTINGS)
    before = server.rss_bytes()
    with context.socket(zmq.DEALER) as dealer:
        dealer.connect(server.endpoint)
        for _ in range(1_000_000):
            dealer.send(b"x", zmq.SNDMORE)
        dealer.send(b"")
        assert dealer.poll(PATIENCE_MS)
        reply, _ = decode_reply(dealer.recv_multipart())
    assert isinstance(reply, Rejected)
    assert reply.code == "malformed"
    # libzmq holds a message until it is whole, and gives the memory back, part of it to the system.
    assert server.rss_bytes() - before < 150 * MB
