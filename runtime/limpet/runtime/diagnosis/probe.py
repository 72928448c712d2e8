"""Files, commands and the GPU's driver of a machine."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from limpet.runtime.plans.devices import driver_cuda, gpu_capability

TIMEOUT_S = 10.0


def output_of(command: Sequence[str]) -> str:
    """What a command prints, empty where it is not here or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def import_problem(module: str) -> str:
    """Why a module cannot be imported (a library of another system, say), empty if it can."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


@dataclass(frozen=True)
class Probe:
    """A machine.

    Attributes:
        root: Folder that its paths begin at.
        run: Runs a command, see `output_of`.
        capability: Compute capability of its first GPU (`sm87`), None where there is none.
        cuda: Newest CUDA that its driver knows, as (major, minor); None without a driver.
        problem: Why a Python module does not load, see `import_problem`.
    """

    root: Path = Path("/")
    run: Callable[[Sequence[str]], str] = output_of
    capability: Callable[[], str | None] = gpu_capability
    cuda: Callable[[], tuple[int, int] | None] = driver_cuda
    problem: Callable[[str], str] = import_problem

    def read(self, path: str) -> str:
        """Text of a file, without zeros and blanks at its ends; empty where it cannot be read."""
        try:
            text = self._at(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return text.strip("\0\n ")

    def has(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return self._at(path).exists()

    def find(self, pattern: str) -> list[str]:
        """Paths that fit a pattern such as `/dev/nvidia[0-9]*`, sorted."""
        found = self.root.glob(pattern.lstrip("/"))
        return sorted("/" + str(path.relative_to(self.root)) for path in found)

    def _at(self, path: str) -> Path:
        return self.root / path.lstrip("/")
