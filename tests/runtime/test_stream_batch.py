"""Streams that meet in one call of the engine: as alone, and what fails for one fails for it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.errors import EngineError
from limpet.contracts.messages import Failed, Rejected
from limpet.contracts.stream_messages import Scores
from limpet.contracts.tensors import Tensors
from limpet.runtime.server import Server
from tests.bundles import MAX_FILL_ROWS
from tests.runtime.feeding import (
    MODEL,
    SCORED,
    WARMING_UP,
    Floats,
    alerts,
    calm,
    counts,
    loud,
    push,
)
from tests.runtime.serving import (
    WARM_UP_ROWS,
    ObedientEngine,
    RawStream,
    obedient,
    serving,
    until,
)

MEMORY = 0.5


@pytest.fixture
def stream_threads() -> int:
    return 1


@pytest.fixture
def server(tmp_path: Path, stream_threads: int) -> Iterator[Server]:
    anomaly = {"memory": MEMORY, "threshold": 6.0}
    with serving(tmp_path, anomaly=anomaly, stream_threads=stream_threads) as running:
        yield running


@pytest.fixture
def engine(server: Server) -> ObedientEngine:
    return obedient(server, MODEL)


@pytest.fixture
def fleet(server: Server, engine: ObedientEngine) -> Iterator[list[RawStream]]:
    """Streams that are past their warm-up, with row 20 next."""
    with contextlib.ExitStack() as stack:
        endpoint = server.listening[0]
        streams = [stack.enter_context(RawStream(endpoint, f"s{i}")) for i in range(6)]
        for stream in streams:
            stream.push(0, calm(20))
        yield streams


@contextlib.contextmanager
def one_batch(
    server: Server, engine: ObedientEngine, first: RawStream, size: int
) -> Iterator[None]:
    """What is told in the block waits for an answer to `first`, and then runs together."""
    engine.runs = 0
    engine.gate.clear()
    first.tell(first.samples(20), {"values": calm(4)})
    until(lambda: engine.runs)
    yield
    until(lambda: server._workers[MODEL].waiting == size)
    engine.runs = 0
    engine.gate.set()
    assert isinstance(first.hear()[0], Scores)


def wanted(rows: Floats) -> Floats:
    """Scores of finite rows that follow a calm one."""
    magnitude = np.abs(np.concatenate([calm(1), rows])).mean(axis=1)
    return magnitude[1:] + MEMORY * magnitude[:-1]


def test_streams_that_wait_share_a_call_and_get_the_scores_that_they_get_alone(
    server: Server, engine: ObedientEngine, fleet: list[RawStream]
) -> None:
    first, *batch = fleet
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(size, 2)) for size in (4, 20, 20, 4, 20)]
    with one_batch(server, engine, first, len(batch)):
        for stream, values in zip(batch, rows, strict=True):
            stream.tell(stream.samples(20), {"values": values})
    for stream, values in zip(batch, rows, strict=True):
        reply, tensors = stream.hear()
        assert isinstance(reply, Scores)
        assert (reply.stream, reply.next_sequence) == (stream.stream, 20 + len(values))
        np.testing.assert_allclose(tensors["scores"], wanted(values), rtol=1e-5)
    assert engine.runs == 2  # one for each number of rows


def test_messages_of_a_stream_stay_in_order_and_the_sender_of_many_delays_others_by_one_batch(
    server: Server, engine: ObedientEngine, fleet: list[RawStream]
) -> None:
    first, eager, modest = fleet[:3]
    rows = np.random.default_rng(0).normal(size=(40, 2))
    with one_batch(server, engine, first, 11):
        for start in range(0, 40, 4):
            eager.tell(eager.samples(20 + start), {"values": rows[start : start + 4]})
        modest.tell(modest.samples(20), {"values": calm(4)})
    replies = [eager.hear() for _ in range(10)]
    assert [reply.sequence for reply, _ in replies if isinstance(reply, Scores)] == list(
        range(20, 60, 4)
    )
    scores = np.concatenate([tensors["scores"] for _, tensors in replies])
    np.testing.assert_allclose(scores, wanted(rows), rtol=1e-5)
    assert isinstance(modest.hear()[0], Scores)


def test_a_stream_that_cannot_be_scored_harms_no_other_in_its_batch(
    server: Server, engine: ObedientEngine, fleet: list[RawStream]
) -> None:
    first, *batch = fleet
    values = np.random.default_rng(0).normal(size=(4, 2))
    poison = np.full((4, 2), 13.0)
    hole = np.full((MAX_FILL_ROWS + 1, 2), np.nan)
    with one_batch(server, engine, first, len(batch)):

        def refuse(outputs: Tensors) -> Tensors:
            if (outputs["embedding"] == 13.0).any():
                raise EngineError("thirteen")
            return outputs

        engine.replace = refuse
        for stream, sent in zip(batch, (values, poison, values[:, :1], hole, values), strict=True):
            stream.tell(stream.samples(20), {"values": sent})
    good, failed, misfit, interrupted, last = batch
    for stream in (good, last):
        reply, tensors = stream.hear()
        assert isinstance(reply, Scores)
        np.testing.assert_allclose(tensors["scores"], wanted(values), rtol=1e-5)
        assert push(stream, 24, calm(4))[1] == [SCORED] * 4
    reply, _ = failed.hear()
    assert reply == Failed(id=reply.id, reason="thirteen")
    assert push(failed, 20, calm(4))[1] == [WARMING_UP] * 4
    reply, _ = misfit.hear()
    assert isinstance(reply, Rejected)
    assert reply.code == "bad_input"
    assert push(misfit, 20, calm(4))[1] == [SCORED] * 4
    assert isinstance(interrupted.hear()[0], Scores)
    assert counts(interrupted)["hole"] == 1
    assert push(interrupted, 24, calm(4))[1] == [WARMING_UP] * 4


def test_alerts_of_a_batch_are_committed_together_in_the_order_of_its_messages(
    server: Server, engine: ObedientEngine, fleet: list[RawStream]
) -> None:
    first, *batch = fleet
    with one_batch(server, engine, first, len(batch)):
        for stream in batch:
            stream.tell(stream.samples(20), {"values": loud(2)})
            until(lambda s=stream: counts(s)["state"])  # it has come
    incidents = [reply.incident for reply, _ in map(RawStream.hear, batch)]  # type: ignore[union-attr]
    assert incidents == [1, 2, 3, 4, 5]
    assert [alert.stream for alert in alerts(first)] == [stream.stream for stream in batch]


def test_alerts_that_cannot_be_written_fail_their_stream_alone(
    server: Server, engine: ObedientEngine, fleet: list[RawStream], tmp_path: Path
) -> None:
    first, bad, good, calm_one = fleet[:4]
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "alerts.db")) as disk:
        disk.execute(
            "CREATE TRIGGER full BEFORE INSERT ON alerts WHEN instr(new.body, CAST('s1' AS BLOB)) "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
        with one_batch(server, engine, first, 3):
            for stream, sent in ((bad, loud(2)), (good, loud(2)), (calm_one, calm(2))):
                stream.tell(stream.samples(20), {"values": sent})
        reply, _ = bad.hear()
        assert isinstance(reply, Failed)
        assert reply.reason.endswith("cannot be written: disk full")
        for stream, incident in ((good, 1), (calm_one, 0)):
            reply, _ = stream.hear()
            assert isinstance(reply, Scores)
            assert reply.incident == incident
        assert [alert.stream for alert in alerts(first)] == [good.stream]
        disk.execute("DROP TRIGGER full")
    reply, _, _ = bad.push(20, np.concatenate([calm(9), loud(2)]))
    assert isinstance(reply, Scores)
    assert reply.incident == 2


@pytest.mark.parametrize("stream_threads", [2])
def test_two_batches_run_at_a_time_and_never_with_a_stream_in_common(
    server: Server, engine: ObedientEngine, fleet: list[RawStream]
) -> None:
    first, second, *others = fleet
    rows = np.random.default_rng(0).normal(size=(12, 2))
    engine.runs = 0
    engine.gate.clear()
    for stream in (first, second):  # two threads are inside the engine
        stream.tell(stream.samples(20), {"values": rows[:4]})
        until(lambda s=stream: engine.runs == 1 + fleet.index(s))
    for stream in (first, second, *others):
        for start in (20, 24, 28):
            if start > 20 or stream in others:
                values = rows[start - 20 : start - 16]
                stream.tell(stream.samples(start), {"values": values})
    until(lambda: server._workers[MODEL].waiting == 2 * 2 + 3 * len(others))
    engine.gate.set()
    for stream in fleet:
        heard = [stream.hear() for _ in range(3)]
        assert [r.sequence for r, _ in heard if isinstance(r, Scores)] == [20, 24, 28]
        scores = np.concatenate([tensors["scores"] for _, tensors in heard])
        np.testing.assert_allclose(scores, wanted(rows), rtol=1e-5)


@pytest.mark.parametrize("stream_threads", [1, 2])
def test_while_the_log_waits_for_the_disk_others_are_answered_and_nothing_is_acknowledged(
    server: Server, engine: ObedientEngine, fleet: list[RawStream], stream_threads: int
) -> None:
    faulty, *others = fleet
    with server._log._lock:  # as during a slow commit
        engine.runs = 0
        faulty.tell(faulty.samples(20), {"values": loud(2)})
        until(lambda: engine.runs)
        # The I/O thread has its turns, and with a second thread streams are scored meanwhile.
        for _ in range(20):
            counts(others[0])
        if stream_threads == 2:
            assert push(others[1], 20, calm(4))[1] == [SCORED] * 4
        assert counts(faulty)["scored"] == 20 - WARM_UP_ROWS
        assert faulty.receive(time.monotonic() + 0.1) is None
    reply, _ = faulty.hear()
    assert isinstance(reply, Scores)
    assert reply.incident == 1
    assert [alert.sequence for alert in alerts(faulty)] == [1]
