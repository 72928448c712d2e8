from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.errors import ConfigError
from limpet.contracts.messages import Rejected
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.stream_messages import CloseStream, Scores, StreamClosed, StreamOpened
from limpet.runtime.config import DetectorConfig, StreamConfig
from limpet.runtime.server import Server
from limpet.runtime.stream import CREDITS, MAX_ROWS
from tests.bundles import anomaly_manifest, tiny_scorer
from tests.runtime.feeding import MODEL, SCORED, WARMING_UP, alerts, calm, loud, push, ready
from tests.runtime.serving import (
    CHANNELS,
    QUICK,
    WARM_UP_ROWS,
    RawStream,
    obedient,
    server_config,
    serving,
    until,
)

# Opening -----------------------------------------------------------------------------------------


def test_an_opened_stream_says_what_it_takes(pump: RawStream) -> None:
    assert pump.opened == StreamOpened(
        id=pump.opened.id,
        stream="pump",
        next_sequence=0,
        credits=CREDITS,
        max_rows=MAX_ROWS,
        warm_up_rows=WARM_UP_ROWS,
        model=MODEL,
        threshold=3.0,
    )


def test_channels_are_found_by_name_whatever_their_order_and_company(server: Server) -> None:
    values = np.random.default_rng(1).normal(size=(40, 4))
    values[30:] *= 20.0
    columns = [3, 1]  # of `CHANNELS`
    with RawStream(server.listening[0], channels=["x", "current", "y", "speed"]) as pump:
        scores, _ = push(pump, 0, values)
        (opened,) = (a for a in alerts(pump) if a.event == "open")
    offline = SignalScorer(anomaly_manifest(), tiny_scorer).push(values[:, columns])
    np.testing.assert_allclose(scores, offline.scores, rtol=0, atol=1e-5)
    row = np.abs(values[opened.row, columns])
    assert {c.name: pytest.approx(c.share) for c in opened.channels} == dict(
        zip(CHANNELS, row / row.sum(), strict=True)
    )


def test_a_stream_that_lacks_a_channel_is_refused_and_does_not_take_the_name(
    server: Server,
) -> None:
    with RawStream(server.listening[0], session="wrong", channels=["speed", "temp"]) as wrong:
        assert wrong.opened == Rejected(
            id=wrong.opened.id,
            code="bad_input",
            reason="stream 'pump' lacks channel 'current', found ['speed', 'temp']",
            hint=f"model 'tiny-anomaly' wants {CHANNELS}",
        )
        assert wrong.status().streams == {}
        with RawStream(server.listening[0], session="right") as right:
            assert isinstance(right.opened, StreamOpened)


def test_reopening_without_a_channel_is_refused_and_the_stream_goes_on_as_it_was(
    pump: RawStream,
) -> None:
    start = ready(pump)
    refused = pump.ask(pump.opening(channels=["speed"]))
    assert isinstance(refused, Rejected)
    assert push(pump, start, calm(3))[1] == [SCORED] * 3


@pytest.mark.parametrize("model", ["identity", "nobody"])
def test_a_model_that_scores_no_streams_is_refused(server: Server, model: str) -> None:
    with RawStream(server.listening[0], model=model) as pump:
        assert isinstance(pump.opened, Rejected)
        assert pump.opened.code == "unknown_model"
        assert pump.opened.hint == "models that do: tiny-anomaly"


def test_a_stream_that_no_table_fits_is_refused(tmp_path: Path) -> None:
    with (
        serving(tmp_path, streams=[StreamConfig(match="press-*")]) as server,
        RawStream(server.listening[0]) as pump,
        RawStream(server.listening[0], "press-1") as press,
    ):
        assert isinstance(pump.opened, Rejected)
        assert pump.opened.reason == "no [[streams]] table fits 'pump'"
        assert isinstance(press.opened, StreamOpened)


def test_a_second_session_is_refused_while_the_first_lives_and_welcome_after_its_close(
    server: Server,
) -> None:
    endpoint = server.listening[0]
    with RawStream(endpoint, session="first") as first:
        with RawStream(endpoint, session="second") as second:
            assert isinstance(second.opened, Rejected)
            assert second.opened.code == "stream_taken"
            assert "silent for 10 s" in second.opened.hint
            start = ready(first)
            close = CloseStream(id=first.next_id(), stream="pump", session="first")
            closed = first.ask(close)
            assert isinstance(closed, StreamClosed)
            assert closed.next_sequence == start
            assert isinstance(second.ask(second.opening()), StreamOpened)
            assert push(second, 0, calm(8))[1] == [WARMING_UP] * WARM_UP_ROWS + [SCORED]
        reply, _, _ = first.push(start, calm(1))
        assert isinstance(reply, Rejected)
        assert reply.code == "unknown_stream"


def test_a_second_session_takes_a_silent_stream_over(tmp_path: Path) -> None:
    tables = [StreamConfig(silent_after_s=0.1, detector=QUICK)]
    with serving(tmp_path, streams=tables) as server:
        endpoint = server.listening[0]
        with RawStream(endpoint, session="first") as first, RawStream(endpoint, "spy") as spy:
            start = ready(first)
            until(lambda: spy.status().streams["pump"]["state"] == "silent")
            with RawStream(endpoint, session="second") as second:
                assert isinstance(second.opened, StreamOpened)
                reply, _, _ = first.push(start, calm(1))
                assert isinstance(reply, Rejected)
                assert reply.code == "unknown_stream"
                assert push(second, 0, calm(1))[1] == [WARMING_UP]


def test_a_stream_is_not_silent_while_its_rows_wait_here(tmp_path: Path) -> None:
    # Else another session could take it over, and both would open incidents.
    with serving(tmp_path, streams=[StreamConfig(silent_after_s=0.05)]) as server:
        engine = obedient(server, MODEL)
        endpoint = server.listening[0]
        with RawStream(endpoint, session="first") as first, RawStream(endpoint, "spy") as spy:
            engine.gate.clear()
            first.tell(first.samples(0), {"values": calm(20)})
            until(lambda: engine.runs)
            seen = {spy.status().streams["pump"]["state"] for _ in range(200)}
            until(lambda: spy.status().streams["spy"]["state"] == "silent")
            seen.add(spy.status().streams["pump"]["state"])
            assert seen == {"warming_up"}
            with RawStream(endpoint, session="second") as second:
                assert isinstance(second.opened, Rejected)
                assert second.opened.code == "stream_taken"
            engine.gate.set()
            assert isinstance(first.hear()[0], Scores)
            until(lambda: spy.status().streams["pump"]["state"] == "silent")


def test_a_session_must_open_the_stream_again_over_a_new_connection(server: Server) -> None:
    # The old connection may have lost messages, which must come before any new ones.
    endpoint = server.listening[0]
    with RawStream(endpoint) as old, RawStream(endpoint, "other") as new:
        start = ready(old)
        new.stream = "pump"
        reply, _, _ = new.push(start + 5, calm(1))
        assert isinstance(reply, Rejected)
        assert (reply.code, reply.hint) == ("unknown_stream", "open it again")
        opened = new.ask(new.opening(next_sequence=0))
        assert isinstance(opened, StreamOpened)
        assert opened.next_sequence == start
        assert push(new, start, calm(5))[1] == [SCORED] * 5
        reply, _, _ = old.push(start + 5, calm(1))
        assert isinstance(reply, Rejected)
        assert reply.code == "unknown_stream"


def test_streams_are_bounded_and_a_silent_one_makes_room(tmp_path: Path) -> None:
    tables = [StreamConfig(match="brief", silent_after_s=0.1), StreamConfig()]
    with serving(tmp_path, streams=tables, max_streams=2) as server:
        endpoint = server.listening[0]
        with contextlib.ExitStack() as stack:
            brief, long = (stack.enter_context(RawStream(endpoint, n)) for n in ("brief", "long"))
            third = stack.enter_context(RawStream(endpoint, "third"))
            if isinstance(third.opened, Rejected):  # unless `brief` was silent already
                assert third.opened.code == "overloaded"
            until(lambda: isinstance(third.ask(third.opening()), StreamOpened))
            assert sorted(long.status().streams) == ["long", "third"]
            reply, _, _ = brief.push(0, calm(1))
            assert isinstance(reply, Rejected)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (StreamConfig(model="identity"), "name model 'identity', which is not served or scores"),
        (StreamConfig(model="nobody"), "name model 'nobody', which is not served or scores"),
        (
            StreamConfig(detector=DetectorConfig(release_threshold=3.5)),
            r"release_threshold is 3\.5, wanted at most the threshold of model 'tiny-anomaly', 3",
        ),
    ],
)
def test_a_table_that_cannot_work_stops_the_server_at_its_start(
    tmp_path: Path, table: StreamConfig, message: str
) -> None:
    config = server_config(tmp_path, streams=[table])
    with pytest.raises(ConfigError, match=message):
        Server(config)
    Server(server_config(tmp_path))._shut_down()  # the first left nothing locked


# What heartbeats say -----------------------------------------------------------------------------


def steps() -> Sequence[tuple[NDArray[Any], str]]:
    return [
        (calm(3), "warming_up"),
        (calm(9), "normal"),
        (np.full((2, 2), np.nan), "filled"),
        (np.full((4, 2), np.nan), "hole"),
        (calm(8), "normal"),
        (np.tile([1.0, np.nan], (4, 1)), "partial"),
        (calm(8), "normal"),
        (loud(2), "incident"),
        (calm(3), "normal"),
    ]


def test_a_streams_state_follows_its_rows_and_ends_in_silence(tmp_path: Path) -> None:
    tables = [StreamConfig(match="watched", detector=QUICK, silent_after_s=0.3), StreamConfig()]
    with serving(tmp_path, streams=tables) as server:
        endpoint = server.listening[0]
        with RawStream(endpoint, "watched") as watched, RawStream(endpoint, "other") as other:
            sequence = 0
            for values, state in steps():
                push(watched, sequence, values)
                sequence += len(values)
                assert other.status().streams["watched"]["state"] == state
            until(lambda: other.status().streams["watched"]["state"] == "silent")
            push(watched, sequence, calm(1))
            assert other.status().streams["watched"]["state"] == "normal"
            assert other.status().streams["other"]["state"] == "warming_up"
