"""The server's side of same-host lanes: who may open one, and what comes over them.

A lane is a Unix socket (SOCK_SEQPACKET) for packets and sealed memory without a name for large
frames (`limpet.contracts.lane`). The client asks for it in its `Hello`, so that whoever may talk to
the ROUTER may have one, and nobody else. Its end is that of the socket: a process that dies leaves
neither a file nor memory.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import mmap
import os
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence

from limpet.contracts.errors import RejectedError, WireError
from limpet.contracts.lane import (
    ACCEPTED,
    MAX_PACKET_BYTES,
    TOKEN_BYTES,
    Block,
    pack,
    unpack,
)
from limpet.contracts.messages import LaneOffer, Rejected, Reply
from limpet.contracts.tensors import Tensors
from limpet.contracts.wire import Buffer, encode, peek_id
from limpet.runtime.lane_memory import Area, make_memory, place
from limpet.runtime.metrics import Metrics
from limpet.runtime.replies import Refusals, Respond
from limpet.runtime.scheduler import Mailbox

log = logging.getLogger(__name__)

MAX_LANES = 32
"""Open at a time; further clients use the socket that they have."""
MAX_OFFERS = 64
OFFER_S = 5.0
"""How long a token is good, and how long a connection may take to say one."""
PACKETS_A_TURN = 16
"""Read from one lane before the others get their turn."""
_PEER = struct.Struct("3i")  # process, user, group
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL if hasattr(socket, "MSG_NOSIGNAL") else 0

Handle = Callable[[bytes, Sequence[Buffer], Respond], None]
"""Takes the ROUTER's name of a peer, the frames of one message, what answers; must not raise."""
SendElsewhere = Callable[[bytes, Sequence[Buffer]], None]
"""Sends frames over the ROUTER."""


class LaneHost:
    """Offers, opens and serves lanes, in the I/O thread.

    Args:
        area_bytes: Memory that either side of a lane may give out.
        metrics: Counts.
        refusals: Says what is not answered by a result.
        mailbox: Runs in the I/O thread what other threads want sent.
        handle: Gets every message that comes.
        send_elsewhere: Sends replies that have no room.

    Raises:
        OSError: This system has no such sockets.
    """

    def __init__(
        self,
        area_bytes: int,
        metrics: Metrics,
        refusals: Refusals,
        mailbox: Mailbox,
        handle: Handle,
        send_elsewhere: SendElsewhere,
    ) -> None:
        self.area_bytes, self.metrics, self.refusals = area_bytes, metrics, refusals
        self.mailbox, self.handle, self.send_elsewhere = mailbox, handle, send_elsewhere
        self._offers: dict[bytes, tuple[bytes, float]] = {}  # token: peer, until when
        self._strangers: dict[int, tuple[socket.socket, float]] = {}
        self._lanes: dict[int, Lane] = {}
        self._address = f"limpet-{secrets.token_hex(16)}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        try:
            # In the abstract namespace: there is no file that a server killed would leave.
            self._listener.bind(f"\0{self._address}")
            self._listener.listen(16)
        except BaseException:
            self._listener.close()
            raise
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when `serve` has something to do."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Ends every lane."""
        for lane in [*self._lanes.values()]:
            self.drop(lane)
        for stranger, _ in self._strangers.values():
            stranger.close()
        self._listener.close()
        self._epoll.close()

    def offer(self, peer: bytes) -> LaneOffer:
        """What a client needs to open one.

        Args:
            peer: The ROUTER's name of its connection.
        """
        token = secrets.token_bytes(TOKEN_BYTES)
        while len(self._offers) >= MAX_OFFERS:
            del self._offers[next(iter(self._offers))]
        self._offers[token] = peer, time.monotonic() + OFFER_S
        return LaneOffer(address=self._address, token=token.hex())

    def serve(self) -> None:
        """Handles what has come."""
        for descriptor, _ in self._epoll.poll(0):
            if (lane := self._lanes.get(descriptor)) is not None:
                lane.read(PACKETS_A_TURN)
            elif descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._strangers:
                self._greet(descriptor)

    def _accept(self) -> None:
        now_s = time.monotonic()
        for descriptor, (stranger, until_s) in [*self._strangers.items()]:
            if until_s < now_s or len(self._strangers) >= MAX_OFFERS:
                del self._strangers[descriptor]
                stranger.close()
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            if _user_of(connection) != os.geteuid():
                self.metrics.count("lane.refused")
                connection.close()
                return
            connection.setblocking(False)
            self._strangers[connection.fileno()] = connection, now_s + OFFER_S
            self._epoll.register(connection, select.EPOLLIN)

    def _greet(self, descriptor: int) -> None:
        """The first packet of a connection must be a token."""
        stranger, _ = self._strangers.pop(descriptor)
        try:
            token = stranger.recv(TOKEN_BYTES + 1)
        except OSError:
            token = b""
        peer, until_s = self._offers.pop(token, (b"", 0.0))
        if until_s < time.monotonic() or len(self._lanes) >= MAX_LANES:
            self.metrics.count("lane.refused")
            stranger.close()
            return
        try:
            memory_descriptor, memory = make_memory(self.area_bytes)
            self._lanes[descriptor] = Lane(self, stranger, peer, memory)
            try:
                sizes = ACCEPTED.pack(self.area_bytes, self.area_bytes)
                socket.send_fds(stranger, [sizes], [memory_descriptor], _NOW)
            finally:
                os.close(memory_descriptor)
        except OSError as error:
            log.warning("no same-host lane: %s", error)
            self.metrics.count("lane.refused")
            self._lanes.pop(descriptor, None)
            stranger.close()
            return
        self.metrics.count("lane.opened")

    def drop(self, lane: Lane) -> None:
        """Ends a lane; its memory goes with the last request that still reads it."""
        if self._lanes.pop(lane.descriptor, None) is not None:
            lane.connection.close()  # the epoll forgets it


class Lane:
    """One open lane.

    Args:
        host: Its owner.
        connection: Not blocking.
        peer: The ROUTER's name of the client.
        memory: Requests' area, then replies'.
    """

    def __init__(
        self, host: LaneHost, connection: socket.socket, peer: bytes, memory: mmap.mmap
    ) -> None:
        self._host, self.connection, self._peer = host, connection, peer
        self.descriptor = connection.fileno()
        self._requests = Area(memory, 0, host.area_bytes)
        self._replies = Area(memory, host.area_bytes, host.area_bytes)
        self._thread = threading.get_ident()

    def read(self, limit: int) -> None:
        """Handles packets that are there, `limit` at most."""
        for _ in range(limit):
            try:
                packet = self.connection.recv(MAX_PACKET_BYTES, _NOW)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:  # the client is gone
                self._host.drop(self)
                return
            self._take(packet)
            if self.connection.fileno() < 0:
                return

    def _take(self, packet: bytes) -> None:
        try:
            described, released = unpack(packet)
            for block in released:
                self._replies.free(block)
        except WireError as error:
            # Nothing that follows can be trusted, and there is no id to answer.
            self._refuse([], [], error)
            self._host.drop(self)
            return
        frames: list[Buffer] = []
        blocks: list[Block] = []
        wrong: WireError | None = None
        for frame in described:
            if not isinstance(frame, tuple):
                frames.append(frame)
                continue
            try:
                frames.append(self._requests.read(*frame))
                blocks.append(frame[0])
            except WireError as error:
                wrong = error
        if wrong is not None:
            self._refuse(frames, blocks, wrong)
        elif frames:
            self._host.handle(self._peer, frames, functools.partial(self._respond, blocks))

    def _refuse(self, frames: Sequence[Buffer], blocks: Sequence[Block], error: WireError) -> None:
        self._host.metrics.count("dropped.malformed")
        refused = RejectedError("malformed", f"lane: {error.message}", error.hint)
        respond = functools.partial(self._respond, blocks)
        self._host.refusals.reject(respond, peek_id(frames), refused)

    def _respond(self, blocks: Sequence[Block], reply: Reply, tensors: Tensors | None) -> None:
        """Answers a request whose frames lay in `blocks`; from any thread."""
        if not all(map(self._requests.holds, blocks)):
            self._host.metrics.count("dropped.overwritten")
            reply, tensors = _overwritten(reply), None
        frames = encode(reply, tensors)
        placed = place(frames, self._replies)
        if placed is None:
            self._send_here(functools.partial(self._host.send_elsewhere, self._peer, frames))
            placed = []
        packet = pack(placed, blocks)
        self._send_here(functools.partial(self._send, packet))

    def _send_here(self, send: Callable[[], None]) -> None:
        if threading.get_ident() == self._thread:
            send()
        else:
            self._host.mailbox.put(send)

    def _send(self, packet: bytes) -> None:
        try:
            self.connection.send(packet, _NOW)
        except BlockingIOError:
            self._host.metrics.count("dropped.reply_peer_does_not_read")
            self._host.drop(self)
        except OSError:
            self._host.metrics.count("dropped.reply_peer_gone")
            self._host.drop(self)


def _overwritten(reply: Reply) -> Rejected:
    return Rejected(
        id=reply.id,
        code="malformed",
        reason="lane: a block of this request was reused before the request was answered",
        hint="give a block out again only when the server has released it",
    )


def _user_of(connection: socket.socket) -> int:
    """Whose process is at the other end, as the kernel says."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    user: int = _PEER.unpack(peer)[1]
    return user
