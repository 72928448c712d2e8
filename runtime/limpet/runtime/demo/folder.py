"""The folder that a demo fills: made anew by each run, and never anything else's.

demo-output/timeline.png      recordings, labels, scores and alerts
demo-output/trajectories.png  ways of the mobile robot, where a policy is served
demo-output/grasps.png        what the picking robot saw and was told, where a grasp model is served
demo-output/summary.json      `limpet.runtime.demo.report.DemoReport`
demo-output/alerts.jsonl      every alert as it arrived
demo-output/scores/           one score a streamed row
demo-output/bundles/, runs/   what was trained and served
demo-output/serve.toml        the server's configuration, for `limpet serve`
demo-output/state/            the server's alert log
demo-output/logs/             outputs and reports of the processes
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from limpet.contracts.errors import UsageError

MARKER = ".limpet-demo"
"""File that says whose folder it is, and is locked while a demo uses it."""

FILES = (
    "timeline.png",
    "trajectories.png",
    "grasps.png",
    "summary.json",
    "alerts.jsonl",
    "serve.toml",
)
FOLDERS = ("scores", "bundles", "runs", "state", "logs")


@dataclass(frozen=True)
class DemoFolder:
    """The folder and what lies where."""

    path: Path

    @property
    def timeline(self) -> Path:
        """The picture."""
        return self.path / "timeline.png"

    @property
    def trajectories(self) -> Path:
        """The picture of the mobile robot's ways."""
        return self.path / "trajectories.png"

    @property
    def grasps(self) -> Path:
        """The picture of what was found to grasp."""
        return self.path / "grasps.png"

    @property
    def summary(self) -> Path:
        """The report."""
        return self.path / "summary.json"

    @property
    def alerts(self) -> Path:
        """Alerts, one JSON object a line."""
        return self.path / "alerts.jsonl"

    @property
    def config(self) -> Path:
        """The server's configuration."""
        return self.path / "serve.toml"

    @property
    def logs(self) -> Path:
        """Outputs and reports of the processes."""
        return self.path / "logs"

    def run(self, name: str) -> Path:
        """What training writes."""
        return self.path / "runs" / name

    def bundle(self, name: str) -> Path:
        """What export writes."""
        return self.path / "bundles" / name

    def scores(self, name: str) -> Path:
        """Scores of the streamed rows."""
        return self.path / "scores" / f"{name}.npy"


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[DemoFolder]:
    """Empties a demo's folder, or makes one, and keeps other demos out of it.

    Raises:
        UsageError: It is in use, or holds anything that no demo wrote.
    """
    if path.exists():
        _check_ours(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        marker = (path / MARKER).open("a")
    except OSError as error:
        raise UsageError(f"--out {path}: {error.strerror}", "name another --out") from error
    with marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"--out {path} is in use by another demo", "end it, or name another --out"
            ) from error
        for name in FILES:
            (path / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(path / name, ignore_errors=True)
            (path / name).mkdir()
        yield DemoFolder(path)


def _check_ours(path: Path) -> None:
    if not path.is_dir():
        raise UsageError(f"--out {path} is no folder", "name another --out")
    found = {entry.name for entry in path.iterdir()}
    strangers = sorted(found - {MARKER, *FILES, *FOLDERS}) if MARKER in found else sorted(found)
    if strangers:
        raise UsageError(
            f"--out {path} holds what no demo wrote: {', '.join(strangers[:5])}",
            "name another --out, or remove it",
        )
