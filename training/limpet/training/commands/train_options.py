"""Options that `limpet train` has for every encoder."""

from __future__ import annotations

from pathlib import Path

import click

out_option = click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder to write; refused if it exists.",
)
device_option = click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), help="Seed of all randomness [default: 0]."
)
resume_option = click.option(
    "--resume", is_flag=True, help="Go on with an interrupted run at --out."
)
force_option = click.option("--force", is_flag=True, help="Replace a run at --out.")
json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write the report as JSON; - for standard output, where it replaces the text.",
)


def check_extra() -> None:
    """Names the extra where what trains is not installed.

    Raises:
        MissingExtraError: It is not.
    """
    from limpet.contracts.errors import MissingExtraError

    try:
        import safetensors  # noqa: F401
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", error.name or "torch") from error
