"""The I/O thread of a server: a ROUTER for requests and streams, an XPUB for alerts and
heartbeats, and what other threads leave for them.
"""

from __future__ import annotations

import contextlib
import functools
import math
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence

import zmq

from limpet.contracts.errors import LimpetError
from limpet.contracts.messages import Reply
from limpet.contracts.tensors import Tensors
from limpet.contracts.wire import Buffer, encode
from limpet.runtime.frames import has_message, receive_frames, receive_peer, send_frames
from limpet.runtime.ipc_buffers import widen_accepted
from limpet.runtime.keep_alive import notice_vanished_peers
from limpet.runtime.metrics import Metrics
from limpet.runtime.replies import Respond
from limpet.runtime.scheduler import Mailbox
from limpet.runtime.turn import TURN

MESSAGES_PER_POLL = 16
"""Messages read before workers' results get their turn: below a millisecond of them in a flood."""
GREETING_S = 0.05
"""A new subscriber gets a heartbeat within this time; many of them share one."""
HANDSHAKE_S = 5.0
"""Longest time from a connection to the end of its ZMTP handshake."""
MAX_SUBSCRIPTION_BYTES = 4096
"""Largest message that a subscriber may send."""

Handle = Callable[[bytes, Sequence[Buffer], Respond], None]
"""Takes the peer's identity, the frames of one message, what answers it; must not raise."""


class IoLoop:
    """The sockets, and the loop that serves them in the thread that calls `turn_while`.

    Args:
        listen: Endpoints for requests and streams.
        publish: Endpoints for alerts and heartbeats.
        max_message_bytes: Largest frame that a node may send.
        metrics: Counts replies that nobody takes.
        handle: Gets every message that comes.
        looks: Called before each look at the sockets.
        rests: Called, in the turn, where such a look has waited and found nothing.

    Attributes:
        listening: The endpoints with the ports that were taken.
        publishing: The same.

    Raises:
        LimpetError: An endpoint cannot be bound.
    """

    def __init__(
        self,
        listen: Sequence[str],
        publish: Sequence[str],
        max_message_bytes: int,
        metrics: Metrics,
        handle: Handle,
        looks: Callable[[], None] = lambda: None,
        rests: Callable[[], None] = lambda: None,
    ) -> None:
        self._metrics, self._handle, self._looks, self._rests = metrics, handle, looks, rests
        self._router_used = self._xpub_used = True
        self._monitor: zmq.Socket[bytes] | None = None
        self._sources: dict[int, Callable[[], None]] = {}
        self._thread = threading.get_ident()
        with contextlib.ExitStack() as opened:  # closed again where something fails
            # Not a pipe: a worker that outlives the server must not write to a reused descriptor.
            self._wake_read, self._wake_write = map(opened.enter_context, socket.socketpair())
            self._wake_read.setblocking(False)
            self._wake_write.setblocking(False)
            self.mailbox = Mailbox(self.wake)
            self._context = zmq.Context()
            opened.callback(self._context.destroy, linger=0)
            self._router = self._socket(zmq.ROUTER, max_message_bytes)
            self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a lost reply is counted, not silent
            self._xpub = self._socket(zmq.XPUB, MAX_SUBSCRIPTION_BYTES)
            self._xpub.setsockopt(zmq.XPUB_VERBOSE, 1)  # tells of every subscriber
            if any(endpoint.startswith("ipc:") for endpoint in listen):
                self._watch_accepted()
            self.listening = [_bind(self._router, endpoint) for endpoint in listen]
            self.publishing = [_bind(self._xpub, endpoint) for endpoint in publish]
            self._opened = opened.pop_all()

    def _socket(self, kind: int, max_bytes: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
        socket.setsockopt(zmq.LINGER, 1000)
        # A peer that does not read, or floods, holds at most this much of our memory.
        socket.setsockopt(zmq.SNDHWM, 256)
        socket.setsockopt(zmq.RCVHWM, 64)
        socket.setsockopt(zmq.HANDSHAKE_IVL, round(HANDSHAKE_S * 1000))
        notice_vanished_peers(socket)
        return socket

    def _watch_accepted(self) -> None:
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_ACCEPTED)
        serve = functools.partial(widen_accepted, self._monitor)
        serve()  # its descriptor tells of nothing before somebody has looked
        self.watch(int(self._monitor.getsockopt(zmq.FD)), serve)

    def watch(self, descriptor: int, serve: Callable[[], None]) -> None:
        """From the next `turn_while` on, calls `serve` where a descriptor is readable."""
        self._sources[descriptor] = serve

    def turn_while(
        self,
        wanted: Callable[[], bool],
        beat: Callable[[], None],
        beat_s: float,
        longest_sleep_s: float,
    ) -> None:
        """Serves in this thread.

        Args:
            wanted: Asked before each turn.
            beat: Called every `beat_s`, at once at first, and soon after a subscriber has come.
            beat_s: Seconds.
            longest_sleep_s: Between two turns.
        """
        self._thread = threading.get_ident()
        # Of libzmq's own poll each call asks every socket twice; here the sockets' descriptors are
        # waited for. They tell of news and not of messages: see `_pending`.
        poller, wake = select.poll(), self._wake_read.fileno()
        router, xpub = (int(each.getsockopt(zmq.FD)) for each in (self._router, self._xpub))
        for source in (router, xpub, wake, *self._sources):
            poller.register(source, select.POLLIN)
        next_beat_s = time.monotonic()
        while wanted():
            now_s = time.monotonic()
            if now_s >= next_beat_s:
                beat()
                # After a stall the beat starts anew instead of catching up.
                next_beat_s = max(next_beat_s + beat_s, now_s)
            sleep_s = (
                0.0 if self._pending() else min(max(0.0, next_beat_s - now_s), longest_sleep_s)
            )
            self._looks()
            ready = dict(poller.poll(math.ceil(sleep_s * 1000)))
            with TURN:
                if not ready and sleep_s > 0:
                    self._rests()
                if wake in ready:
                    self._clear_wake()
                    self.mailbox.run()
                if router in ready or self._router_used:
                    self._router_used = self.read_requests(MESSAGES_PER_POLL)
                for source, serve in self._sources.items():
                    if source in ready:
                        serve()
                if (xpub in ready or self._xpub_used) and self._took_subscription():
                    next_beat_s = min(next_beat_s, now_s + GREETING_S)

    def _pending(self) -> bool:
        """Whether a socket may have something without its descriptor telling.

        Whatever is done with a socket may use the news up that its descriptor tells of. So one that
        was used is asked before the next sleep.
        """
        return self._router_used or self._xpub_used

    def _took_subscription(self) -> bool:
        """Reads that a subscriber came or went, if one did."""
        self._xpub_used = has_message(self._xpub)
        if self._xpub_used:
            self._xpub.recv_multipart()
        return self._xpub_used

    def wake(self) -> None:
        """Makes the poll return; from any thread or a signal handler."""
        with contextlib.suppress(OSError):  # a full buffer wakes as well; at the end none listens
            self._wake_write.send(b"\0")

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._wake_read.recv(4096)) == 4096:
                pass

    def read_requests(self, limit: int) -> bool:
        """Handles messages that are there, `limit` at most; whether there may be more."""
        router = self._router
        for _ in range(limit):
            try:
                peer = receive_peer(router)
            except zmq.Again:
                return False
            frames = receive_frames(router)
            self._handle(peer, frames, functools.partial(self.respond, peer))
            if not has_message(router):  # a fifth of the price of `zmq.Again`
                return False
        return True

    def respond(self, identity: bytes, reply: Reply, tensors: Tensors | None) -> None:
        """Sends a reply; from another thread through the mailbox."""
        frames = encode(reply, tensors)
        if threading.get_ident() == self._thread:
            self.send(identity, frames)
        else:
            self.mailbox.put(functools.partial(self.send, identity, frames))

    def send(self, identity: bytes, frames: Sequence[Buffer]) -> None:
        """Sends to a peer, in the I/O thread; a message that nobody takes is counted."""
        try:
            self._router_used = True
            send_frames(self._router, frames, identity)
        except zmq.Again:
            self._metrics.count("dropped.reply_peer_does_not_read")
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._metrics.count("dropped.reply_peer_gone")

    def publish(self, topic: bytes, frames: Sequence[Buffer]) -> None:
        """Publishes; in the I/O thread."""
        self._xpub_used = True
        self._xpub.send_multipart([topic, *frames])  # XPUB drops for a subscriber that is full

    def close(self) -> None:
        """Gives what was sent a moment to leave, and closes everything."""
        if self._monitor is not None:
            self._router.disable_monitor()
            self._monitor.close()
        self._router.close()
        self._xpub.close()
        self._context.term()
        self._opened.close()

    def abandon(self) -> None:
        """Closes everything at once."""
        self._opened.close()


def _bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Binds and returns the endpoint with the port that was taken."""
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise LimpetError(
            f"cannot bind {endpoint}: {error.strerror}",
            "is another server running? change the endpoint in the configuration, or stop it",
        ) from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)
