"""A server with one model and one stream, and who talks to it, as most tests want them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.runtime import keep_alive
from limpet.runtime.client import RobotClient
from limpet.runtime.server import Server
from tests.runtime.serving import RawStream, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def robot(server: Server) -> Iterator[RobotClient]:
    with RobotClient(server.listening[0]) as connected:
        yield connected


@pytest.fixture
def pump(server: Server) -> Iterator[RawStream]:
    with RawStream(server.listening[0]) as stream:
        yield stream


@pytest.fixture
def quickly_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has vanished peers found out as soon as TCP can, which counts in seconds."""
    if sys.platform != "linux":
        pytest.skip("drops packets by a filter of Linux")
    monkeypatch.setattr(keep_alive, "ASK_S", 1)
    monkeypatch.setattr(keep_alive, "QUESTIONS", 1)
