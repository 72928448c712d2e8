"""Configuration files of training: TOML, typed, where unknown keys fail."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from limpet.contracts.errors import ConfigError

Settings = TypeVar("Settings", bound=msgspec.Struct)


def read_settings(path: Path | str, kind: type[Settings]) -> Settings:
    """Reads a flat TOML file of `key = value` lines.

    Args:
        path: The file.
        kind: The structure it describes; a key that it lacks fails, a key left out has its default.

    Raises:
        ConfigError: `path:line: what is wrong`, and the nearest key where one is misspelt.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}:1: cannot be read: {error}") from error
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise _explain(path, text, str(error), kind) from error
    except msgspec.DecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ConfigError(f"{path}:{line[1] if line else 1}: not valid TOML: {error}") from error


def _explain(path: Path, text: str, message: str, kind: type[msgspec.Struct]) -> ConfigError:
    keys = list(kind.__struct_fields__)
    hint = ""
    if unknown := re.search(r"unknown field `(.*?)`", message):
        near = difflib.get_close_matches(unknown[1], keys, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(keys)}"
    named = unknown or re.search(r"at `\$\.(\w+)", message)
    start = rf"\s*(\[+\s*)?{re.escape(named[1])}\s*[=\]]" if named else r"(?!)"
    lines = text.splitlines()
    number = next((n for n, line in enumerate(lines, start=1) if re.match(start, line)), 1)
    return ConfigError(f"{path}:{number}: {message}", hint)
