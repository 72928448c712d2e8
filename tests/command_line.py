"""Runs a command line in this process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import pytest

from limpet.runtime.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, data, messages."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> Any:
        """Standard output as the JSON that `--json -` wrote, and nothing beside it."""
        return msgspec.json.decode(self.out)


def limpet(capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """`limpet ARGUMENTS…`."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Done(int(ended.value.code or 0), captured.out, captured.err)


def stated_entry_points(group: str) -> dict[str, EntryPoint]:
    """The entry points that pyproject.toml states, whatever is installed."""
    stated = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"][group]
    return {name: EntryPoint(name, value, group) for name, value in stated.items()}
