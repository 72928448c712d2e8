"""Rows of a stream that are refused, and engines and logs that fail: nothing is lost."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.messages import Failed, Rejected
from limpet.contracts.stream_messages import Scores, StreamOpened
from limpet.runtime.server import Server
from limpet.runtime.stream import MAX_ROWS
from tests.runtime.feeding import (
    MODEL,
    SCORED,
    WARMING_UP,
    alerts,
    calm,
    counts,
    loud,
    push,
    ready,
)
from tests.runtime.serving import (
    WARM_UP_ROWS,
    RawStream,
    obedient,
)

# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.ones((3, 2), np.int32), {}, r"values are int32 \[3, 2\], wanted float32 or float64"),
        (np.ones((3, 2), np.float16), {}, r"values are float16 \[3, 2\], wanted float32"),
        (np.ones((3, 3)), {}, r"values are float64 \[3, 3\], wanted .* \[rows, 2\]"),
        (np.ones(3), {}, r"values are float64 \[3\], wanted"),
        (np.ones((1, 3, 2)), {}, r"values are float64 \[1, 3, 2\], wanted"),
        (np.ones((MAX_ROWS + 1, 2)), {}, f"{MAX_ROWS + 1} rows at once, at most {MAX_ROWS}"),
        (np.ones((3, 2)), {"first_time_ns": 2**63 - 1}, "3 rows at 10 Hz from .* end beyond"),
        (np.ones((3, 2)), {"rate_hz": 1e-10}, "3 rows at 1e-10 Hz from .* end beyond"),
        (np.ones((3, 2)), {"rate_hz": 5e-324}, "3 rows at .* end beyond"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_the_stream_goes_on(
    pump: RawStream, values: NDArray[Any], options: dict[str, Any], reason: str
) -> None:
    start = ready(pump)
    reply, _, _ = pump.push(start, values, **options)
    assert isinstance(reply, Rejected)
    assert reply.code == "bad_input"
    assert re.search(reason, reply.reason)
    assert push(pump, start, calm(3))[1] == [SCORED] * 3


def test_row_numbers_beyond_what_an_alert_can_carry_are_refused(server: Server) -> None:
    with RawStream(server.listening[0], next_sequence=2**62 - 30) as pump:
        values = np.concatenate([calm(20), loud(10)])
        reply, _, _ = pump.push(2**62 - 30, values, first_time_ns=10**18)
        assert isinstance(reply, Scores)
        reply, _, _ = pump.push(2**62, calm(1), first_time_ns=10**18)
        assert isinstance(reply, Rejected)
        assert reply.reason == f"row numbers end at {2**62}"
        assert [a.event for a in alerts(pump)] == ["open", "update"]


def test_the_log_stays_readable_at_the_last_time_that_is_accepted(
    server: Server, tmp_path: Path
) -> None:
    # One alert that cannot be decoded would spoil every page, and the next start of the server.
    with RawStream(server.listening[0]) as pump:
        values = np.concatenate([calm(20), loud(5)])
        reply, _, _ = pump.push(0, values, first_time_ns=2**63 - 26 * 10**9, rate_hz=1.0)
        assert isinstance(reply, Scores)
        (opened,) = alerts(pump)
        assert opened.time_ns == 2**63 - 26 * 10**9 + 21 * 10**9


def test_another_tensor_than_values_is_refused(pump: RawStream) -> None:
    pump.tell(pump.samples(0), {"rows": calm(3)})
    reply, _ = pump.hear()
    assert isinstance(reply, Rejected)
    assert reply.reason == "wanted tensor 'values', found ['rows']"


def test_samples_of_a_stream_that_was_not_opened_are_refused(pump: RawStream) -> None:
    pump.session = "another"
    reply, _, _ = pump.push(0, calm(3))
    assert isinstance(reply, Rejected)
    assert (reply.code, reply.hint) == ("unknown_stream", "open it again")


# Failures ----------------------------------------------------------------------------------------


def not_a_number(outputs: Any) -> Any:
    return {**outputs, "score": np.full_like(outputs["score"], np.nan)}


def infinite(outputs: Any) -> Any:
    return {**outputs, "score": np.full_like(outputs["score"], np.inf)}


def test_a_failing_engine_is_said_so_the_stream_warms_up_anew_and_others_do_not(
    server: Server,
) -> None:
    engine = obedient(server, MODEL)
    endpoint = server.listening[0]
    with RawStream(endpoint, "a") as a, RawStream(endpoint, "b") as b:
        start = ready(a)
        ready(b)
        engine.failure = RuntimeError("secret details")
        reply, _, _ = a.push(start, calm(4))
        assert reply == Failed(id=reply.id, reason="internal error, see the log")
        engine.failure = None
        assert counts(a)["state"] == "warming_up"
        assert push(b, start, calm(4))[1] == [SCORED] * 4
        assert push(a, start, calm(9))[1] == [WARMING_UP] * WARM_UP_ROWS + [SCORED] * 2
        assert a.status().counters["dropped.failed"] == 1


@pytest.mark.parametrize("garble", [not_a_number, infinite])
def test_a_model_that_computes_no_finite_score_fails_loudly(
    server: Server, garble: Callable[[Any], Any]
) -> None:
    engine = obedient(server, MODEL)
    with RawStream(server.listening[0]) as pump:
        start = ready(pump)
        engine.replace = garble
        reply, _, _ = pump.push(start, calm(4))
        assert isinstance(reply, Failed)
        assert reply.reason == "model 'tiny-anomaly' gave a score that is not finite"
        assert push(pump, start, calm(3))[1] == [WARMING_UP] * 3  # no score is asked for yet


def test_a_failure_ends_no_incident_and_counts_nothing_twice(server: Server) -> None:
    engine = obedient(server, MODEL)
    with RawStream(server.listening[0]) as pump:
        start = ready(pump) + 10  # a gap of ten rows
        engine.failure = RuntimeError("broken")
        for _ in range(3):
            assert isinstance(pump.push(start, calm(9))[0], Failed)
        assert "gaps" not in counts(pump)
        engine.failure = None
        assert pump.push(start, np.concatenate([calm(9), loud(2)]))[0].incident == 1
        assert (counts(pump)["gaps"], counts(pump)["missing"]) == (1, 10)
        engine.failure = RuntimeError("broken")
        assert isinstance(pump.push(start + 11, calm(9))[0], Failed)
        engine.failure = None
        assert counts(pump)["state"] == "incident"
        reply, _, _ = pump.push(start + 11, calm(9))
        assert isinstance(reply, Scores)
        assert reply.incident == 1


def test_rows_whose_alerts_cannot_be_written_are_not_acknowledged(
    server: Server, tmp_path: Path
) -> None:
    with (
        RawStream(server.listening[0]) as pump,
        contextlib.closing(sqlite3.connect(tmp_path / "state" / "alerts.db")) as disk,
    ):
        start = ready(pump)
        disk.execute(
            "CREATE TRIGGER full BEFORE INSERT ON alerts "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
        for _ in range(2):
            reply, _, _ = pump.push(start, np.concatenate([calm(9), loud(3)]))
            assert isinstance(reply, Failed)
            assert reply.reason.endswith("alerts.db cannot be written: disk full")
        opened = pump.ask(pump.opening())
        assert isinstance(opened, StreamOpened)
        assert opened.next_sequence == start
        assert alerts(pump) == []
        disk.execute("DROP TRIGGER full")
        reply, _, _ = pump.push(start, np.concatenate([calm(9), loud(3)]))
        assert isinstance(reply, Scores)
        assert (reply.incident, reply.next_sequence) == (1, start + 12)
        (opened_alert,) = alerts(pump)
        assert (opened_alert.event, opened_alert.row, opened_alert.rows) == ("open", start + 10, 2)
