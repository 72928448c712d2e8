"""A sensor that does everything wrong, next to one that does not, on a real server.

`Expected` says row by row what the server must make of it. It is written from the description of
the states and knows nothing of the server's code.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.messages import Alert, Heartbeat, Rejected, Reply
from limpet.contracts.signals import RowState
from limpet.contracts.stream_messages import OpenStream, Samples, Scores, StreamOpened
from limpet.contracts.tensors import Tensors
from limpet.contracts.wire import decode_published
from limpet.runtime.alert_feed import AlertFeed
from limpet.runtime.connection import Connection
from limpet.runtime.sensor import SensorStream
from tests.bundles import MAX_FILL_ROWS
from tests.end_to_end.serving import Serve, ServerProcess

SCORED, FILLED, PARTIAL, WARMING_UP, HOLE, REPEATED, LATE = RowState
LOOK_BACK, CHANNELS = 8, ["speed", "current"]
MEMORY = 0.25
"""Share of the row before in a score: a state that is lost or kept too long is seen."""
PATIENCE_S = 30.0
DETECTOR = """
[[streams]]
match = "bad"
silent_after_s = 1.5
[streams.detector]
open_after_rows = 2
close_after_rows = 3
update_every_rows = 1000
[[streams]]
[streams.detector]
open_after_rows = 2
close_after_rows = 3
update_every_rows = 1000
"""
Floats = NDArray[np.float64]


class Node(Connection):
    """Sends what it is told to and waits for the answer."""

    def __init__(self, endpoint: str, stream: str) -> None:
        super().__init__(endpoint, stream)
        self.stream = stream
        opened = OpenStream(id=self.next_id(), stream=stream, session="s", channels=CHANNELS)
        assert isinstance(self.ask(opened)[0], StreamOpened)

    def ask(
        self, request: messages.Request, tensors: Tensors | None = None
    ) -> tuple[Reply, Tensors]:
        deadline_s = time.monotonic() + PATIENCE_S
        self.send(request, tensors, deadline_s)
        answer = self.receive(deadline_s)
        assert answer is not None
        assert answer[0].id == request.id
        return answer

    def push(self, sequence: int, values: NDArray[np.generic]) -> tuple[Reply, Tensors]:
        samples = Samples(
            id=self.next_id(),
            stream=self.stream,
            session="s",
            sequence=sequence,
            first_time_ns=10**18 + sequence * 10**8,
            rate_hz=10.0,
        )
        return self.ask(samples, {"values": values})


@dataclass
class Expected:
    """What must become of each row, one by one."""

    next_row: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    _never_came: set[int] = field(default_factory=set)
    _missing: list[int] = field(default_factory=lambda: [10**9, 10**9])  # rows since a value
    _value: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _recent: list[bool] = field(default_factory=list)  # looked back on: was anything missing?
    _before: float = 0.0  # mean magnitude of the row before, which the model remembers

    def take(self, row: int, values: Floats) -> tuple[RowState, float]:
        """State and score of one row that arrives."""
        if row < self.next_row:
            state, score = (LATE if row in self._never_came else REPEATED), np.nan
        else:
            gap = row - self.next_row
            if gap:
                self.counts["gaps"] += 1
                self.counts["missing"] += gap
                self._never_came |= set(range(self.next_row, row))
            if gap > MAX_FILL_ROWS:
                self._missing, self._recent, self._before = [10**9, 10**9], [], 0.0
            else:
                for _ in range(gap):
                    self._measure(np.array([np.nan, np.nan]))
            state, score = self._measure(values)
            self.next_row = row + 1
        self.counts[state.name.lower()] += 1
        return state, score

    def _measure(self, values: Floats) -> tuple[RowState, float]:
        missing = False
        for channel, value in enumerate(values):
            if np.isfinite(value):
                self._missing[channel], self._value[channel] = 0, float(value)
            else:
                self._missing[channel] += 1
                missing = True
        if min(self._missing) > MAX_FILL_ROWS:
            self._recent, self._before = [], 0.0
            return HOLE, np.nan
        present = [rows <= MAX_FILL_ROWS for rows in self._missing]
        now = float(np.mean(np.abs(self._value) * present))
        score, self._before = now + MEMORY * self._before, now
        self._recent = [*self._recent, missing][-LOOK_BACK:]
        if len(self._recent) < LOOK_BACK:
            return WARMING_UP, np.nan
        if not all(present):
            return PARTIAL, score
        return (FILLED if any(self._recent) else SCORED), score


def check(node: Node, expected: Expected, sequence: int, values: Floats) -> None:
    """Sends rows and compares everything that comes back."""
    wanted = [expected.take(sequence + i, row) for i, row in enumerate(values)]
    reply, tensors = node.push(sequence, values)
    assert isinstance(reply, Scores), reply
    assert tensors["states"].tolist() == [state for state, _ in wanted]
    scores = np.array([score for _, score in wanted])
    np.testing.assert_allclose(tensors["scores"], scores, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(np.isnan(tensors["scores"]), tensors["states"] > PARTIAL)
    assert reply.next_sequence == expected.next_row


def calm(rng: np.random.Generator, rows: int) -> Floats:
    """Rows that never score 3, with a quarter of the row before neither."""
    return rng.uniform(-2.0, 2.0, size=(rows, 2))


Fault = Callable[[np.random.Generator, Node, Expected], None]


def in_good_order(rng: np.random.Generator, node: Node, expected: Expected) -> None:
    check(node, expected, expected.next_row, calm(rng, int(rng.integers(1, 30))))


def values_missing(rng: np.random.Generator, node: Node, expected: Expected) -> None:
    values = calm(rng, 20)
    values[rng.random(values.shape) < 0.05] = rng.choice([np.nan, np.inf, -np.inf])
    check(node, expected, expected.next_row, values)


def a_channel_dead_for_a_while(rng: np.random.Generator, node: Node, expected: Expected) -> None:
    values = calm(rng, 25)
    values[5 : 5 + rng.integers(1, 15), rng.integers(2)] = np.nan
    check(node, expected, expected.next_row, values)


def all_channels_dead_for_a_while(rng: np.random.Generator, node: Node, expected: Expected) -> None:
    values = calm(rng, 25)
    for channel in range(2):  # not from the same row on, nor to the same row
        values[rng.integers(3, 8) : rng.integers(12, 20), channel] = np.nan
    check(node, expected, expected.next_row, values)


def rows_left_out(rng: np.random.Generator, node: Node, expected: Expected) -> None:
    check(node, expected, expected.next_row + int(rng.integers(1, 9)), calm(rng, 12))


def rows_that_come_late(rng: np.random.Generator, node: Node, expected: Expected) -> None:
    first, values = expected.next_row, calm(rng, 12)
    check(node, expected, first + 6, values[6:])
    check(node, expected, first, values[:6] * 100.0)  # loud, and yet no alert


def rows_sent_again_cut_otherwise(rng: np.random.Generator, node: Node, expected: Expected) -> None:
    back = min(expected.next_row, int(rng.integers(1, 10)))
    check(node, expected, expected.next_row - back, calm(rng, back + 7))


def a_message_sent_twice(rng: np.random.Generator, node: Node, expected: Expected) -> None:
    first, values = expected.next_row, calm(rng, 10)
    check(node, expected, first, values)
    once, scores = node.push(first, values * 100.0)  # by its number, not by what is in it
    again, same = node.push(first, values)
    assert isinstance(once, Scores)
    assert isinstance(again, Scores)
    np.testing.assert_array_equal(scores["scores"], same["scores"])
    assert again.next_sequence == expected.next_row
    expected.counts["repeated"] += 20


def what_is_no_sample(rng: np.random.Generator, node: Node, expected: Expected) -> None:
    bad: list[NDArray[np.generic]] = [
        np.ones((3, 5)),
        np.ones(4),
        np.ones((3, 2), np.int32),
        np.ones((2, 2, 2)),
        np.ones((5000, 2), np.float32),
        np.array([[True, False]]),
    ]
    reply, _ = node.push(expected.next_row, bad[rng.integers(len(bad))])
    assert isinstance(reply, Rejected)
    assert reply.code == "bad_input"


FAULTS: list[Fault] = [
    in_good_order,
    values_missing,
    a_channel_dead_for_a_while,
    all_channels_dead_for_a_while,
    rows_left_out,
    rows_that_come_late,
    rows_sent_again_cut_otherwise,
    a_message_sent_twice,
    what_is_no_sample,
]


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    return serve(tables=DETECTOR, memory=MEMORY)


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_stream_gets_a_named_state_for_each_row_and_disturbs_no_other(
    server: ServerProcess, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    bad, expected = Node(server.endpoint, "bad"), Expected()
    good_values = rng.normal(size=(3000, 2)).clip(-2, 2)
    good_parts = []
    met: Counter[str] = Counter()
    with (
        SensorStream(server.endpoint, "good", CHANNELS, rate_hz=100.0) as good,
        AlertFeed(server.endpoint, since=0) as feed,
    ):
        for start in range(0, 3000, 15):
            fault = FAULTS[rng.integers(len(FAULTS))]
            fault(rng, bad, expected)
            met[fault.__name__] += 1
            good_parts += good.send(good_values[start : start + 15])
        good_parts += good.flush()
        assert len(met) == len(FAULTS)

        status = bad.status()
        found = {k: v for k, v in status.streams["bad"].items() if k != "state"}
        assert found == dict(expected.counts)
        assert all(expected.counts[state.name.lower()] for state in RowState)
        assert status.streams["good"]["scored"] == 3000 - (LOOK_BACK - 1)
        assert status.counters["rejected.bad_input"] == met["what_is_no_sample"]

        scores = np.concatenate([part.scores for part in good_parts])
        wanted = np.abs(good_values).mean(axis=1)
        wanted[1:] += MEMORY * wanted[:-1]
        np.testing.assert_allclose(scores[LOOK_BACK - 1 :], wanted[LOOK_BACK - 1 :], rtol=1e-5)

        # All of it was calm: not one of these faults may raise an alert. Then one fault is real.
        row = expected.next_row
        check(bad, expected, row, calm(rng, LOOK_BACK))
        loud = np.full((4, 2), 9.0)
        loud[1, 0] = np.nan
        check(bad, expected, row + LOOK_BACK, loud)
        check(bad, expected, row + LOOK_BACK + 4, np.ones((4, 2)))  # the first remembers
        alerts = [e for e in feed.events(timeout_s=0.5) if isinstance(e, Alert)]
    bad.close()
    assert [(a.stream, a.event, a.row) for a in alerts] == [
        ("bad", "open", row + LOOK_BACK + 1),
        ("bad", "close", row + LOOK_BACK + 7),
    ]
    assert server.terminate() == 0
    assert "Traceback" not in server.log_path.read_text()


def test_heartbeats_name_what_is_wrong_with_each_stream(server: ServerProcess) -> None:
    # The last stream's own table calls it silent after 1.5 s.
    rng = np.random.default_rng(0)
    names = ("fine", "young", "lame", "dead", "bad")
    nodes = {name: Node(server.endpoint, name) for name in names}
    hello = nodes["fine"].hello()
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.setsockopt(zmq.SUBSCRIBE, messages.HEARTBEAT_TOPIC)
        subscriber.connect(hello.alerts[0])
        nodes["fine"].push(0, calm(rng, 20))
        nodes["young"].push(0, calm(rng, 3))
        for name, channels in (("lame", slice(1, 2)), ("dead", slice(None))):
            values = calm(rng, 20)
            values[10:, channels] = np.nan
            nodes[name].push(0, values)
        nodes["bad"].push(0, calm(rng, 20))
        wanted = {"fine": "normal", "young": "warming_up", "lame": "partial", "dead": "hole"}
        deadline_s, seen = time.monotonic() + PATIENCE_S, []
        while not seen or seen[-1] != {**wanted, "bad": "silent"}:
            assert time.monotonic() < deadline_s, seen
            if subscriber.poll(1000):
                beat = decode_published(subscriber.recv_multipart())
                assert isinstance(beat, Heartbeat)
                seen.append(beat.streams)
        assert {**wanted, "bad": "normal"} in seen
    for node in nodes.values():
        node.close()
