"""HTTP/1.1 with binary bodies over a connection that stays open, and nothing else: the quickest
client for servers of HTTP that we know how to write in Python.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks.peers.links import Buffer
from tests.benchmarks.peers.model import Array

END = b"\r\n\r\n"
LARGEST_HEAD = 64 * 1024
JOINED = 64 * 1024
"""Up to here head and body go out in one write, copied; larger bodies in one of their own."""


class HttpLink:
    """A connection that posts arrays as bytes and gets bytes.

    Args:
        url: Where to.
        headers: Further lines of the head.
    """

    def __init__(self, url: str, headers: str = "") -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waited_for: Any = self._socket.fileno()
        self._head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/octet-stream\r\n{headers}"
        )
        self._heads: dict[int, bytes] = {}
        self._buffer = bytearray(LARGEST_HEAD)
        self._filled = self._begin = self._end = 0

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def before(self, x: Array) -> tuple[str, bytes]:
        """Lines of the head and bytes of the body that come before the array's."""
        return "", b""

    def body_of(self, head: bytes) -> int:
        """Bytes of an answer's body before the array's; `head` is in lower case."""
        return 0

    def send(self, x: Array) -> None:
        """See `Link`."""
        head = self._heads.get(x.size)
        if head is None:
            lines, prefix = self.before(x)
            length = len(prefix) + x.nbytes
            head = f"{self._head}{lines}Content-Length: {length}\r\n\r\n".encode() + prefix
            self._heads[x.size] = head
            if len(self._buffer) < LARGEST_HEAD + x.nbytes:
                self._buffer = bytearray(LARGEST_HEAD + x.nbytes)
        if x.nbytes <= JOINED:
            self._socket.sendall(head + x.tobytes())
        else:
            self._socket.sendall(head)
            self._socket.sendall(x.data.cast("B"))

    def receive(self) -> Buffer | None:
        """See `Link`. The bytes hold until the next call."""
        got = self._socket.recv_into(memoryview(self._buffer)[self._filled :])
        if not got:
            raise ConnectionError("the server closed the connection")
        self._filled += got
        if not self._end:
            end = self._buffer.find(END, 0, self._filled)
            if end < 0:
                return None
            head = bytes(self._buffer[:end]).lower()
            body = end + len(END)
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise ConnectionError(f"answered {bytes(self._buffer[: self._filled])[:300]!r}")
            self._begin = body + self.body_of(head)
            self._end = body + number_in(head, b"content-length")
        if self._filled < self._end:
            return None
        answer = memoryview(self._buffer)[self._begin : self._end]
        self._filled = self._begin = self._end = 0
        return answer


def number_in(head: bytes, name: bytes) -> int:
    """The number that a line of a head (in lower case) states.

    Raises:
        ConnectionError: It has no such line.
    """
    _, found, rest = head.partition(b"\r\n" + name + b":")
    if not found:
        raise ConnectionError(f"answered without {name.decode()}: {head[:300]!r}")
    return int(rest.partition(b"\r\n")[0])
