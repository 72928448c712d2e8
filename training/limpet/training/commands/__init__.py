"""Commands of training, one module each, and the option that those of export have, too."""

from __future__ import annotations

from pathlib import Path

import click

# The runtime has the same: it imports no training, and contracts, below both, know no command line.
json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write the report as JSON; - for standard output, where it replaces the text.",
)
