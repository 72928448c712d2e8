from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from tests.benchmarks.peers.http_link import HttpLink
from tests.benchmarks.peers.links import (
    Buffer,
    WrongAnswerError,
    asking,
    closed_loop,
    part_within,
)
from tests.benchmarks.peers.model import Array

X = np.arange(6, dtype=np.float32).reshape(1, 6)


class Mirror:
    """A link to nobody: what it sends it receives, with `times` as large values."""

    def __init__(self, times: float = 1.0) -> None:
        self._in, self._out = socket.socketpair()
        self.waited_for = self._out.fileno()
        self._times = times
        self.halves = 0

    def send(self, x: Array) -> None:
        self._in.sendall((x * np.float32(self._times)).tobytes())
        self._want = x.nbytes

    def receive(self) -> Buffer | None:
        self.halves += 1
        if self.halves % 2:
            return None  # half of it
        return self._out.recv(self._want)

    def close(self) -> None:
        self._in.close()
        self._out.close()


def test_a_closed_loop_counts_answers_after_its_warm_up() -> None:
    for warm_s, seconds, counted in ((0.02, 0.0, False), (0.0, 0.02, True)):
        links = [Mirror(), Mirror()]
        with contextlib.ExitStack() as stack:
            for link in links:
                stack.callback(link.close)
            done = closed_loop(links, [X, X + 1], warm_s, seconds)
            assert all(link.halves for link in links)
        assert (done.count > 0) is counted
        assert done.seconds == seconds


@pytest.mark.parametrize(
    ("begun_s", "ended_s", "part"),
    [(2, 3, 1), (0, 2, 0.5), (4, 8, 0.25), (0, 8, 0.5), (0, 1, 0), (5, 6, 0)],
)
def test_an_answer_counts_by_its_part_within_the_time(
    begun_s: float, ended_s: float, part: float
) -> None:
    assert part_within(begun_s, ended_s, 1.0, 5.0) == part


def test_sixteen_answers_at_once_have_the_rate_of_one_after_another_whenever_it_begins() -> None:
    for from_s in (0.0, 0.05, 0.1):
        batches = [(0.16 * n, 0.16 * (n + 1)) for n in range(9)]
        parts = [16 * part_within(*each, from_s, from_s + 1.0) for each in batches]
        assert sum(parts) == pytest.approx(100.0)


def test_a_wrong_answer_stops_a_closed_loop() -> None:
    link = Mirror(times=2.0)
    with contextlib.closing(link), pytest.raises(WrongAnswerError, match="24 bytes"):
        closed_loop([link], [X], warm_s=0.0, seconds=5.0)


def test_asking_waits_for_all_of_an_answer() -> None:
    link = Mirror()
    with contextlib.closing(link):
        np.testing.assert_array_equal(asking(link)(X), X)


@contextlib.contextmanager
def http() -> Iterator[tuple[HttpLink, socket.socket]]:
    """A link and the other end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        link = HttpLink(f"http://127.0.0.1:{listening.getsockname()[1]}/predict")
        other, _ = listening.accept()
        try:
            yield link, other
        finally:
            link.close()
            other.close()


def test_an_answer_may_come_in_pieces_and_the_next_one_after_it() -> None:
    with http() as (link, other):
        for x in (X, X + 1):
            link.send(x)
            request = other.recv(10_000)
            head, _, body = request.partition(b"\r\n\r\n")
            assert head.startswith(b"POST /predict HTTP/1.1\r\n")
            assert f"Content-Length: {x.nbytes}".encode() in head
            assert body == x.tobytes()
            answer = b"HTTP/1.1 200 OK\r\ncontent-length: 24\r\nserver: a\r\n\r\n" + body
            for piece in (answer[:20], answer[20:60], answer[60:]):
                other.sendall(piece)
                got = link.receive()
            assert got is not None
            assert bytes(got) == x.tobytes()


def test_an_answer_that_is_an_error_or_has_no_length_says_so() -> None:
    for answer, words in (
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", "500 Oops"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "without content-length"),
    ):
        with http() as (link, other):
            link.send(X)
            other.sendall(answer)
            with pytest.raises(ConnectionError, match=words):
                link.receive()


def test_a_closed_connection_is_no_answer() -> None:
    with http() as (link, other):
        link.send(X)
        other.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError, match="closed"):
            link.receive()
