"""Unix sockets of both ends take a whole image at once."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.runtime.client import RobotClient
from limpet.runtime.ipc_buffers import widen
from tests.runtime.clients import value_of, x
from tests.runtime.serving import serving, until

in_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks for them in /proc")


def send_buffer(connection: socket.socket) -> int:
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def connections(path: str) -> Iterator[int]:
    """Send buffers of both ends of connections to a Unix socket of this process."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # gone since, or connected to nothing
            if not stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as found:
                listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if not listens and path in (found.getsockname(), found.getpeername()):
                    yield send_buffer(found)


@in_proc
def test_both_ends_of_an_ipc_connection_have_more_room_than_the_system_gives(
    tmp_path: Path,
) -> None:
    near, far = socket.socketpair()
    with near, far:
        usual = send_buffer(near)
    path = f"{tmp_path}/s"
    with serving(tmp_path, listen=("tcp://127.0.0.1:0", f"ipc://{path}")) as server:
        for _ in range(2):  # the server is told of each
            with RobotClient(f"ipc://{path}", lane=False) as robot:
                assert value_of(robot.infer("identity", x(2.0))) == 2.0
                until(lambda: sum(size > usual for size in connections(path)) == 2)
        with RobotClient(server.listening[0], lane=False) as robot:
            assert value_of(robot.infer("identity", x(3.0))) == 3.0


@in_proc
def test_what_is_no_unix_socket_or_is_gone_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = send_buffer(listener)
        widen(listener.fileno())
        assert send_buffer(listener) == before
        gone = listener.fileno()
    widen(gone)
    with open(os.devnull, encoding="utf-8") as file:
        before = len(os.listdir("/proc/self/fd"))
        widen(file.fileno())
        assert len(os.listdir("/proc/self/fd")) == before
