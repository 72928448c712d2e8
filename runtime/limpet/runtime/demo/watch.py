"""Follows a running server for the terminal: its alerts as they are published, its rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from limpet.contracts.errors import LimpetError, RequestError
from limpet.contracts.incidents import label_at, labelled_intervals
from limpet.contracts.messages import Alert, Status
from limpet.contracts.signals import RowState
from limpet.runtime.alert_feed import AlertFeed
from limpet.runtime.closing import Closing
from limpet.runtime.connection import Connection
from limpet.runtime.demo.console import Console
from limpet.runtime.demo.report import when
from limpet.runtime.demo.sources import Source

LAST_ALERTS_S = 15.0
"""Longest wait for alerts that the server has counted and that have not come yet."""


class Watch(Closing):
    """Shows alerts with what the labels say to them, and how far the streams are.

    Args:
        endpoint: The server's.
        sources: What is streamed.
        console: Where to show it.
        file: Takes every alert as a line of JSON.
    """

    def __init__(
        self, endpoint: str, sources: Sequence[Source], console: Console, file: Path
    ) -> None:
        self._sources = {source.name: source for source in sources}
        self._intervals = {
            source.name: labelled_intervals(source.streamed.labels)
            for source in sources
            if source.streamed.labels is not None
        }
        self._console = console
        self._opened: dict[int, Alert] = {}
        self.alerts: list[Alert] = []
        """Every alert so far, in order."""
        self._connection = Connection(endpoint, "demo")
        self._file = file.open("wb")
        self._began_s = time.monotonic()
        self._rows = dict.fromkeys(self._sources, 0)
        self._asked_s = 0.0
        self._feed = AlertFeed(endpoint, since=0)

    def close(self) -> None:
        """Closes feed, connection and file."""
        self._feed.close()
        self._connection.close()
        self._file.close()

    def status(self) -> Status:
        """The server's counters; raises `RequestError`."""
        return self._connection.status()

    def step(self) -> None:
        """Shows what came since the last step; waits 0.1 s for it."""
        for event in self._feed.events(timeout_s=0.0):
            if isinstance(event, Alert):
                self._take(event)
        if time.monotonic() - self._asked_s >= 0.5:
            self._asked_s = time.monotonic()
            self._show_rows()

    def finish(self) -> None:
        """Waits for the alerts that the server has and that have not come yet.

        Raises:
            LimpetError: They do not come.
        """
        wanted = self.status().counters.get("alerts", 0)
        deadline_s = time.monotonic() + LAST_ALERTS_S
        while len(self.alerts) < wanted:
            if time.monotonic() > deadline_s:
                raise LimpetError(
                    f"{wanted - len(self.alerts)} of {wanted} alerts did not arrive within "
                    f"{LAST_ALERTS_S:g} s"
                )
            self.step()

    def _take(self, alert: Alert) -> None:
        self.alerts.append(alert)
        self._file.write(msgspec.json.encode(alert) + b"\n")
        self._file.flush()
        source = self._sources.get(alert.stream)
        if source is None or alert.event == "update":
            return
        head = (
            f"{time.monotonic() - self._began_s:5.1f} s  {_column(self._sources, alert.stream)}  "
            f"{when(source, alert.row + source.first_row):<16}"
        )
        if alert.event == "close":
            opened = self._opened.pop(alert.incident, alert)
            lasted = source.duration(alert.row - opened.row)
            self._console.fact(
                f"{head}  closed #{alert.incident:<4} after {lasted}, peak {alert.peak_score:.2f}",
                dim=True,
            )
            return
        self._opened[alert.incident] = alert
        score = alert.peak_score if alert.score is None else alert.score
        parts = [f"score {score:.2f} over {alert.threshold:.2f}"]
        color = "red"
        if alert.stream in self._intervals:
            interval = label_at(self._intervals[alert.stream], alert.row)
            if interval is None:
                color = "yellow"
                parts.append("outside the labels")
            else:
                parts.append(f"label began {source.duration(alert.row - interval.start)} before")
        if alert.group not in (0, alert.incident):
            parts.append(f"belongs to #{alert.group}")
        parts.append(", ".join(f"{c.name} {c.share:.0%}" for c in alert.channels[:3]))
        self._console.fact(f"{head}  ALERT  #{alert.incident:<4} {'; '.join(parts)}", fg=color)

    def _show_rows(self) -> None:
        try:
            streams = self.status().streams
        except RequestError:
            return  # busy; the processes are watched elsewhere
        parts = []
        for name, source in self._sources.items():
            total = len(source.streamed)
            counts = streams.get(name)
            if counts is not None:
                names = (state.name.lower() for state in RowState)
                self._rows[name] = sum(int(counts.get(state, 0)) for state in names)
            elif self._rows[name]:
                self._rows[name] = total  # the stream was closed: all is acknowledged
            parts.append(f"{name} {self._rows[name]:,} of {total:,} rows")
        seconds = time.monotonic() - self._began_s
        per_s = sum(self._rows.values()) / seconds
        self._console.status(f"{seconds:5.1f} s  {', '.join(parts)} ({per_s:,.0f} rows/s)")


def _column(names: dict[str, Source], name: str) -> str:
    return f"{name:<{max(map(len, names))}}"
