"""What `limpet train` has for every encoder: options, a configuration, how a report is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    from limpet.training.anomaly.train import AnomalyReport
    from limpet.training.grasp.train import GraspReport
    from limpet.training.navigation.train import NavigationReport

Config = TypeVar("Config", bound=msgspec.Struct)
Report = TypeVar("Report", "AnomalyReport", "NavigationReport", "GraspReport")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

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


class FiniteRange(click.FloatRange):
    """A range of numbers; `nan`, which no comparison finds outside, and `inf` are none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """As click does it, then refuses what is not finite."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def config_option(module: str) -> Decorator:
    """`--config`; `module` is where the keys of one encoder alone are described."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help=f"TOML file with what differs from the defaults ({module}, "
        "limpet.training.encoder_config).",
    )


def steps_option(default: int) -> Decorator:
    """`--steps`."""
    return click.option(
        "--steps", type=click.IntRange(min=1), help=f"Training steps [default: {default}]."
    )


def configure(config_file: Path | None, kind: type[Config], **given: object) -> Config:
    """The configuration: its defaults, then the file's keys, then the options that were given.

    Raises:
        ConfigError: The file cannot be read, or a key or a value is wrong.
    """
    from limpet.training.settings import read_settings

    config = read_settings(config_file, kind) if config_file else kind()
    return msgspec.structs.replace(
        config, **{name: value for name, value in given.items() if value is not None}
    )


def show(
    report: Report,
    json_file: Path | None,
    describe: Callable[[Report], str],
    told: Sequence[str] = (),
) -> None:
    """Warnings and report, by the process that leads.

    Args:
        report: Of any encoder's training.
        json_file: Where to write it instead.
        describe: The report for people.
        told: Warnings that were shown before training; the JSON has them, too.
    """
    from limpet.contracts.reports import write_json
    from limpet.training.ranks import leads

    if not leads():
        return
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    report = msgspec.structs.replace(report, warnings=[*told, *report.warnings])
    if not write_json(json_file, report):
        click.echo(describe(report))


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
