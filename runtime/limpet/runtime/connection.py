"""A connection of a node to a server: requests and replies, over a socket or a same-host lane.

Sockets reconnect by themselves; every wait has a timeout, and a timed-out connection goes on
working. A connection belongs to one thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import zmq
from msgspec import UNSET
from zmq.utils.monitor import recv_monitor_message

from limpet.contracts import messages
from limpet.contracts.clock import Clock
from limpet.contracts.errors import (
    FailedError,
    RejectedError,
    RequestTimeoutError,
    StaleReplyError,
    WireError,
)
from limpet.contracts.messages import Reply, Request
from limpet.contracts.tensors import Tensors
from limpet.contracts.wire import Buffer, decode_reply, encode
from limpet.runtime.frames import has_message, receive_frames, send_frames
from limpet.runtime.ipc_buffers import widen
from limpet.runtime.keep_alive import notice_vanished_server
from limpet.runtime.lane import Lane, LaneGoneError, LaneSeeker

CLOCK_ROUNDS = 8
CLOCK_EVERY_S = 30.0

AnyReply = TypeVar("AnyReply", bound=Reply)


class Connection:
    """A DEALER socket that sends requests and pairs replies with them.

    Args:
        endpoint: The server's, as `tcp://HOST:PORT` or `ipc://PATH`.
        name: Says in the server's log who asks.
        lane: Whether requests with tensors take the server's same-host lane, where it has one.
    """

    def __init__(self, endpoint: str, name: str = "", *, lane: bool = True) -> None:
        self.endpoint, self.name = endpoint, name or f"pid-{os.getpid()}"
        self._seeker = LaneSeeker(endpoint, lane)
        self._lane: Lane | None = None
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 64)
        # Requests wait for a connection here, not in a socket that may never get one. The monitor
        # tells; `zmq.IMMEDIATE` would too, but it throws replies that nobody has read yet away
        # when their connection ends, and with them the last ones of a server that stops.
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self._news = select.poll()
        self._news.register(int(self._monitor.getsockopt(zmq.FD)), select.POLLIN)
        self._connected = False
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        notice_vanished_server(self._socket)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise RequestTimeoutError(
                f"cannot connect to {endpoint!r}: {error.strerror}",
                "an endpoint looks like tcp://127.0.0.1:7700 or ipc:///run/limpet.sock",
            ) from error
        self.on_other: Callable[[Reply, Tensors], None] = lambda reply, tensors: None
        """Called with replies that `request` meets while it waits for its own."""
        self._clock = Clock()
        self._clock_offset_ns = 0
        self._clock_measured_s: float | None = None
        self._last_id = 0
        self._wait_ms = -1  # what the socket was told; for ever at first

    def close(self) -> None:
        """Closes the socket; what waits for a reply gets none."""
        self._close_lane()
        self._context.destroy(linger=0)

    def _close_lane(self) -> None:
        if self._lane is not None:
            self._lane.close()
            self._lane = None

    @property
    def has_lane(self) -> bool:
        """Whether requests with tensors take a same-host lane."""
        return self._lane is not None

    def next_id(self) -> int:
        """A request id that was not used yet."""
        self._last_id += 1
        return self._last_id

    def send(self, request: Request, tensors: Tensors | None, deadline_s: float) -> bool:
        """Sends a request, an inference over the lane where there is one and it has room.

        Returns:
            Whether it went over the lane.

        Raises:
            RequestTimeoutError: The server was not connected until `deadline_s` (monotonic), or has
                not taken the requests before.
        """
        if tensors and isinstance(request, messages.Infer):
            try:
                if self._lane is not None and self._lane.send(encode(request, tensors)):
                    return True
            except LaneGoneError:
                self._close_lane()
            if self._lane is None and (hello := self._seeker.ask(self.next_id, self.name)):
                self._send_over_socket(encode(hello), deadline_s)
        self._send_over_socket(encode(request, tensors), deadline_s)
        return False

    def _send_over_socket(self, frames: Sequence[Buffer], deadline_s: float) -> None:
        while not self._is_connected():
            if not _poll(self._monitor, zmq.POLLIN, deadline_s):
                raise RequestTimeoutError(
                    f"no server at {self.endpoint}", "start one with: limpet serve CONFIG"
                )
        try:
            send_frames(self._socket, frames)
        except zmq.Again:
            if not _poll(self._socket, zmq.POLLOUT, deadline_s):
                raise RequestTimeoutError(f"{self.endpoint} takes no more requests") from None
            send_frames(self._socket, frames)

    def _is_connected(self) -> bool:
        # The descriptor tells of news since the events were last read, at a third of their price.
        if self._connected and not self._news.poll(0):
            return True
        while has_message(self._monitor):
            news = recv_monitor_message(self._monitor)
            if news["event"] == zmq.EVENT_CONNECTED:
                widen(news["value"])
            self._connected = news["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return self._connected

    def receive(self, deadline_s: float) -> tuple[Reply, Tensors] | None:
        """The next reply, or None where none came until `deadline_s` (monotonic)."""
        while True:
            if self._lane is not None:
                frames = self._frames_of_either(self._lane, deadline_s)
            else:
                frames = self._frames_of_socket(deadline_s)
            if frames is None:
                return None
            try:
                answer = decode_reply(frames)
            except WireError:
                continue  # an id that cannot be read belongs to no request of ours
            if self._lane is not None or not self._seeker.asked_for(answer[0]):
                return answer
            self._lane = self._seeker.take(answer[0])

    def _frames_of_socket(self, deadline_s: float) -> list[Buffer] | None:
        wait_ms = _milliseconds_until(deadline_s)
        if wait_ms != self._wait_ms:  # seldom: those who ask in a row wait alike
            self._socket.setsockopt(zmq.RCVTIMEO, wait_ms)
            self._wait_ms = wait_ms
        try:
            return receive_frames(self._socket, wait=True)
        except zmq.Again:
            return None

    def _frames_of_either(self, lane: Lane, deadline_s: float) -> list[Buffer] | None:
        """Frames that came over the lane or the socket; of a lane that ends, none any more."""
        poller = select.poll()
        poller.register(lane.fileno(), select.POLLIN)
        poller.register(int(self._socket.getsockopt(zmq.FD)), select.POLLIN)
        while True:
            try:
                if frames := lane.receive():  # none at all: the reply comes over the socket
                    return frames
            except LaneGoneError:
                self._close_lane()
                return self._frames_of_socket(deadline_s)
            with contextlib.suppress(zmq.Again):
                return receive_frames(self._socket)
            # Only now: the socket's descriptor tells of news, and the look above has used them up.
            if not poller.poll(_milliseconds_until(deadline_s)):
                return None

    def request(
        self,
        request: Request,
        wanted: type[AnyReply],
        timeout_s: float,
        tensors: Tensors | None = None,
    ) -> tuple[AnyReply, Tensors]:
        """Sends a request and waits for its reply; others go to `on_other`.

        Raises:
            RequestTimeoutError: No reply within `timeout_s`.
            StaleReplyError, RejectedError, FailedError: As the server answered.
            WireError: A reply of another type than `wanted`.
        """
        deadline_s = time.monotonic() + timeout_s
        answer = self._ask(request, tensors, deadline_s)
        if answer is None:
            raise RequestTimeoutError(
                f"no reply from {self.endpoint} to {type(request).__name__} "
                f"within {max(0.0, timeout_s):.3g} s"
            )
        reply, outputs = answer
        if isinstance(reply, wanted):
            return reply, outputs
        raise as_error(reply)

    def _ask(
        self, request: Request, tensors: Tensors | None, deadline_s: float
    ) -> tuple[Reply, Tensors] | None:
        """The reply to a request; None where none comes."""
        if self.send(request, tensors, deadline_s):
            assert self._lane is not None
            try:
                return self._lane_reply(self._lane, request.id, deadline_s)
            except LaneGoneError:  # and the request with it, which leaves no trace
                self._close_lane()
                self.send(request, tensors, deadline_s)
        return self._any_reply(request.id, deadline_s)

    def _any_reply(self, request_id: int, deadline_s: float) -> tuple[Reply, Tensors] | None:
        while (answer := self.receive(deadline_s)) is not None:
            if answer[0].id == request_id:
                return answer
            self.on_other(*answer)
        return None

    def _lane_reply(
        self, lane: Lane, request_id: int, deadline_s: float
    ) -> tuple[Reply, Tensors] | None:
        while (frames := lane.receive(deadline_s)) is not None:
            if not frames:  # it has no room in the lane
                return self._any_reply(request_id, deadline_s)
            try:
                answer = decode_reply(frames)
            except WireError:
                continue
            if answer[0].id == request_id:
                return answer
            self.on_other(*answer)
        return None

    def hello(self, timeout_s: float = 5.0) -> messages.Welcome:
        """What the server serves; raises as `request`."""
        welcome, _ = self.request(
            messages.Hello(id=self.next_id(), client=self.name), messages.Welcome, timeout_s
        )
        return welcome

    def status(self, timeout_s: float = 5.0) -> messages.Status:
        """The server's counters and states; raises as `request`."""
        status, _ = self.request(messages.GetStatus(id=self.next_id()), messages.Status, timeout_s)
        return status

    def sync_clock(self, timeout_s: float = 5.0) -> int:
        """Measures the server's clock against ours; of several rounds the quickest counts.

        Returns:
            Server time minus ours, in nanoseconds; wrong by at most half that round's duration.

        Raises:
            RequestTimeoutError: Not even one round was over within `timeout_s`.
        """
        deadline_s = time.monotonic() + timeout_s
        best_ns: int | None = None
        for _ in range(CLOCK_ROUNDS):
            before = self._clock.now_ns()
            ping = messages.Ping(id=self.next_id(), client_time_ns=before)
            try:
                pong, _ = self.request(ping, messages.Pong, deadline_s - time.monotonic())
            except RequestTimeoutError:
                if best_ns is None:
                    raise
                break
            after = self._clock.now_ns()
            if best_ns is None or after - before < best_ns:
                best_ns = after - before
                self._clock_offset_ns = pong.server_time_ns - (before + after) // 2
        self._clock_measured_s = time.monotonic()
        return self._clock_offset_ns

    def server_time_ns(self, unix_ns: int | None = None, timeout_s: float = 5.0) -> int:
        """A time of this host's clock (default: now) on the server's clock.

        The clock is measured anew now and then; an older measurement serves on where the server
        does not answer.

        Raises:
            RequestTimeoutError: The server has never answered.
        """
        measured_s = self._clock_measured_s
        if measured_s is None or time.monotonic() - measured_s > CLOCK_EVERY_S:
            try:
                self.sync_clock(timeout_s)
            except RequestTimeoutError:
                if measured_s is None:
                    raise
        return (self._clock.now_ns() if unix_ns is None else unix_ns) + self._clock_offset_ns

    def host_time_ns(self, server_ns: int | None = None) -> int:
        """A time of the server's clock (default: now), as last measured, on this host's clock."""
        return self._clock.now_ns() if server_ns is None else server_ns - self._clock_offset_ns


def _poll(socket: zmq.Socket[bytes], flags: int, deadline_s: float) -> bool:
    return bool(socket.poll(_milliseconds_until(deadline_s), flags))


def _milliseconds_until(deadline_s: float) -> int:
    return max(0, math.ceil((deadline_s - time.monotonic()) * 1000))


def as_error(reply: Reply) -> Exception:
    """The error that a reply without a result stands for."""
    if isinstance(reply, messages.Stale):
        if reply.stage == "replaced":
            return StaleReplyError("a newer request took this one's place")
        age_ms, limit_ms = (reply.age_ns or 0) / 1e6, (reply.max_age_ns or 0) / 1e6
        return StaleReplyError(f"input was {age_ms:.1f} ms old, at most {limit_ms:.1f} ms wanted")
    if isinstance(reply, messages.Rejected):
        cause = "" if reply.cause is UNSET else reply.cause
        return RejectedError(reply.code, reply.reason, reply.hint, cause)
    if isinstance(reply, messages.Failed):
        return FailedError(reply.reason)
    return WireError(f"unexpected reply {type(reply).__name__}")
