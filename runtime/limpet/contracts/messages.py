"""The messages between nodes and server. `wire` turns them into bytes, `WIRE.md` specifies them
for other languages.

Times are Unix nanoseconds on the *server's* clock: a node adds the offset that it measured with
`Ping`. An `id` is chosen by the client, at least 1, and stands in the reply; a `Rejected` with id 0
answers bytes in which no id could be read. A field that is `UNSET` is not in the header.

`message_base` holds what all are made of, `stream_messages` those of a sensor's stream.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union, get_args

import msgspec
from msgspec import UNSET, UnsetType

from limpet.contracts.errors import RejectCode
from limpet.contracts.images import ChannelOrder
from limpet.contracts.message_base import Count, Id, Message, Name, Nanoseconds, TensorMessage
from limpet.contracts.stream_messages import (
    CloseStream,
    OpenStream,
    Samples,
    Scores,
    StreamClosed,
    StreamOpened,
)
from limpet.contracts.tensors import TensorSpec

# Node → server -----------------------------------------------------------------------------------


class Hello(Message, kw_only=True):
    """Asks what the server serves. Answer: `Welcome`.

    Attributes:
        client: Says in the server's log who asks.
        lane: Whether to offer a same-host lane; unset: no.
    """

    id: Id
    client: Name
    lane: bool | UnsetType = UNSET


class Ping(Message, kw_only=True):
    """Clock handshake. Answer: `Pong`."""

    id: Id
    client_time_ns: Nanoseconds


class Infer(TensorMessage, kw_only=True):
    """One inference. Answer: exactly one of `Result`, `Stale`, `Rejected`, `Failed`.

    Attributes:
        model: Name of a served model.
        capture_time_ns: When the input was measured; None where it has no such time.
        max_age_ns: Oldest input still worth answering, checked before and after inference.
        priority: Higher ones leave the queue first.
        replaces: A key of this client's; a waiting request with the same key is answered `Stale`
            and this one takes its place. Empty: none.
        channel_order: Of the image, where the model takes one; unset: RGB.
    """

    id: Id
    model: Name
    capture_time_ns: Nanoseconds | None = None
    max_age_ns: Nanoseconds | None = None
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    replaces: Annotated[str, msgspec.Meta(max_length=128)] = ""
    channel_order: ChannelOrder | UnsetType = UNSET


class GetAlerts(Message, kw_only=True):
    """Asks for the alerts after number `since`. Answer: `AlertPage`."""

    id: Id
    since: Count
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 100


class GetStatus(Message, kw_only=True):
    """Asks for counters and states. Answer: `Status`."""

    id: Id


# Server → node -----------------------------------------------------------------------------------


class MemoryInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy remembers: names of input and output, and how old it shall and may be."""

    input: str
    output: str
    step_s: float
    longest_s: float


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A served model. `inputs` are what an `Infer` must carry, before preprocessing; of a policy
    that remembers, `memory` says which of them may be missing, and how old it shall be.
    """

    name: str
    kind: str
    space_id: str
    engine: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    channels: list[str] = []
    threshold: float | None = None
    memory: MemoryInfo | UnsetType = UNSET


class LaneOffer(msgspec.Struct, frozen=True, kw_only=True):
    """Where a client on the same host may send its requests instead.

    Attributes:
        address: Name of a Unix socket in Linux's abstract namespace, without the leading zero byte.
        token: What to say there first, in hexadecimal; good once, and for a few seconds.
    """

    address: str
    token: str


class Welcome(Message, kw_only=True):
    """Answers `Hello`.

    Attributes:
        server: Its name.
        limpet: Its version.
        alerts: Endpoints of the XPUB. A node takes the one of its own transport and, for tcp,
            keeps the host under which it reached the server.
        models: What is served.
        lane: A same-host lane, where it was asked for and there is one; unset: none.
    """

    id: Id
    server: str
    limpet: str
    alerts: list[str]
    models: list[ModelInfo]
    lane: LaneOffer | UnsetType = UNSET


class Pong(Message, kw_only=True):
    """Answers `Ping`; `server_time_ns` was read between receiving and sending."""

    id: Id
    client_time_ns: Nanoseconds
    server_time_ns: Nanoseconds


class Result(TensorMessage, kw_only=True):
    """A finished inference. Times are durations in the server.

    Attributes:
        space_id: Embedding space of the outputs.
        queue_ns: From arrival to the start of inference.
        inference_ns: Preprocessing and engine.
        total_ns: From arrival to the reply.
        valid_until_ns: When an action must no longer be followed; unset where there is none.
        nothing: Why a model that finds grasps found none, a `limpet.contracts.clouds.NoGrasp` or
            one of a later server; then there are no grasps among the tensors. Unset: not so.
    """

    id: Id
    model: str
    space_id: str
    engine: str
    queue_ns: Nanoseconds
    inference_ns: Nanoseconds
    total_ns: Nanoseconds
    valid_until_ns: Nanoseconds | UnsetType = UNSET
    nothing: str | UnsetType = UNSET


class Stale(Message, kw_only=True):
    """The input was too old (`queue`, `reply`) or a newer one took its place (`replaced`)."""

    id: Id
    stage: Literal["queue", "reply", "replaced"]
    age_ns: Nanoseconds | None = None
    max_age_ns: Nanoseconds | None = None


class Rejected(Message, kw_only=True):
    """The server did not accept the message: why, and what to do.

    Attributes:
        cause: A `limpet.contracts.errors.Cause`, or one of a later server; unset: none.
    """

    id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    code: RejectCode
    reason: str
    hint: str = ""
    cause: str | UnsetType = UNSET


class Failed(Message, kw_only=True):
    """The server accepted the message and could not finish it."""

    id: Id
    reason: str


class ChannelShare(msgspec.Struct, frozen=True):
    """A channel's part of what made a row anomalous; the shares of all channels sum to 1."""

    name: str
    share: float


class Alert(Message, kw_only=True):
    """One entry of the alert log; also published on topic `alert`.

    Attributes:
        log_id: Names the log; a new log starts its sequence anew.
        sequence: 1, 2, 3, … without gaps within a log.
        incident: The incident's number: the sequence of its `open`.
        group: Number of the first incident of those that belong together, this one's where it is
            that itself; 0 where incidents are not grouped. All alerts of an incident have one.
        start_time_ns: Measuring time of the first anomalous row of the incident.
        time_ns: Measuring time of the row that made this entry.
        row: That row's number in the stream.
        score: That row's score; None where the stream closed without one.
        peak_score: Highest score of the incident so far.
        threshold: The threshold in force.
        rows: Rows since the incident's first anomalous one.
        channels: The channels with the largest part in the score when the incident opened, largest
            first, at most eight.
        recorded_ns: When the log took it.
    """

    log_id: str
    sequence: Count
    event: Literal["open", "update", "close"]
    incident: Count
    group: Count = 0
    stream: str
    model: str
    space_id: str
    start_time_ns: Nanoseconds
    time_ns: Nanoseconds
    row: Count
    score: float | None
    peak_score: float
    threshold: float
    rows: Count
    channels: list[ChannelShare]
    recorded_ns: Nanoseconds


class AlertPage(Message, kw_only=True):
    """Alerts after the number asked for, ascending; `last` is the newest number in the log."""

    id: Id
    log_id: str
    alerts: list[Alert]
    last: Count


class Status(Message, kw_only=True):
    """Counters since the server started, by name; latencies in milliseconds."""

    id: Id
    server: str
    uptime_s: float
    counters: dict[str, int]
    streams: dict[str, dict[str, int | str]]
    models: dict[str, dict[str, float | str]]


class Heartbeat(Message, kw_only=True):
    """Published on topic `heartbeat` every `interval_s`: silence never means normal."""

    server: str
    log_id: str
    state: Literal["serving", "stopping"]
    time_ns: Nanoseconds
    interval_s: float
    last_alert: Count
    engines: dict[str, str]
    streams: dict[str, str]
    dropped: dict[str, int]


Request = Union[Hello, Ping, Infer, OpenStream, Samples, CloseStream, GetAlerts, GetStatus]  # noqa: UP007
Reply = Union[  # noqa: UP007
    Welcome, Pong, Result, Stale, Rejected, Failed, StreamOpened, Scores, StreamClosed,
    AlertPage, Status,
]  # fmt: skip
Published = Union[Alert, Heartbeat]  # noqa: UP007

ALERT_TOPIC, HEARTBEAT_TOPIC = b"alert", b"heartbeat"

MESSAGES: tuple[type[Message], ...] = (
    *get_args(Request),
    *get_args(Reply),
    *get_args(Published),
)
"""Every message type, for tests and for the specification."""
