from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.clock import Clock
from limpet.contracts.errors import FailedError, RejectedError, RequestTimeoutError
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signals import RowState
from limpet.runtime import sensor
from limpet.runtime.connection import Connection
from limpet.runtime.sensor import ScoredRows, SensorStream
from limpet.runtime.server import Server
from limpet.runtime.stream import CREDITS, MAX_ROWS
from tests.bundles import MAX_FILL_ROWS, anomaly_manifest, tiny_scorer
from tests.runtime.serving import (
    CHANNELS,
    PATIENCE_S,
    WARM_UP_ROWS,
    Proxy,
    RawStream,
    obedient,
    serving,
    until,
)

SCORED, FILLED, PARTIAL, WARMING_UP, HOLE, REPEATED, LATE = RowState
MODEL = "tiny-anomaly"
Floats = NDArray[np.float64]


def unacknowledged(pump: SensorStream) -> int:
    """Rows that it keeps until they are acknowledged."""
    return sum(len(rows.values) for rows in pump._waiting.values())


def connect(endpoint: str, stream: str = "pump", **options: Any) -> SensorStream:
    return SensorStream(endpoint, stream, CHANNELS, **{"rate_hz": 100.0, **options})


def noise(rows: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, 2))


def joined(parts: Sequence[ScoredRows], rows: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Scores and states of rows 0 … rows - 1, each of which must be acknowledged exactly once."""
    sequence = np.concatenate([p.sequence + np.arange(len(p.scores)) for p in parts])
    np.testing.assert_array_equal(np.sort(sequence), np.arange(rows))
    order = np.argsort(sequence)
    scores = np.concatenate([p.scores for p in parts])[order]
    states = np.concatenate([p.states for p in parts])[order]
    np.testing.assert_array_equal(np.isnan(scores), states > PARTIAL)
    return scores, states


def offline(values: Floats) -> NDArray[np.float32]:
    return SignalScorer(anomaly_manifest(), tiny_scorer).push(values).scores


def send_and_flush(stream: SensorStream, values: NDArray[Any]) -> list[ScoredRows]:
    return stream.send(values) + stream.flush()


def counters(endpoint: str, stream: str = "pump") -> dict[str, int | str]:
    connection = Connection(endpoint)
    try:
        return connection.status().streams[stream]
    finally:
        connection.close()


@pytest.mark.parametrize("size", [1, 3, 64, 1000])
def test_every_row_is_acknowledged_once_with_the_score_it_has_offline(
    server: Server, size: int
) -> None:
    values = noise(1000)
    values[300:304] = np.nan
    values[600, 1] = np.inf
    parts = []
    with connect(server.listening[0]) as pump:
        for start in range(0, len(values), size):
            parts += pump.send(values[start : start + size])
            assert unacknowledged(pump) <= CREDITS * size
        parts += pump.flush()
        assert unacknowledged(pump) == 0
        assert pump.flush() == []
    scores, _ = joined(parts, len(values))
    assert [p.sequence for p in parts] == sorted(p.sequence for p in parts)
    np.testing.assert_allclose(scores, offline(values), rtol=0, atol=1e-6)
    assert all(0.0 < p.latency_s < 10.0 for p in parts)


def test_rows_beyond_what_one_message_takes_go_in_several(server: Server) -> None:
    values = noise(2 * MAX_ROWS + 5)
    with connect(server.listening[0]) as pump:
        parts = send_and_flush(pump, values)
        assert [len(p.scores) for p in parts] == [MAX_ROWS, MAX_ROWS, 5]
    scores, _ = joined(parts, len(values))
    np.testing.assert_allclose(scores, offline(values), rtol=0, atol=1e-6)


def test_no_rows_are_nothing_to_send(server: Server) -> None:
    with connect(server.listening[0]) as pump:
        assert pump.send(np.empty((0, 2))) == []
        assert pump.flush() == []


def test_skipped_rows_are_a_gap(server: Server) -> None:
    with connect(server.listening[0]) as pump:
        pump.send(noise(20))
        pump.skip(MAX_FILL_ROWS)
        pump.send(noise(20))
        pump.skip(50)
        pump.send(noise(20))
        parts = pump.flush()
        assert [p.sequence for p in parts] == [0, 20 + MAX_FILL_ROWS, 90 + MAX_FILL_ROWS]
        assert parts[1].states.tolist() == [FILLED] * WARM_UP_ROWS + [SCORED] * 13
        assert parts[2].states.tolist() == [WARMING_UP] * WARM_UP_ROWS + [SCORED] * 13
        found = counters(server.listening[0])
        assert (found["gaps"], found["missing"]) == (2, 50 + MAX_FILL_ROWS)


def test_the_open_incident_comes_with_the_rows(server: Server) -> None:
    with connect(server.listening[0]) as pump:
        values = np.concatenate([np.ones((20, 2)), np.full((4, 2), 9.0), np.ones((4, 2))])
        incidents = [part.incident for row in values for part in pump.send(row[None])]
        incidents += [part.incident for part in pump.flush()]
        assert incidents == [0] * 21 + [1] * 5 + [0] * 2


def test_sending_waits_only_while_the_credits_are_used_up(server: Server) -> None:
    engine = obedient(server, MODEL)
    with connect(server.listening[0]) as pump:
        pump.send(noise(WARM_UP_ROWS))
        pump.flush()
        engine.gate.clear()
        for _ in range(CREDITS):
            assert pump.send(noise(1)) == []
        assert unacknowledged(pump) == CREDITS
        threading.Timer(0.05, engine.gate.set).start()
        assert pump.send(noise(1)) != []
        pump.flush()


# The network -------------------------------------------------------------------------------------


def test_a_network_that_breaks_again_and_again_costs_neither_rows_nor_scores(
    server: Server,
) -> None:
    values = noise(2000)
    parts = []
    with Proxy(server.listening[0]) as proxy, connect(proxy.endpoint) as pump:
        for i, start in enumerate(range(0, len(values), 5)):
            parts += pump.send(values[start : start + 5])
            if i % 80 == 40:
                proxy.cut()
        parts += pump.flush()
        found = counters(server.listening[0])
    scores, states = joined(parts, len(values))
    assert states.tolist() == [WARMING_UP] * WARM_UP_ROWS + [SCORED] * (2000 - WARM_UP_ROWS)
    np.testing.assert_allclose(scores, offline(values), rtol=0, atol=1e-6)
    assert not {"late", "gaps", "missing"} & set(found)
    assert found["scored"] == 2000 - WARM_UP_ROWS


def test_rows_wait_while_nothing_comes_through_and_go_when_it_does_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "RESEND_AFTER_S", 0.1)
    values = noise(100)
    with Proxy(server.listening[0]) as proxy, connect(proxy.endpoint, timeout_s=0.3) as pump:
        parts = pump.send(values[:50]) + pump.flush()
        proxy.freeze()
        pump.send(values[50:])
        start = time.monotonic()
        with pytest.raises(RequestTimeoutError, match=r"nothing acknowledged for 0\.3 s by tcp"):
            pump.flush()
        assert time.monotonic() - start < 5.0
        assert unacknowledged(pump) == 50
        proxy.cut()
        parts += pump.flush()
        scores, _ = joined(parts, 100)
        np.testing.assert_allclose(scores, offline(values), rtol=0, atol=1e-6)


def test_a_slow_server_is_waited_for_as_long_as_it_acknowledges_something(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "RESEND_AFTER_S", 0.02)
    engine = obedient(server, MODEL)
    with connect(server.listening[0], timeout_s=0.6) as pump:
        pump.send(noise(WARM_UP_ROWS))
        pump.flush()

        def slowly(outputs: Any) -> Any:
            time.sleep(0.1)
            return outputs

        engine.replace = slowly
        for _ in range(CREDITS):  # 1.6 s in all, beyond the timeout
            pump.send(noise(1))
        parts = pump.flush()
        assert sum(len(p.scores) for p in parts) == CREDITS
        assert {int(s) for p in parts for s in p.states} == {SCORED}


def test_a_full_queue_delays_rows_and_keeps_their_order(tmp_path: Path) -> None:
    values = noise(300)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path, queue=1, stream_threads=1))
        engine = obedient(server, MODEL)
        pump = stack.enter_context(connect(server.listening[0]))
        others = [stack.enter_context(RawStream(server.listening[0], name)) for name in "ab"]
        engine.gate.clear()
        for other, under_way in zip(others, (0, 1), strict=True):  # one runs, one waits
            other.tell(other.samples(0), {"values": noise(WARM_UP_ROWS)})
            until(lambda n=under_way: engine.runs and server._workers[MODEL].waiting == n)
        threading.Timer(0.1, engine.gate.set).start()
        parts = []
        for start in range(0, 300, 10):
            parts += pump.send(values[start : start + 10])
        parts += pump.flush()
        assert "rejected.overloaded" in pump._connection.status().counters
    scores, _ = joined(parts, 300)
    np.testing.assert_allclose(scores, offline(values), rtol=0, atol=1e-6)


# Restarts ----------------------------------------------------------------------------------------


def fixed(server: Server) -> dict[str, Any]:
    """Options with which another server takes this one's place."""
    return {"listen": tuple(server.listening), "publish": tuple(server.publishing)}


def test_a_stream_goes_on_by_itself_when_its_server_is_replaced(tmp_path: Path) -> None:
    values = noise(400)
    with serving(tmp_path) as first:
        pump = connect(first.listening[0])
        parts = pump.send(values[:200]) + pump.flush()
        parts += pump.send(values[200:210])
    with pump, serving(tmp_path, **fixed(first)):
        for start in range(210, 400, 10):
            parts += pump.send(values[start : start + 10])
        parts += pump.flush()
    scores, states = joined(parts, 400)
    scored = states == SCORED
    # One warm-up at the start, one after the restart, and nothing late or missing.
    assert (states == WARMING_UP).sum() == 2 * WARM_UP_ROWS == (~scored).sum()
    np.testing.assert_allclose(scores[scored], offline(values)[scored], rtol=0, atol=1e-6)


def test_rows_sent_while_there_is_no_server_reach_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "RESEND_AFTER_S", 0.05)
    values = noise(100)
    with serving(tmp_path) as first:
        pump = connect(first.listening[0], timeout_s=0.3)
        parts = pump.send(values[:20]) + pump.flush()
    pump._connection._clock_measured_s = -1e9  # the clock is due to be measured as well
    for start in range(20, 100, 10):
        pump.send(values[start : start + 10])
    with pytest.raises(RequestTimeoutError, match="nothing acknowledged"):
        pump.flush()
    assert unacknowledged(pump) == 80
    pump._timeout_s = PATIENCE_S
    with pump, serving(tmp_path, **fixed(first)):
        parts += pump.flush()
    joined(parts, 100)


def test_a_server_that_no_longer_takes_the_stream_is_an_error(tmp_path: Path) -> None:
    with serving(tmp_path / "one") as first:
        pump = connect(first.listening[0], timeout_s=5.0)
        pump.send(noise(20))
        pump.flush()
    options = {**fixed(first), "anomaly": {"channels": ("speed", "torque")}}
    with (
        pump,
        serving(tmp_path / "other", **options),
        pytest.raises(RejectedError, match="lacks channel 'torque'"),
    ):
        send_and_flush(pump, noise(1))


# Refusals and failures ---------------------------------------------------------------------------


def test_no_server_is_an_error_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(RequestTimeoutError, match="no server at"):
        connect(f"tcp://127.0.0.1:{port}", timeout_s=0.2)
    assert time.monotonic() - start < 5.0


def test_a_server_that_never_answers_is_an_error_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        endpoint = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(RequestTimeoutError):
            connect(endpoint, timeout_s=0.2)


def test_a_name_in_use_is_an_error_and_free_again_after_its_stream_closes(
    server: Server,
) -> None:
    endpoint = server.listening[0]
    with connect(endpoint), pytest.raises(RejectedError, match="fed by another node") as caught:
        connect(endpoint)
    assert caught.value.code == "stream_taken"
    connect(endpoint).close()


@pytest.mark.parametrize("bad", [np.ones((5, 3)), np.ones(5), np.ones((5, 2), np.int64)])
def test_rows_that_do_not_fit_are_an_error_and_those_that_follow_are_scored(
    server: Server, bad: NDArray[Any]
) -> None:
    with connect(server.listening[0]) as pump:
        pump.send(noise(20))
        pump.flush()
        with pytest.raises(RejectedError, match="values are"):
            send_and_flush(pump, bad)
        assert unacknowledged(pump) == 0
        (part,) = send_and_flush(pump, noise(20))
        assert part.sequence == 25
        assert part.states.tolist() == [WARMING_UP] * WARM_UP_ROWS + [SCORED] * 13


def test_rows_that_could_not_be_scored_are_an_error_and_those_that_follow_are_scored(
    server: Server,
) -> None:
    engine = obedient(server, MODEL)
    with connect(server.listening[0]) as pump:
        pump.send(noise(20))
        pump.flush()
        engine.failure = RuntimeError("broken")
        with pytest.raises(FailedError, match="internal error"):
            send_and_flush(pump, noise(5))
        engine.failure = None
        (part,) = send_and_flush(pump, noise(10))
        assert part.sequence == 25
        assert part.states[-1] == SCORED


def test_a_failure_that_comes_while_the_clock_is_measured_is_not_lost(server: Server) -> None:
    engine = obedient(server, MODEL)
    with connect(server.listening[0]) as pump:
        pump.send(noise(20))
        pump.flush()
        engine.failure = RuntimeError("broken")
        engine.gate.clear()
        assert pump.send(noise(5)) == []
        engine.gate.set()
        assert pump._connection._socket.poll(1000 * PATIENCE_S)  # the failure is here, unread
        engine.failure = None
        pump._connection._clock_measured_s = -1e9
        with pytest.raises(FailedError):
            pump.send(noise(5))
        assert [p.sequence for p in pump.flush()] == [25]


def an_hour_ahead(of: type[Clock]) -> type[Clock]:
    class Ahead(of):  # type: ignore[misc, valid-type]
        def now_ns(self) -> int:
            return int(super().now_ns()) + 3600 * 10**9

    return Ahead


@pytest.mark.parametrize("given", [True, False])
def test_alerts_carry_the_servers_time_of_what_this_hosts_clock_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    monkeypatch.setattr("limpet.runtime.server.Clock", an_hour_ahead(Clock))
    values = np.concatenate([np.ones((20, 2)), np.full((4, 2), 9.0)])
    with serving(tmp_path) as server, connect(server.listening[0], rate_hz=10.0) as pump:
        now_ns = time.time_ns()
        pump.send(values, first_time_ns=now_ns if given else None)
        pump.flush()
        page, _ = pump._connection.request(
            messages.GetAlerts(id=pump._connection.next_id(), since=0), messages.AlertPage, 5.0
        )
    (opened,) = page.alerts
    first_ns = now_ns if given else now_ns - 23 * 10**8  # else the last row was measured now
    wanted_ns = first_ns + 3600 * 10**9 + 21 * 10**8
    assert abs(opened.time_ns - wanted_ns) < 2 * 10**8
    assert opened.start_time_ns == opened.time_ns - 10**8
