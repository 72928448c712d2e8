"""What the sensor process of `limpet bench stream` is told, and what it reports."""

from __future__ import annotations

import msgspec


class SensorsPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the process is told, as JSON in a file.

    Attributes:
        endpoint: The server's.
        server_pid: Its process, whose CPU time is read.
        values: `.npy` file with float32 rows (n, channels), played round and round.
        channels: Names of its columns.
        streams: How many.
        message_rows: Rows of a message.
        rate_hz: Rows per second of one stream.
        warm_up_s: What is due in so many seconds at first is sent and not timed.
        seconds: How long it measures after that.
    """

    endpoint: str
    server_pid: int
    values: str
    channels: list[str]
    streams: int
    message_rows: int
    rate_hz: float
    warm_up_s: float
    seconds: float

    @property
    def message_ns(self) -> int:
        """From one message of a stream to the next."""
        return round(self.message_rows / self.rate_hz * 1e9)

    @property
    def messages_each(self) -> int:
        """Messages of one stream; at least one of them is timed."""
        return self.warm_up_messages + max(1, round(self.seconds * 1e9 / self.message_ns))

    @property
    def warm_up_messages(self) -> int:
        """The first messages of each stream, which are not timed."""
        return round(self.warm_up_s * 1e9 / self.message_ns)


class SensorsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the process writes, as JSON on standard output. Latencies are those of timed messages.

    Attributes:
        rows: Rows that were due, warm-up included.
        rows_sent: Of these, rows that were sent at all.
        rows_acknowledged: Rows whose scores came, each counted once.
        refused: Messages that were refused or failed, by code.
        rows_per_s: Rows acknowledged per second while messages were due after the warm-up.
        messages: Timed messages.
        p50_ms: From the moment when the newest row of a message is due to its acknowledgement; a
            message without one counts with its age at the end.
        p99_ms: The same.
        p999_ms: The same.
        max_ms: The same.
        waited_for_credit: Messages, warm-up included, that were due while their stream had no
            credit.
        credit_wait_max_ms: Longest such wait.
        late_p99_ms: How late this process itself sends, for what had a credit.
        sensors_cpu: CPU seconds of this process per second.
        server_cpu: CPU seconds of the server per second; None where the system does not tell.
        counters: The server's, at the end.
    """

    rows: int
    rows_sent: int
    rows_acknowledged: int
    refused: dict[str, int]
    rows_per_s: float
    messages: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    waited_for_credit: int
    credit_wait_max_ms: float
    late_p99_ms: float
    sensors_cpu: float
    server_cpu: float | None
    counters: dict[str, int]
