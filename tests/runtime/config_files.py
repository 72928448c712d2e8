"""Configuration files of a few lines, loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.contracts.errors import ConfigError
from limpet.runtime.config import ServerConfig, load_config

MODEL = "[[models]]\nbundle = 'bundle'\n"


def load(folder: Path, text: str) -> ServerConfig:
    file = folder / "server.toml"
    file.write_bytes(text.encode())
    return load_config(file)


def fault(folder: Path, text: str) -> str:
    """The error of a wrong file, its folder left out: `line: what\\n  hint`."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    start = f"{folder / 'server.toml'}:"
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)
