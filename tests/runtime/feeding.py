"""What tests of streams share: rows that score high or low, and how to send them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.signal_steps import BandEnergies, HoldLast, SignalStep
from limpet.contracts.signals import RowState
from limpet.contracts.stream_messages import Scores
from tests.bundles import MAX_FILL_ROWS
from tests.runtime.serving import WARM_UP_ROWS, RawStream

SCORED, FILLED, PARTIAL, WARMING_UP, HOLE, REPEATED, LATE = RowState
MODEL = "tiny-anomaly"
Floats = NDArray[np.float64]


VIBRATION: list[SignalStep] = [
    HoldLast(max_rows=MAX_FILL_ROWS),
    BandEnergies(frame_rows=12, hop_rows=5, bands=3),
]


def calm(rows: int) -> Floats:
    """Rows that all score 1."""
    return np.ones((rows, 2))


def loud(rows: int, level: float = 9.0) -> Floats:
    return np.full((rows, 2), level)


def ready(stream: RawStream) -> int:
    """Warms a stream up; the next sequence number."""
    reply, _, states = stream.push(0, calm(20))
    assert isinstance(reply, Scores)
    assert set(states[WARM_UP_ROWS:]) == {SCORED}
    return 20


def push(stream: RawStream, sequence: int, values: NDArray[Any]) -> tuple[Floats, list[RowState]]:
    """Sends rows that must be acknowledged; their scores and states, which must agree."""
    reply, scores, states = stream.push(sequence, values)
    assert isinstance(reply, Scores), reply
    assert (reply.sequence, len(scores), len(states)) == (sequence, len(values), len(values))
    assert scores.dtype == np.float32
    # Never a silent score: a number if and only if the row's state says that it is scored.
    np.testing.assert_array_equal(np.isnan(scores), states > PARTIAL)
    return scores, [RowState(int(state)) for state in states]


def counts(stream: RawStream) -> dict[str, int | str]:
    return stream.status().streams[stream.stream]


def alerts(connection: RawStream, since: int = 0) -> list[messages.Alert]:
    page = connection.ask(messages.GetAlerts(id=connection.next_id(), since=since))
    assert isinstance(page, messages.AlertPage)
    return page.alerts
