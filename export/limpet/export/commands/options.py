"""Options of several commands."""

from __future__ import annotations

from pathlib import Path

import click

json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write the report as JSON; - for standard output, where it replaces the text.",
)
