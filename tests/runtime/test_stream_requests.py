"""How many messages of a stream may wait, and what becomes of one too many."""

from __future__ import annotations

import contextlib
from pathlib import Path

from limpet.contracts.messages import Rejected
from limpet.contracts.stream_messages import Scores, StreamOpened
from limpet.runtime.server import Server
from limpet.runtime.stream import CREDITS
from tests.runtime.feeding import (
    MODEL,
    SCORED,
    calm,
    push,
)
from tests.runtime.serving import (
    RawStream,
    obedient,
    serving,
    until,
)


def test_more_messages_than_credits_are_refused_until_one_is_answered(server: Server) -> None:
    engine = obedient(server, MODEL)
    with RawStream(server.listening[0]) as pump:
        engine.gate.clear()
        for i in range(CREDITS + 3):
            pump.tell(pump.samples(8 * i), {"values": calm(8)})
        for _ in range(3):
            reply, _ = pump.hear()
            assert isinstance(reply, Rejected)
            assert reply.code == "no_credit"
        engine.gate.set()
        answers = [pump.hear()[0] for _ in range(CREDITS)]
        assert [a.sequence for a in answers if isinstance(a, Scores)] == [
            8 * i for i in range(CREDITS)
        ]
        assert push(pump, 8 * CREDITS, calm(1))[1] == [SCORED]


def test_a_credit_is_free_as_soon_as_its_answer_is_read(server: Server) -> None:
    with RawStream(server.listening[0]) as pump:
        for i in range(CREDITS):
            pump.tell(pump.samples(i), {"values": calm(1)})
        for i in range(CREDITS, 1000):
            assert isinstance(pump.hear()[0], Scores)
            pump.tell(pump.samples(i), {"values": calm(1)})
        assert all(isinstance(pump.hear()[0], Scores) for _ in range(CREDITS))


def test_streams_have_credits_of_their_own(server: Server) -> None:
    engine = obedient(server, MODEL)
    endpoint = server.listening[0]
    with RawStream(endpoint, "a") as a, RawStream(endpoint, "b") as b:
        engine.gate.clear()
        for i in range(CREDITS + 1):
            a.tell(a.samples(8 * i), {"values": calm(8)})
        assert isinstance(a.hear()[0], Rejected)
        b.tell(b.samples(0), {"values": calm(8)})
        engine.gate.set()
        assert isinstance(b.hear()[0], Scores)


def waiting(server: Server) -> int:
    return server._workers[MODEL].waiting


def test_after_a_full_queue_a_stream_takes_nothing_until_it_is_opened_again(
    tmp_path: Path,
) -> None:
    # Else the rows that follow would be taken, and those that were refused come late.
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path, queue=1, stream_threads=1))
        engine = obedient(server, MODEL)
        pump, runs, waits = (
            stack.enter_context(RawStream(server.listening[0], name)) for name in "abc"
        )
        push(pump, 0, calm(8))
        engine.runs = 0
        engine.gate.clear()
        runs.tell(runs.samples(0), {"values": calm(8)})
        until(lambda: engine.runs)
        waits.tell(waits.samples(0), {"values": calm(8)})
        until(lambda: waiting(server) == 1)
        reply, _, _ = pump.push(8, calm(8))
        assert isinstance(reply, Rejected)
        assert reply.code == "overloaded"
        assert "open the stream again" in reply.hint
        for stream in (runs, waits):  # who runs, or has a place, may send on
            for sequence in (8, 16):
                stream.tell(stream.samples(sequence), {"values": calm(8)})
        until(lambda: waiting(server) == 5)
        engine.gate.set()
        for stream in (runs, waits):
            answers = [stream.hear()[0] for _ in range(3)]
            assert [a.sequence for a in answers if isinstance(a, Scores)] == [0, 8, 16]
        reply, _, _ = pump.push(16, calm(8))
        assert isinstance(reply, Rejected)
        assert reply.code == "unknown_stream"
        opened = pump.ask(pump.opening())
        assert isinstance(opened, StreamOpened)
        assert opened.next_sequence == 8
        assert push(pump, 8, calm(8))[1] == [SCORED] * 8
