"""How either side finds out that the other is gone without a word, as a machine without power is.

By TCP's keep-alive and, in clients, its limit for what is sent and not acknowledged; over ipc the
system says.
Not by ZMTP's heartbeats: libzmq 4.3.5 aborts the process where one is due to a peer that has gone
while its messages wait (stream_engine_base.cpp, `!_io_error`). So a client that floods and leaves
would end the server, and a server that is killed while a subscriber is busy the subscriber.
"""

from __future__ import annotations

import zmq

ASK_S, QUESTIONS = 2, 4
"""A silent peer is asked every two seconds, and gone after four questions without an answer."""


def gone_after_s() -> int:
    """From the last sign of a peer until its connection is closed, give or take a timer of TCP."""
    return ASK_S * (QUESTIONS + 1)


def notice_vanished_peers(socket: zmq.Socket[bytes]) -> None:
    """Has a server's socket close connections whose other end has vanished; before it binds.

    A client that lives and does not read keeps its connection, and what waits for it.
    """
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, ASK_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, ASK_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, QUESTIONS)


def notice_vanished_server(socket: zmq.Socket[bytes]) -> None:
    """The same for a client's socket, of whose messages none may wait for long; before it connects.

    Nobody is asked while something waits for its acknowledgement, which would for 15 minutes. It
    also leaves a server that lives and reads nothing for as long.
    """
    notice_vanished_peers(socket)
    socket.setsockopt(zmq.TCP_MAXRT, gone_after_s() * 1000)
