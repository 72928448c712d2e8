"""A real `limpet serve` process for tests: start it, kill it, start it again on the same endpoint.

The fixture `serve` (in `conftest.py`) makes one on tiny bundles and ends it with the test:

    def test_something(serve: Serve) -> None:
        server = serve()  # identity bundle "identity" and anomaly bundle "tiny-anomaly"
        with RobotClient(server.endpoint) as robot: ...
        server.kill()
        server.start()
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from limpet.runtime.config import load_config

START_TIMEOUT_S = 60.0


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def write_config(
    folder: Path, bundles: Sequence[Path], *, server: str = "", tables: str = ""
) -> Path:
    """A configuration on two free ports, which it keeps however often the server is restarted.

    Args:
        folder: Where `server.toml`, and the server's `state` folder, come to lie.
        bundles: One `[[models]]` table each.
        server: More lines for the table `[server]`.
        tables: More tables, such as `[[streams]]`.
    """
    requests, alerts = free_ports(2)
    models = "".join(f"[[models]]\nbundle = {str(path)!r}\n" for path in bundles)
    config = folder / "server.toml"
    config.write_text(
        f"[server]\nlisten = ['tcp://127.0.0.1:{requests}']\n"
        f"publish = ['tcp://127.0.0.1:{alerts}']\nheartbeat_s = 0.2\n{server}\n{models}{tables}"
    )
    return config


class ServerProcess:
    """`limpet serve CONFIG` in a process of its own.

    Args:
        config_path: Its endpoints must have fixed ports.
    """

    def __init__(self, config_path: Path) -> None:
        self.config_path = config_path
        self.endpoint = load_config(config_path).server.listen[0]
        """For requests and streams."""
        self.log_path = config_path.with_suffix(".log")
        """What the process wrote to stderr, of all its starts."""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the process and waits until it is ready for requests."""
        assert self._process is None, "the server runs already"
        with self.log_path.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "limpet.runtime.cli", "serve", str(self.config_path)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT_S, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        watchdog.join()
        if not line.startswith("ready "):
            self.kill()
            raise AssertionError(
                f"no server: stdout {line!r}, stderr:\n{self.log_path.read_text()}"
            )

    @property
    def pid(self) -> int:
        """The process, which must run."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Ends the process at once, as a power cut would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """Asks the process to finish and stop (SIGTERM); returns its exit status."""
        return self._end(signal.SIGTERM)

    def clean_up(self) -> None:
        """Ends the process where one is left, dead or alive."""
        if self._process is not None:
            self.kill()

    def rss_bytes(self) -> int:
        """Resident memory of the process."""
        resident_pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return resident_pages * os.sysconf("SC_PAGE_SIZE")

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None, "the server does not run"
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            process.communicate(timeout=START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return process.returncode


Serve = Callable[..., ServerProcess]
"""Of the fixture `serve`: `server` and `tables` as of `write_config`, `memory` as of
`anomaly_bundle`.
"""
