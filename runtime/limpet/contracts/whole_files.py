"""Files that hold the old content or all of the new at any moment, power loss included."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from limpet.contracts.errors import LimpetError, UsageError

UNFINISHED = ".*.part"
"""Names of files that a process was writing when it was killed."""


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that gets its name once the block has ended, and only if nothing was raised.

    Args:
        path: Its name; its folder exists. A file of that name is replaced.

    Raises:
        OSError: It cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file by `whole_file`.

    Raises:
        OSError: It cannot be written.
    """
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def output_file(path: Path) -> Iterator[IO[bytes]]:
    """As `whole_file`, for a file that somebody named: errors say what is wrong with it.

    Raises:
        UsageError: The folder does not exist.
        LimpetError: The file cannot be written.
    """
    check_folder(path)
    try:
        with whole_file(path) as file:
            yield file
    except OSError as error:
        raise LimpetError(f"cannot write {path}: {error.strerror or error}") from error


def check_folder(path: Path) -> None:
    """Whether there is a folder for a file that somebody named.

    Raises:
        UsageError: The folder does not exist.
    """
    if not os.path.isdir(path.parent):
        raise UsageError(f"cannot write {path}: no folder {path.parent}")
