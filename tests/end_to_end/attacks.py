"""What a server may be sent by a broken or hostile node, and sockets that send it.

Every kind of message is a function from a random generator to frames, and says which replies it
may get. Kinds are sent from sockets of their own, so that replies can be told apart without ids.
"""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import zmq

from limpet.contracts import messages
from limpet.contracts.messages import Rejected
from limpet.contracts.stream_messages import CloseStream, OpenStream, Samples
from limpet.contracts.tensors import DTYPES
from limpet.contracts.wire import MAX_REQUEST_HEADER_BYTES, decode_reply, encode

PATIENCE_MS = 20_000
WINDOW = 64
"""Messages that an attacker who reads has on the way at a time; the server keeps 256 replies."""

Frames = list[bytes]


def header(**fields: Any) -> bytes:
    return msgspec.msgpack.encode({"v": 1, "id": 7, **fields})


def infer(*shape: int, dtype: str = "float32", frame: bytes | None = None, **fields: Any) -> Frames:
    """An inference of `identity`, right for shape (n, 4) and otherwise the way it is asked for."""
    tensor = {"name": "x", "dtype": dtype, "shape": shape}
    if frame is None:
        frame = bytes(4 * int(np.prod(shape)))
    return [header(type="infer", model="identity", **{"tensors": [tensor], **fields}), frame]


def samples(stream: str, session: str, rows: int = 2) -> Frames:
    request = Samples(
        id=7, stream=stream, session=session, sequence=0, first_time_ns=0, rate_hz=10.0
    )
    return [bytes(f) for f in encode(request, {"values": np.ones((rows, 2), np.float32)})]


def valid_requests() -> list[Frames]:
    """One right request of each type, for the server of the fixture `serve`."""
    opening = OpenStream(
        id=7, stream="pump", session="s1", channels=["speed", "current"], next_sequence=0
    )
    single = [
        messages.Hello(id=7, client="somebody"),
        messages.Ping(id=7, client_time_ns=10**18),
        opening,
        CloseStream(id=7, stream="pump", session="s1"),
        messages.GetAlerts(id=7, since=0),
        messages.GetStatus(id=7),
    ]
    return [*[[bytes(encode(each)[0])] for each in single], infer(1, 4), samples("pump", "s1")]


VALID = valid_requests()


def random_bytes(draw: random.Random) -> Frames:
    return [draw.randbytes(draw.choice([0, 1, 8, 100, 1000])) for _ in range(draw.randint(1, 4))]


def truncated(draw: random.Random) -> Frames:
    """A frame cut short, or one that is missing."""
    frames = list(draw.choice(VALID))
    which = draw.randrange(len(frames))
    frames[which] = frames[which][: draw.randrange(len(frames[which]))]
    return frames[:-1] if which > 0 and draw.random() < 0.3 else frames


def mutated(draw: random.Random) -> Frames:
    """Some bytes of a right message changed, added or left out; it may well stay a right one."""
    frames = [bytearray(frame) for frame in draw.choice(VALID)]
    for _ in range(draw.randint(1, 3)):
        frame = draw.choice(frames)
        where = draw.randrange(len(frame)) if frame else 0
        frame[where : where + draw.randint(0, 1)] = draw.randbytes(draw.randint(0, 2))
    return [bytes(frame) for frame in frames]


def unknown_dtype(draw: random.Random) -> Frames:
    return infer(
        1, 4, dtype=draw.choice(["object", "complex64", "", "V16", "<f4", "\0", "x" * 9999])
    )


def wrong_dtype(draw: random.Random) -> Frames:
    dtype = draw.choice([name for name in DTYPES if name not in ("float32", "bool")])
    return infer(1, 4, dtype=dtype, frame=bytes(4 * np.dtype(dtype).itemsize))


def impossible_shape(draw: random.Random) -> Frames:
    shape = draw.choice(
        [[0, 4], [-1, 4], [2**31, 4], [2**31 - 1] * 8, [2**16] * 4, [1] * 9, [2**64 - 1], [4, 4]]
    )
    return infer(*shape, frame=bytes(16))


def wrong_shape(draw: random.Random) -> Frames:
    return infer(*draw.choice([[4], [1, 5], [1, 4, 1], [4, 1], [257, 4], []]))


def wrong_rows(draw: random.Random) -> Frames:
    """Rows for the model that scores streams: too few, too wide, or with a value missing."""
    rows, columns = draw.choice([(8, 2), (8, 2), (7, 2), (9, 2), (8, 3)])
    values = np.ones((draw.choice([1, 3]), rows, columns), np.float32)
    if (rows, columns) == (8, 2):
        values.flat[draw.randrange(values.size)] = draw.choice([np.nan, np.inf, -np.inf])
    tensor = {"name": "rows", "dtype": "float32", "shape": values.shape}
    return [header(type="infer", model="tiny-anomaly", tensors=[tensor]), values.tobytes()]


def other_version(draw: random.Random) -> Frames:
    return infer(1, 4, v=draw.choice([0, 2, -1, 2**32, 2**64 - 1]))


def absurd_size(draw: random.Random) -> Frames:
    """Headers that announce gigabytes, or are too large themselves."""
    announced = draw.choice([b"\xdf", b"\xdd", b"\xdb", b"\xc6", b"\xc9"]) + b"\xff" * 4
    map_of_two = b"\x82\xa4type"
    return [
        draw.choice(
            [
                announced,
                map_of_two + announced,
                header(type="hello", client="c" * 100_000),
                bytes(MAX_REQUEST_HEADER_BYTES + 1),
                header(type="infer", tensors=[{}] * 17),
            ]
        )
    ]


def deep_msgpack(draw: random.Random) -> Frames:
    depth = draw.choice([600, 5_000, 30_000])
    nested = draw.choice([b"\x91", b"\x81\xa1k"]) * depth
    return [draw.choice([nested, b"\x82\xa1v\x01\xa1x" + nested, b"\x83\xa1v\x01\xa1x" + nested])]


def no_request(draw: random.Random) -> Frames:
    """Right messages in the wrong direction or of no known type, and frames of REQ sockets."""
    pong = messages.Pong(id=7, client_time_ns=0, server_time_ns=0)
    return draw.choice(
        [
            [bytes(encode(pong)[0])],
            [header(type="teleport")],
            [b"", *draw.choice(VALID)],
            [*draw.choice(VALID), b""],
            [header(type="ping", client_time_ns=draw.choice([-1, 2**63, 1.5, "now", None]))],
            [header(type="hello", client="c", id=draw.choice([0, -1, 2**63, "7"]))],
        ]
    )


def many_frames(draw: random.Random) -> Frames:
    return [*draw.choice(VALID), *[b"x"] * draw.choice([16, 1000, 5000])]


def wrong_session(draw: random.Random) -> Frames:
    stream = draw.choice(["taken", "never-opened"])
    close = CloseStream(id=7, stream=stream, session="guessed")
    return draw.choice([samples(stream, "guessed"), [bytes(encode(close)[0])]])


def unknown_model(draw: random.Random) -> Frames:
    frames = infer(1, 4)
    return [frames[0].replace(b"\xa8identity", b"\xa8identitx"), frames[1]]


def hello(draw: random.Random) -> Frames:
    return VALID[0]


@dataclass(frozen=True)
class Kind:
    """A kind of message.

    Attributes:
        make: Makes one.
        share: How many of a thousand messages are of it.
        replies: What it may be answered by: codes of `rejected`, else types of replies; empty
            where anything typed will do.
    """

    make: Callable[[random.Random], Frames]
    share: int
    replies: frozenset[str]


KINDS = [
    Kind(random_bytes, 120, frozenset({"malformed"})),
    Kind(truncated, 120, frozenset({"malformed"})),
    Kind(mutated, 230, frozenset()),
    Kind(unknown_dtype, 60, frozenset({"malformed"})),
    Kind(wrong_dtype, 60, frozenset({"bad_input"})),
    Kind(impossible_shape, 60, frozenset({"malformed"})),
    Kind(wrong_shape, 60, frozenset({"bad_input"})),
    Kind(wrong_rows, 20, frozenset({"bad_input"})),
    Kind(other_version, 40, frozenset({"version"})),
    Kind(absurd_size, 40, frozenset({"malformed"})),
    Kind(deep_msgpack, 40, frozenset({"malformed"})),
    Kind(no_request, 50, frozenset({"malformed"})),
    Kind(many_frames, 2, frozenset({"malformed"})),
    Kind(wrong_session, 40, frozenset({"unknown_stream"})),
    Kind(unknown_model, 28, frozenset({"unknown_model"})),
    Kind(hello, 30, frozenset({"Welcome"})),
]


class Attacker:
    """A DEALER that sends messages of one kind and counts what it is answered.

    Args:
        context: Of the test.
        endpoint: The server's.
        kind: What it sends.
        reads: Whether it reads replies before `drain` is called.
        seed: Of its random messages.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        kind: Kind,
        *,
        reads: bool = True,
        seed: int = 0,
    ) -> None:
        self.kind, self._reads = kind, reads
        self._draw = random.Random(f"{kind.make.__name__} {seed}")
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDTIMEO, PATIENCE_MS)
        if not reads:
            self._socket.setsockopt(zmq.RCVHWM, 1)
            self._socket.setsockopt(zmq.RCVBUF, 4096)
        self._socket.connect(endpoint)
        self.sent = 0
        self.replies: Counter[str] = Counter()

    def send(self, count: int) -> None:
        """Sends messages, as fast as the server takes them."""
        for _ in range(count):
            self._socket.send_multipart(self.kind.make(self._draw))
            self.sent += 1
            if self._reads:
                self._read(WINDOW)

    def drain(self, dropped: int = 0) -> None:
        """Reads all replies that are still to come, which are all but those that were dropped."""
        self._read(dropped)
        assert self.sent - self.replies.total() == dropped

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def _read(self, missing: int) -> None:
        while self.sent - self.replies.total() > missing or self._socket.poll(0):
            assert self._socket.poll(PATIENCE_MS), f"no reply to {self.kind.make.__name__}"
            self._take()

    def _take(self) -> None:
        reply, _ = decode_reply(self._socket.recv_multipart())
        self.replies[reply.code if isinstance(reply, Rejected) else type(reply).__name__] += 1


def zmtp_frame(content: bytes, *, more: bool = False) -> bytes:
    """A frame as it goes over the wire."""
    if len(content) < 256:
        return bytes([more, len(content)]) + content
    return bytes([0x02 | more]) + struct.pack(">Q", len(content)) + content


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def ready(kind: bytes) -> bytes:
    """ZMTP's second half of a handshake, as a socket of that kind sends it."""
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    return bytes([0x04, len(body)]) + body


def tcp(endpoint: str) -> socket.socket:
    """A bare connection to a `tcp://` endpoint."""
    host, port = urlsplit(endpoint).netloc.split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_MS / 1000)


def handshaken(endpoint: str, kind: bytes) -> socket.socket:
    """A bare connection on which ZMTP frames may follow, as from a socket of that kind."""
    connection = tcp(endpoint)
    connection.sendall(GREETING + ready(kind))
    receive(connection, len(GREETING))
    flags, size = receive(connection, 2)
    command = receive(connection, size)
    assert (flags, command[:6]) == (0x04, b"\x05READY"), "the server refuses the handshake"
    return connection


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        assert part, "the server closed the connection"
        received += part
    return received


def is_closed_by_peer(connection: socket.socket) -> bool:
    """Waits for the other side to close a connection, reading whatever it still sends."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True
