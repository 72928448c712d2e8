"""The client's side of a same-host lane: see `lane_host`."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import socket
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from limpet.contracts.errors import WireError
from limpet.contracts.lane import ACCEPTED, MAX_PACKET_BYTES, MAX_RELEASES, Block, pack, unpack
from limpet.contracts.messages import Hello, LaneOffer, Reply, Welcome
from limpet.contracts.tensors import Array
from limpet.contracts.wire import Buffer
from limpet.runtime.lane_memory import SUPPORTED, Area, map_memory, place

OPEN_S = 0.5
"""Longest wait for the server to open one."""
RETRY_S = 1.0
"""Between asking for one and asking again."""
NONE_S = 30.0
"""The same where the server has none for us."""
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL if SUPPORTED else 0
_TIMEVAL = struct.Struct("@ll")


class LaneGoneError(OSError):
    """The server ended the lane, or itself."""


class Lane:
    """An open lane. Belongs to one thread.

    Args:
        connection: Connected.
        memory: Requests' area, then replies'.
        area_bytes: Size of either.
    """

    def __init__(self, connection: socket.socket, memory: mmap.mmap, area_bytes: int) -> None:
        self._connection = connection
        self._memory = memory
        self._requests = Area(memory, 0, area_bytes)
        self._replies = Area(memory, area_bytes, area_bytes)
        self._timeout_ms = 0
        self._read: deque[Block] = deque()
        """Blocks whose arrays nobody has any more."""
        self._held: dict[Block, weakref.ref[Array]] = {}

    def close(self) -> None:
        """Ends it; arrays that came over it stay as they are."""
        self._connection.close()
        with contextlib.suppress(BufferError):  # else the last array closes the memory
            self._requests.close()
            self._replies.close()
            self._memory.close()

    def fileno(self) -> int:
        """What a poller waits for."""
        return self._connection.fileno()

    def send(self, frames: Sequence[Buffer]) -> bool:
        """Sends a request; False where it has no room.

        Raises:
            LaneGoneError: The server has ended the lane.
        """
        placed = place(frames, self._requests)
        if placed is None:
            return False
        released = [self._read.popleft() for _ in range(min(len(self._read), MAX_RELEASES))]
        try:
            self._connection.send(pack(placed, released), _NOW)
        except BlockingIOError:  # the server does not read
            self._read.extend(released)
            for each in placed:
                if isinstance(each, tuple):
                    self._requests.free(each[0])
            return False
        except OSError as error:
            raise LaneGoneError(str(error)) from error
        return True

    def receive(self, deadline_s: float | None = None) -> list[Buffer] | None:
        """The frames of the next reply, none at all where it comes over the socket.

        Args:
            deadline_s: Monotonic; None does not wait.

        Returns:
            None where no reply came in time. Large frames lie in memory that the server keeps
            until nobody has them any more.

        Raises:
            LaneGoneError: The server has ended the lane, or does not keep to its rules.
        """
        if deadline_s is not None:
            self._set_timeout(deadline_s - time.monotonic())
        try:
            packet = self._connection.recv(MAX_PACKET_BYTES, _NOW if deadline_s is None else 0)
        except BlockingIOError:
            return None
        except OSError as error:
            raise LaneGoneError(str(error)) from error
        if not packet:
            raise LaneGoneError("the server ended the lane")
        try:
            described, released = unpack(packet)
            for block in released:
                self._requests.free(block)
            return [self._frame(*each) if isinstance(each, tuple) else each for each in described]
        except WireError as error:
            raise LaneGoneError(error.message) from error

    def _frame(self, block: Block, length: int) -> Buffer:
        # An array, and not the memory's view: an array made of a view does not keep the view.
        frame = np.frombuffer(self._replies.read(block, length), np.uint8)

        def let_go(_: object) -> None:
            del self._held[block]
            self._read.append(block)

        self._held[block] = weakref.ref(frame, let_go)
        return cast(Buffer, frame)

    def _set_timeout(self, wait_s: float) -> None:
        wait_ms = max(1, math.ceil(wait_s * 1e3))  # 0 would wait for ever
        if wait_ms != self._timeout_ms:  # seldom: those who ask in a row wait alike
            timeout = _timeval(wait_ms / 1000)
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            self._timeout_ms = wait_ms


class LaneSeeker:
    """When to ask for a lane, and for how long not to: nothing waits for one.

    Args:
        endpoint: The server's. None is asked for beyond this host.
        wanted: Whether one is asked for at all.
    """

    def __init__(self, endpoint: str, wanted: bool) -> None:
        self._next_s = 0.0 if wanted and is_same_host(endpoint) else math.inf
        self._asked = -1

    def ask(self, next_id: Callable[[], int], client: str) -> Hello | None:
        """The message that asks for one, where it is time to."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return None
        self._next_s, self._asked = now_s + RETRY_S, next_id()
        return Hello(id=self._asked, client=client, lane=True)

    def asked_for(self, reply: Reply) -> bool:
        """Whether a reply answers what was asked."""
        return reply.id == self._asked

    def take(self, reply: Reply) -> Lane | None:
        """The lane that a reply to what was asked offers, if it does."""
        lane = None
        if isinstance(reply, Welcome) and isinstance(reply.lane, LaneOffer):
            lane = open_lane(reply.lane)
        if lane is None:
            self._next_s = time.monotonic() + NONE_S
        return lane


def _timeval(seconds: float) -> bytes:
    return _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))


def is_same_host(endpoint: str) -> bool:
    """Whether an endpoint is one of this host, so that a lane is worth asking for."""
    if not SUPPORTED:
        return False
    transport, _, address = endpoint.partition("://")
    return transport == "ipc" or (transport == "tcp" and address.startswith(("127.", "localhost:")))


def open_lane(offer: LaneOffer) -> Lane | None:
    """Opens the lane that a server offers; None where it cannot be had, from another host, say."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # Not `settimeout` yet, with which `connect` gives up at once where many others connect.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(OPEN_S))
        connection.connect(f"\0{offer.address}")
        connection.settimeout(OPEN_S)
        connection.sendall(bytes.fromhex(offer.token))
        sizes, descriptors, _, _ = socket.recv_fds(connection, ACCEPTED.size, 1)
        try:
            area_bytes, _ = ACCEPTED.unpack(sizes)
            memory = map_memory(descriptors[0], area_bytes)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        connection.settimeout(None)
    except (OSError, ValueError, IndexError, struct.error, WireError):
        with contextlib.suppress(OSError):
            connection.close()
        return None
    return Lane(connection, memory, area_bytes)
