"""Room in Unix sockets for a whole image, so that neither end waits for the other in its midst.

ZMQ_SNDBUF is for tcp alone, and libzmq leaves Unix sockets what the system gives: 208 KiB. For
0.9 MB the I/O threads of both ends then wait seven times instead of two, for 2.7 MB fifteen.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat

import zmq
from zmq.utils.monitor import recv_monitor_message

from limpet.runtime.frames import has_message

SEND_BUFFER_BYTES = 4 * 1024 * 1024
"""As much as Linux lets TCP have; `net.core.wmem_max` may allow less."""


def widen(descriptor: int) -> None:
    """Gives a connection room, where it is a Unix socket that is still there."""
    with contextlib.suppress(OSError):
        # It may be a file's by now, of which Python makes no socket and closes none either.
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if connection.family == socket.AF_UNIX:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


def widen_accepted(monitor: zmq.Socket[bytes]) -> None:
    """Does so for each connection that a monitor of `EVENT_ACCEPTED` tells of."""
    while has_message(monitor):
        widen(recv_monitor_message(monitor)["value"])
