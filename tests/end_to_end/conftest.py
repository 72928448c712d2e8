"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import anomaly_bundle, identity_bundle
from tests.end_to_end.serving import Serve, ServerProcess, write_config


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts `limpet serve` processes on tiny bundles; those still running end with the test."""
    servers: list[ServerProcess] = []

    def start(*, server: str = "", tables: str = "", memory: float = 0.0) -> ServerProcess:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        bundles = [
            identity_bundle(folder / "identity").path,
            anomaly_bundle(folder / "anomaly", memory=memory).path,
        ]
        process = ServerProcess(write_config(folder, bundles, server=server, tables=tables))
        servers.append(process)
        process.start()
        return process

    yield start
    for process in servers:
        process.clean_up()
