"""What commands report: tables for people, JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from limpet.contracts.errors import UsageError
from limpet.contracts.golden import Parity


def write_json(json_file: Path | None, report: object) -> bool:
    """Writes a command's report where its `--json FILE` says.

    Args:
        json_file: The option's value; `-` is standard output, None is nowhere.
        report: A msgspec structure or plain containers; NaN and infinity become null.

    Returns:
        Whether standard output holds the report, so that the text for people has to stay away.

    Raises:
        UsageError: The file cannot be written.
    """
    if json_file is None:
        return False
    text = msgspec.json.format(msgspec.json.encode(report)).decode() + "\n"
    if str(json_file) == "-":
        sys.stdout.write(text)
        return True
    try:
        json_file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(json_file, error) from error
    return False


def check_json_file(json_file: Path | None) -> Path | None:
    """The value of `--json FILE`, before the work of which it shall hold the report.

    Raises:
        UsageError: Its folder does not exist.
    """
    if json_file is not None:
        try:
            os.stat(json_file.parent)
        except OSError as error:
            raise _unwritable(json_file, error) from error
    return json_file


def _unwritable(json_file: Path, error: OSError) -> UsageError:
    return UsageError(
        f"--json {json_file}: cannot be written: {error.strerror}",
        "name a file in a folder that exists, or - for standard output",
    )


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of left-aligned columns, two spaces apart."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def format_parity(parity: Parity) -> str:
    """The checks as a table: what was measured, the bound, whether it holds."""
    rows = [
        [
            check.name,
            f"{check.measured:.3g}",
            f"{'>=' if check.name.endswith(' cosine') else '<='} {check.bound:.4g}",
            "ok" if check.passed else "FAILED",
        ]
        for check in parity.checks
    ]
    return format_table(["check", "measured", "bound", ""], rows)
