"""The durable log of alerts: SQLite, write-ahead, synchronous=FULL, so that what was
acknowledged survives a power loss.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import sqlite3
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.correlation import REMEMBERED, Correlator, GroupingConfig, Onset
from limpet.contracts.errors import AlertLogError
from limpet.contracts.fingerprints import Fingerprint
from limpet.contracts.messages import Alert
from limpet.runtime.turn import OutsideTurn

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS alerts (
    sequence INTEGER PRIMARY KEY,
    incident INTEGER NOT NULL,
    event TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS incidents ON alerts (incident, sequence);
CREATE TABLE IF NOT EXISTS fingerprints (
    incident INTEGER PRIMARY KEY,
    look_back_s REAL NOT NULL,
    direction BLOB
);
"""

_ONSETS = f"""
SELECT f.incident, f.look_back_s, f.direction, opened.body, closed.body
FROM fingerprints AS f
JOIN alerts AS opened ON opened.sequence = f.incident
LEFT JOIN alerts AS closed ON closed.incident = f.incident AND closed.event = 'close'
ORDER BY f.incident DESC LIMIT {REMEMBERED}
"""

_FLOATS = np.dtype("<f4")
_DEFAULT_GROUPING = GroupingConfig()

_decoder = msgspec.msgpack.Decoder(Alert)


class AlertLog:
    """Alerts by sequence number 1, 2, 3, … without gaps. Safe to use from several threads.

    Args:
        path: The database file; made where there is none. One process at a time may open it.
        on_append: Called with the alerts of each `append`, in order of their numbers, once they
            are durable.
        grouping: Which incidents belong together. Those of before count, as far as they are there
            with their fingerprints, which a log of before there were groups has none of.

    Raises:
        AlertLogError: Another server has it open, or it is damaged or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        on_append: Callable[[Sequence[Alert]], None],
        grouping: GroupingConfig = _DEFAULT_GROUPING,
    ) -> None:
        self._path, self._on_append = path, on_append
        self._lock, self._read_lock = threading.Lock(), threading.Lock()
        self._open_incidents: dict[str, Alert] = {}
        try:
            with contextlib.ExitStack() as opened:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock_file = opened.enter_context(path.with_suffix(".lock").open("w"))
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._db = opened.enter_context(_connect(path))
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.executescript(_SCHEMA)
                # Reading has a connection of its own: it need not wait for the disk to sync.
                self._reader = opened.enter_context(_connect(path))
                self._load()
                self._correlator = Correlator(grouping, self._onsets() if grouping.enabled else ())
                self._opened = opened.pop_all()
        except BlockingIOError as error:
            raise AlertLogError(
                f"alert log {path} is in use by another server",
                "stop that server, or give this one another state_dir",
            ) from error
        except (OSError, sqlite3.Error, msgspec.DecodeError, ValueError) as error:
            raise AlertLogError(
                f"alert log {path} cannot be opened: {error}",
                "check the folder's permissions and free space; move a damaged file away",
            ) from error

    def _load(self) -> None:
        """Reads the log's id, where it ends, and the incidents that are open."""
        if self._db.execute("SELECT count(*) FROM log").fetchone()[0] == 0:
            self._db.execute("INSERT INTO log VALUES (?)", (uuid.uuid4().hex,))
        self.log_id: str = self._db.execute("SELECT id FROM log").fetchone()[0]
        self._last: int = self._db.execute(
            "SELECT coalesce(max(sequence), 0) FROM alerts"
        ).fetchone()[0]
        newest = self._db.execute(
            "SELECT body FROM alerts WHERE sequence IN "
            "(SELECT max(sequence) FROM alerts GROUP BY incident) AND event != 'close' "
            "ORDER BY sequence"
        ).fetchall()
        self._note([_decoder.decode(body) for (body,) in newest])

    def _onsets(self) -> list[tuple[int, Onset]]:
        """What is known of the newest incidents, oldest first."""
        known = []
        for incident, look_back_s, direction, opened, closed in self._db.execute(_ONSETS):
            alert = _decoder.decode(opened)
            floats = None if direction is None else np.frombuffer(direction, _FLOATS)
            end_ns = None if closed is None else _decoder.decode(closed).time_ns
            fingerprint = Fingerprint(look_back_s, floats)
            known.append((incident, _onset(alert, fingerprint, alert.group, end_ns)))
        return known[::-1]

    @property
    def last(self) -> int:
        """Number of the newest alert, 0 where there is none."""
        return self._last

    def append(
        self, alerts: Sequence[Alert], fingerprints: Sequence[Fingerprint | None] = ()
    ) -> None:
        """Numbers the alerts, makes them durable together, then hands them to `on_append`.

        An `open` gets its own number as its incident, and its group; an alert that follows an
        `open` of the same call and stream, and has incident 0, gets that one's. Every alert gets
        its incident's group.

        Args:
            alerts: Of any streams, those of one stream in order.
            fingerprints: For each alert that of its incident where it opens one. An incident
                without founds a group that no other joins.

        Raises:
            AlertLogError: They could not be written; none of them is in the log.
        """
        if not alerts:
            return
        with OutsideTurn(), self._lock:  # it waits for the disk, and for who waits for the disk
            unnumbered = [alert for alert in alerts if not alert.incident]
            correlator = self._correlator.copy()
            taken = self._number(alerts, fingerprints, correlator)
            try:
                with self._db:
                    self._db.execute("BEGIN IMMEDIATE")
                    self._db.executemany(
                        "INSERT INTO alerts VALUES (?, ?, ?, ?)",
                        [
                            (a.sequence, a.incident, a.event, msgspec.msgpack.encode(a))
                            for a in alerts
                        ],
                    )
                    self._db.executemany("INSERT INTO fingerprints VALUES (?, ?, ?)", taken)
            except sqlite3.Error as error:
                for alert in unnumbered:  # they may be appended again, and get other numbers
                    alert.incident = 0
                raise AlertLogError(
                    f"alert log {self._path} cannot be written: {error}",
                    "check the disk's free space: nothing is acknowledged until it can be",
                ) from error
            self._last += len(alerts)
            self._correlator = correlator
            self._note(alerts)
            self._on_append(alerts)

    def _number(
        self,
        alerts: Sequence[Alert],
        fingerprints: Sequence[Fingerprint | None],
        correlator: Correlator,
    ) -> list[tuple[int, float, bytes | None]]:
        """Fills in numbers, incidents and groups; returns the rows of the fingerprints' table."""
        newest, taken = dict(self._open_incidents), []
        numbered = itertools.zip_longest(alerts, fingerprints)
        for sequence, (alert, fingerprint) in enumerate(numbered, start=self._last + 1):
            alert.log_id, alert.sequence = self.log_id, sequence
            if alert.event == "open":
                alert.incident, newest[alert.stream] = sequence, alert
                if not correlator.config.enabled:
                    continue
                alert.group = sequence
                if fingerprint is not None:
                    alert.group = correlator.open(sequence, _onset(alert, fingerprint))
                    taken.append((sequence, fingerprint.look_back_s, _raw(fingerprint)))
                continue
            alert.incident = alert.incident or newest[alert.stream].incident
            alert.group = newest[alert.stream].group
            if alert.event == "close":
                correlator.close(alert.incident, alert.time_ns)
        return taken

    def _note(self, alerts: Sequence[Alert]) -> None:
        """Keeps track of which incidents are open."""
        for alert in alerts:
            if alert.event == "close":
                self._open_incidents.pop(alert.stream, None)
            else:
                self._open_incidents[alert.stream] = alert

    def since(self, sequence: int, limit: int) -> list[Alert]:
        """The first `limit` alerts with a number greater than `sequence`, ascending.

        Raises:
            AlertLogError: They cannot be read.
        """
        try:
            with self._read_lock:
                rows = self._reader.execute(
                    "SELECT body FROM alerts WHERE sequence > ? ORDER BY sequence LIMIT ?",
                    (sequence, limit),
                ).fetchall()
            return [_decoder.decode(body) for (body,) in rows]
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise AlertLogError(f"alert log {self._path} cannot be read: {error}") from error

    def open_incident(self, stream: str) -> Alert | None:
        """Newest alert of the stream's incident that no `close` has ended yet."""
        return self._open_incidents.get(stream)

    def close(self) -> None:
        """Closes the database; every alert in it is durable already."""
        with self._lock, self._read_lock:
            self._opened.close()


def _onset(
    alert: Alert, fingerprint: Fingerprint, group: int = 0, end_ns: int | None = None
) -> Onset:
    """An incident as the clustering sees it; `alert` opened it."""
    return Onset(
        stream=alert.stream,
        space_id=alert.space_id,
        start_ns=alert.start_time_ns,
        fingerprint=fingerprint,
        group=group,
        end_ns=end_ns,
    )


def _raw(fingerprint: Fingerprint) -> bytes | None:
    direction = fingerprint.direction
    return None if direction is None else direction.astype(_FLOATS).tobytes()


def _connect(path: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None))
