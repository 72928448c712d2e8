"""The messages of a sensor stream: a sensor node opens it, sends rows and closes it, and the server
answers each of these.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from limpet.contracts.message_base import Count, Id, Message, Name, Nanoseconds, TensorMessage

# Node → server -----------------------------------------------------------------------------------


class OpenStream(Message, kw_only=True):
    """Announces a sensor stream. Answer: `StreamOpened` or `Rejected`.

    Attributes:
        stream: Name of the stream, one for a sensor.
        session: Random name of this run of the sensor node; it may open the stream again.
        model: The model that scores it; empty lets the server's configuration choose.
        channels: Names of the columns that `Samples` will carry, in order.
        next_sequence: Sequence number of the first row that will be sent.
    """

    id: Id
    stream: Name
    session: Name
    model: Annotated[str, msgspec.Meta(max_length=128)] = ""
    channels: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=4096)]
    next_sequence: Count = 0


class Samples(TensorMessage, kw_only=True):
    """Rows of a stream: one tensor `values`, float32 or float64 (rows, channels).

    Answer: `Scores` once they are scored and their alerts are durable, or `Rejected`, `Failed`.

    Attributes:
        sequence: Number of the first row, counted in rows since the stream began.
        first_time_ns: When the first row was measured.
        rate_hz: Rows per second.
    """

    id: Id
    stream: Name
    session: Name
    sequence: Count
    first_time_ns: Nanoseconds
    rate_hz: Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class CloseStream(Message, kw_only=True):
    """Ends a stream in good order: another session may open it at once. Answer: `StreamClosed`."""

    id: Id
    stream: Name
    session: Name


# Server → node -----------------------------------------------------------------------------------


class StreamOpened(Message, kw_only=True):
    """A stream is ready.

    Attributes:
        next_sequence: Number of the first row that is not acknowledged yet.
        credits: How many `Samples` may be unanswered at a time.
        max_rows: Most rows in one `Samples`.
        warm_up_rows: Rows before the first score.
    """

    id: Id
    stream: str
    next_sequence: Count
    credits: int
    max_rows: int
    warm_up_rows: int
    model: str
    threshold: float


class Scores(TensorMessage, kw_only=True):
    """Acknowledges `Samples`: tensors `scores` float32 (rows,) and `states` uint8 (rows,).

    A state is a `limpet.contracts.signals.RowState`; a score is NaN unless its row is scored.

    Attributes:
        next_sequence: Number of the row that the server expects next.
        incident: Number of the open incident, 0 for none.
    """

    id: Id
    stream: str
    sequence: Count
    next_sequence: Count
    incident: Count


class StreamClosed(Message, kw_only=True):
    """Answers `CloseStream`."""

    id: Id
    stream: str
    next_sequence: Count
