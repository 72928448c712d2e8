"""Multipart messages on a ZeroMQ socket, frame by frame.

pyzmq's `send_multipart` and `recv_multipart` spend several microseconds a frame on flags; here the
flags are plain numbers, small frames are copied, which is quicker than tracking them, and the
number of frames is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import zmq
from zmq.backend import Socket

from limpet.contracts import messages
from limpet.contracts.wire import Buffer

MAX_FRAMES = messages.MAX_TENSORS + 3
"""Frames of a message that are kept: identity, header, tensors, and one more to be refused for."""
COPY_BELOW_BYTES = 64 * 1024
_NOW = int(zmq.NOBLOCK)
_MORE_NOW = _NOW | int(zmq.SNDMORE)
_send: Callable[[zmq.Socket[bytes], Buffer, int, bool], object] = Socket.send  # type: ignore[assignment]
"""What `zmq.Socket.send` comes to for sockets of our kinds."""


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[Buffer]) -> None:
    """Sends a message without waiting; large frames are not copied and must not change any more.

    Raises:
        zmq.Again: The socket takes no message now; nothing of this one was sent.
    """
    *first, last = frames
    for frame in first:
        _send(socket, frame, _MORE_NOW, len(frame) < COPY_BELOW_BYTES)
    _send(socket, last, _NOW, len(last) < COPY_BELOW_BYTES)


def receive_frames(socket: zmq.Socket[bytes], *, wait: bool = False) -> list[zmq.Frame]:
    """Receives a message; of one with more than `MAX_FRAMES` the rest is dropped.

    libzmq bounds the size of a frame and not their number, so a message may have millions.

    Args:
        socket: Where from.
        wait: For as long as the socket's `RCVTIMEO` says, if none is there.

    Raises:
        zmq.Again: None came.
    """
    frame = socket.recv(0 if wait else _NOW, copy=False)
    frames = [frame]
    while frame.more:
        frame = socket.recv(_NOW, copy=False)
        if len(frames) < MAX_FRAMES:
            frames.append(frame)
    return frames
