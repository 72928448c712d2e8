"""Multipart messages on a ZeroMQ socket, frame by frame.

pyzmq's `send_multipart` and `recv_multipart` spend several microseconds a frame on flags; here the
flags are plain numbers, small frames are copied, which is quicker than tracking them, and the
number of frames is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import zmq
from zmq.backend import Socket

from limpet.contracts.message_base import MAX_TENSORS
from limpet.contracts.wire import Buffer

MAX_FRAMES = MAX_TENSORS + 2
"""Frames of a message that are kept: header, tensors, and one more to be refused for."""
COPY_BELOW_BYTES = 768 * 1024
"""Smaller frames are copied. pyzmq gives others back through a thread of its own, at two switches
and a fight for the interpreter: so, a request takes 20 µs longer at 64 to 150 KB, as long or longer
at 512 KB, and at 0.9 MB 0 to 7 % less long than with copies, above all its reply."""
NOW = int(zmq.NOBLOCK)
_MORE_NOW = NOW | int(zmq.SNDMORE)
# What these methods of `zmq.Socket` come to for sockets of our kinds, without the calls between.
_send: Callable[[zmq.Socket[bytes], Buffer, int, bool], object] = Socket.send  # type: ignore[assignment]
_receive: Callable[[zmq.Socket[bytes], int, bool], Any] = Socket.recv
_get: Callable[[zmq.Socket[bytes], int], Any] = Socket.get
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)


def has_message(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message can be received at once."""
    return bool(_get(socket, _EVENTS) & _POLLIN)


def send_frames(
    socket: zmq.Socket[bytes], frames: Sequence[Buffer], peer: bytes | None = None
) -> None:
    """Sends a message without waiting; large frames are not copied and must not change any more.

    Args:
        socket: Where to.
        frames: One at least.
        peer: Of a ROUTER, the identity of who is to get it.

    Raises:
        zmq.Again: The socket takes no message now; nothing of this one was sent.
    """
    if peer is not None:
        _send(socket, peer, _MORE_NOW, True)
    left = len(frames)
    for frame in frames:
        left -= 1
        _send(socket, frame, _MORE_NOW if left else NOW, len(frame) < COPY_BELOW_BYTES)


def receive_peer(router: zmq.Socket[bytes]) -> bytes:
    """The identity that stands before a message in a ROUTER, if one is there: see `receive_frames`.

    Raises:
        zmq.Again: None is.
    """
    peer: bytes = _receive(router, NOW, True)
    return peer


def receive_frames(socket: zmq.Socket[bytes], *, wait: bool = False) -> list[Buffer]:
    """Receives a message; of one with more than `MAX_FRAMES` the rest is dropped.

    libzmq bounds the size of a frame and not their number, so a message may have millions.

    Args:
        socket: Where from.
        wait: For as long as the socket's `RCVTIMEO` says, if none is there.

    Raises:
        zmq.Again: None came.
    """
    frame = _receive(socket, 0 if wait else NOW, False)
    frames: list[Buffer] = [frame]  # a `zmq.Frame` is a buffer, which no type says before 3.12
    while frame.more:
        frame = _receive(socket, NOW, False)
        if len(frames) < MAX_FRAMES:
            frames.append(frame)
    return frames
