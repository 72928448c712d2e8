"""Alerts to append to a log, and logs that are closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from limpet.contracts.correlation import GroupingConfig
from limpet.contracts.fingerprints import Fingerprint
from limpet.contracts.messages import Alert, ChannelShare
from limpet.runtime.alert_log import AlertLog

Open = Callable[..., AlertLog]


@contextmanager
def opening(path: Path) -> Iterator[Open]:
    """Opens logs at a path, which are closed at the end."""
    logs: list[AlertLog] = []

    def open_one(
        on_append: Callable[[Sequence[Alert]], None] = lambda alerts: None,
        grouping: GroupingConfig = GroupingConfig(),  # noqa: B008 (frozen)
    ) -> AlertLog:
        logs.append(AlertLog(path, on_append, grouping))
        return logs[-1]

    yield open_one
    for log in logs:
        log.close()


def alert(event: str = "open", incident: int = 0, stream: str = "pump", row: int = 0) -> Alert:
    return Alert(
        log_id="",
        sequence=0,
        event=event,  # type: ignore[arg-type]
        incident=incident,
        stream=stream,
        model="m",
        space_id="s",
        start_time_ns=1,
        time_ns=2,
        row=row,
        score=4.0,
        peak_score=5.0,
        threshold=3.0,
        rows=3,
        channels=[ChannelShare("speed", 0.75)],
        recorded_ns=3,
    )


def whole(log: AlertLog) -> list[Alert]:
    return log.since(0, 10**6)


def along(*axis: int) -> Fingerprint:
    """Of an incident that leaves normal along one axis, or no direction at all."""
    return Fingerprint(10.0, np.eye(4, dtype=np.float32)[axis[0]] if axis else None)
