"""A server with one model and one stream, as most tests of streams want it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.runtime.server import Server
from tests.runtime.serving import RawStream, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def pump(server: Server) -> Iterator[RawStream]:
    with RawStream(server.listening[0]) as stream:
        yield stream
