"""Nodes of a robot that talk to a server: `RobotClient` asks for inferences.

    with RobotClient("tcp://127.0.0.1:7700") as robot:
        answer = robot.infer("grasp", {"depth": depth}, max_age_s=0.2, timeout_s=0.5)

Sockets reconnect by themselves; every wait has a timeout, and a timed-out client goes on working.
A client belongs to one thread.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
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
from limpet.contracts.images import ChannelOrder
from limpet.contracts.messages import Reply, Request
from limpet.contracts.tensors import Tensors
from limpet.contracts.wire import decode_reply, encode
from limpet.runtime.closing import Closing
from limpet.runtime.frames import receive_frames, send_frames
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
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self._connected = False
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
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

    def send(self, request: Request, tensors: Tensors | None, deadline_s: float) -> None:
        """Sends a request as soon as the server is connected.

        Raises:
            RequestTimeoutError: It was not until `deadline_s` (monotonic), or the server has not
                taken those before.
        """
        frames = encode(request, tensors)
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
        while int(self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            event = recv_monitor_message(self._monitor)["event"]
            self._connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return self._connected

    def receive(self, deadline_s: float) -> tuple[Reply, Tensors] | None:
        """The next reply, or None where none came until `deadline_s` (monotonic)."""
        while True:
            try:
                wait_ms = _milliseconds_until(deadline_s)
                if wait_ms != self._wait_ms:  # seldom: those who ask in a row wait alike
                    self._socket.setsockopt(zmq.RCVTIMEO, wait_ms)
                    self._wait_ms = wait_ms
                frames = receive_frames(self._socket, wait=True)
                return decode_reply([frame.buffer for frame in frames])
            except zmq.Again:
                return None
            except WireError:
                continue  # an id that cannot be read belongs to no request of ours

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
        """The reply to a request, over the lane where there is one; None where none comes."""
        if tensors:
            try:
                if self._lane is not None and self._lane.send(encode(request, tensors)):
                    return self._lane_reply(self._lane, request.id, deadline_s)
            except LaneGoneError:  # and the request with it, which leaves no trace
                self._close_lane()
            if self._lane is None and (hello := self._seeker.ask(self.next_id, self.name)):
                self.send(hello, None, deadline_s)
        self.send(request, tensors, deadline_s)
        return self._socket_reply(request.id, deadline_s)

    def _socket_reply(self, request_id: int, deadline_s: float) -> tuple[Reply, Tensors] | None:
        while (answer := self.receive(deadline_s)) is not None:
            if answer[0].id == request_id:
                return answer
            if self._lane is None:
                self._lane = self._seeker.take(answer[0])
            self.on_other(*answer)
        return None

    def _lane_reply(
        self, lane: Lane, request_id: int, deadline_s: float
    ) -> tuple[Reply, Tensors] | None:
        while (frames := lane.receive(deadline_s)) is not None:
            if not frames:  # it has no room in the lane
                return self._socket_reply(request_id, deadline_s)
            try:
                answer = decode_reply(frames)
            except WireError:
                continue
            if answer[0].id == request_id:
                return answer
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


def same_transport(endpoint: str, offered: list[str]) -> str:
    """Of a server's published endpoints, the one to use by who reached it at `endpoint`.

    Raises:
        WireError: The server publishes on no endpoint of that transport.
    """
    scheme = endpoint.partition("://")[0]
    for candidate in offered:
        if candidate.partition("://")[0] == scheme:
            if scheme != "tcp":
                return candidate
            return f"tcp://{urlsplit(endpoint).hostname}:{urlsplit(candidate).port}"
    raise WireError(
        f"the server at {endpoint} publishes on {offered} only",
        f"add a {scheme} endpoint to `publish` in its configuration",
    )


class Inference(msgspec.Struct, frozen=True, eq=False):
    """A finished inference.

    Attributes:
        outputs: The model's outputs by name, read-only.
        space_id: The embedding space they live in.
        engine: What computed them.
        queue_s: Wait in the server.
        inference_s: Preprocessing and engine.
        total_s: From arrival to reply, in the server.
        valid_until_ns: When an action must no longer be followed, on this host's clock (Unix ns);
            None where there is none.
    """

    outputs: Tensors
    space_id: str
    engine: str
    queue_s: float
    inference_s: float
    total_s: float
    valid_until_ns: int | None = None


class RobotClient(Connection, Closing):
    """A robot node: asks for inferences, one at a time."""

    def infer(
        self,
        model: str,
        inputs: Tensors,
        *,
        capture_time_ns: int | None = None,
        max_age_s: float | None = None,
        priority: int = 0,
        replaces: str = "",
        channel_order: ChannelOrder | None = None,
        timeout_s: float = 1.0,
    ) -> Inference:
        """Runs a model.

        Args:
            model: Name of a served model.
            inputs: Its input tensors by name, as `hello` describes them.
            capture_time_ns: When they were measured, on this host's clock (Unix ns).
            max_age_s: Oldest input still worth an answer, where that arrives.
            priority: Higher ones are served first.
            replaces: A waiting request of this client with the same key is dropped for this one.
            channel_order: Of the image, where the model takes one; None is RGB.
            timeout_s: Longest wait for the reply.

        Raises:
            RequestTimeoutError, StaleReplyError, RejectedError, FailedError: No result, and why.
        """
        deadline_s = time.monotonic() + timeout_s
        captured_ns = capture_time_ns
        if capture_time_ns is not None:
            capture_time_ns = self.server_time_ns(capture_time_ns, timeout_s)
        reply, outputs = self.request(
            messages.Infer(
                id=self.next_id(),
                model=model,
                capture_time_ns=capture_time_ns,
                max_age_ns=None if max_age_s is None else round(max_age_s * 1e9),
                priority=priority,
                replaces=replaces,
                channel_order=channel_order or UNSET,
            ),
            messages.Result,
            deadline_s - time.monotonic(),
            inputs,
        )
        if captured_ns is not None and max_age_s is not None:
            # The server said so when it was young enough; the way to here took time as well.
            age_s = (self._clock.now_ns() - captured_ns) / 1e9
            if age_s > max_age_s:
                raise StaleReplyError(
                    f"input was {age_s * 1000:.1f} ms old when its result came, at most "
                    f"{max_age_s * 1000:.1f} ms wanted"
                )
        return Inference(
            outputs,
            reply.space_id,
            reply.engine,
            reply.queue_ns / 1e9,
            reply.inference_ns / 1e9,
            reply.total_ns / 1e9,
            None if reply.valid_until_ns is UNSET else self.host_time_ns(reply.valid_until_ns),
        )
