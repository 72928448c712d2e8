"""Commands of training, one module each, and the option that those of export have, too."""

from __future__ import annotations

from pathlib import Path

import click

# The runtime has the same: it imports no training, and contracts, below both, know no command line.


def _check_json_file(
    ctx: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    from limpet.contracts.reports import check_json_file  # imports numpy: not for --help

    return value if value is None else check_json_file(value)


json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    callback=_check_json_file,
    help="Write the report as JSON; - for standard output, where it replaces the text.",
)
