"""Runs a command line in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from limpet.runtime.cli import main


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
