"""What the demo plays: the recordings that limpet ships, or a file of the user's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limpet.contracts.errors import DataError
from limpet.contracts.recordings import Recording, load_recording

_YEAR_NS = 365 * 86_400 * 10**9

SHIPPED = Path(__file__).parent / "recordings"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One recording: its first rows train an encoder, all that follow are streamed.

    Attributes:
        name: Of its stream, its model and its files.
        title: For a person.
        path: The file.
        train_rows: Rows that train; None takes the first half.
        key: Array of an npz.
        ignore: Columns that are no channels.
        label: Label column.
        rate_hz: Rows per second, where the file does not say.
        settings_file: What training takes instead of its defaults (`limpet train --config`).
    """

    name: str
    title: str
    path: Path
    train_rows: int | None = None
    key: str | None = None
    ignore: tuple[str, ...] = ()
    label: str | None = None
    rate_hz: float | None = None
    settings_file: Path | None = None

    @property
    def settings(self) -> list[str]:
        """The options with which `limpet train` learns from it."""
        return [] if self.settings_file is None else ["--config", str(self.settings_file)]

    @property
    def options(self) -> list[str]:
        """The options with which `limpet train` and `limpet stream` read the file the same way."""
        options = [part for name in self.ignore for part in ("--ignore", name)]
        for option, value in (
            ("--key", self.key), ("--label", self.label), ("--rate-hz", self.rate_hz),
        ):  # fmt: skip
            if value is not None:
                options += [option, str(value)]
        return options

    @property
    def shortest_path(self) -> str:
        """The file's path for a person, from here or absolute."""
        return min(os.path.relpath(self.path), str(self.path), key=len)

    @cached_property
    def recording(self) -> Recording:
        """The whole recording.

        Raises:
            DataError: It cannot be read, or does not run through in one piece.
        """
        recording = load_recording(
            self.path, key=self.key, ignore=self.ignore, label=self.label, rate_hz=self.rate_hz
        )
        if len(recording.segments) > 1:
            raise DataError(
                f"{self.path} has {len(recording.segments)} segments, the demo plays one stream",
                "give a file without segments, or --key another array",
            )
        return recording

    @property
    def first_row(self) -> int:
        """The first row that is streamed; those before it train."""
        return len(self.recording) // 2 if self.train_rows is None else self.train_rows

    @cached_property
    def streamed(self) -> Recording:
        """The rows that are streamed.

        Raises:
            DataError: There are none.
        """
        if self.first_row >= len(self.recording):
            raise DataError(
                f"{self.path} has {len(self.recording)} rows, and {self.first_row} of them train: "
                "none is left to stream",
                "say a smaller --train-rows",
            )
        return self.recording.rows(self.first_row)

    @property
    def counts_from_0(self) -> bool:
        """Whether its time column counts from a beginning of its own, not from 1970."""
        times_ns = self.recording.times_ns
        return times_ns is not None and abs(int(times_ns[0])) < _YEAR_NS

    def duration(self, rows: float) -> str:
        """How long so many rows last; in rows where the file has no times."""
        if self.recording.times_ns is None:
            return f"{rows:,.0f} row{'s' * (round(rows) != 1)}"
        return format_seconds(rows / self.recording.rate_hz)


def shipped_sources() -> list[Source]:
    """The recordings of `recordings/SOURCES.md`. Their labels alone fix where training ends."""
    return [
        Source(
            name="machine",
            title="temperature of an industrial machine (NAB), a row every 5 minutes",
            path=SHIPPED / "machine_temperature.csv",
            train_rows=1998,  # the first labelled row is 2126, a first score takes 129 rows
            settings_file=SHIPPED / "machine_temperature.toml",
        ),
        Source(
            name="satellite",
            title="telemetry and commands of NASA's SMAP satellite, channel E-8",
            path=SHIPPED / "smap_e8.npz",
            train_rows=2880,  # what NASA calls the training part, all normal
        ),
    ]


def user_source(
    path: Path,
    *,
    train_rows: int | None = None,
    key: str | None = None,
    ignore: tuple[str, ...] = (),
    label: str | None = None,
    rate_hz: float | None = None,
) -> Source:
    """A file of the user's, named after itself."""
    return Source(
        name=re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40] or "stream",
        title=path.name,
        path=path.absolute(),
        train_rows=train_rows,
        key=key,
        ignore=ignore,
        label=label,
        rate_hz=rate_hz,
    )


def format_seconds(seconds: float) -> str:
    """A duration for a person, in its two largest units: `3 h 20 min`."""
    units = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
    for index, (name, size) in enumerate(units[:-1]):
        if seconds >= size:
            smaller_name, smaller = units[index + 1]
            whole, rest = divmod(round(seconds / smaller), round(size / smaller))
            return f"{whole} {name} {rest} {smaller_name}" if rest else f"{whole} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.3g} s"
