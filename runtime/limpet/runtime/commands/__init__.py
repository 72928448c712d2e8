"""Commands of the runtime, one module each, the options that several have, and how those of other
packages are found.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    """Commands that installed packages contribute to a group, by name; none is imported."""
    return {point.name: point for point in metadata.entry_points(group=group)}


def load_command(point: metadata.EntryPoint) -> click.Command:
    """Imports a command that an entry point names."""
    command = point.load()
    assert isinstance(command, click.Command), f"{point.value} is no click command"
    return command


def json_option(function: Function) -> Function:
    """Adds `--json FILE`, passed as `json_file`, for `limpet.contracts.reports.write_json`."""
    return click.option(
        "--json",
        "json_file",
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        metavar="FILE",
        callback=_check_json_file,
        help="Write the report as JSON; - for standard output, where it replaces the text.",
    )(function)


def engine_option(function: Function) -> Function:
    """Adds `--engine NAME`, passed as `engine`, one of `limpet.runtime.engines.ENGINES`."""
    return click.option(
        "--engine",
        default="auto",
        show_default=True,
        metavar="NAME",
        callback=_check_engine,
        help="Inference engine: onnxruntime (CPU), tensorrt or tensorrt-rtx (a plan on a GPU); "
        "auto takes the fastest that this machine has.",
    )(function)


def force_option(function: Function) -> Function:
    """Adds `--force`, passed as `force`."""
    return click.option("--force", is_flag=True, help="Replace what is at --out already.")(function)


def _check_json_file(
    ctx: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    from limpet.contracts.reports import check_json_file  # imports numpy: not for --help

    return value if value is None else check_json_file(value)


def _check_engine(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    from limpet.runtime.engines import ENGINES  # imports the engines' libraries: not for --help

    if value not in ENGINES:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(ENGINES)}", ctx, parameter)
    return value
