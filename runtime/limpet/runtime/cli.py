"""The command line: finds commands, imports the one that is called for, and reports errors.

A command is an entry point of the group `limpet.commands`. Its module is imported when it runs;
`limpet --help` reads the commands' docstrings from their sources instead.
"""

from __future__ import annotations

import ast
import difflib
import errno
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from importlib import metadata

import click

from limpet.contracts.errors import ImpossibleHereError, LimpetError, MissingExtraError
from limpet.runtime.commands import entry_points, load_command

GROUP = "limpet.commands"


class Commands(click.Group):
    """The commands that entry points name."""

    def entry_points(self) -> dict[str, metadata.EntryPoint]:
        """Entry points by command name."""
        return entry_points(GROUP)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, sorted."""
        return sorted(self.entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command."""
        point = self.entry_points().get(cmd_name)
        return None if point is None else load_command(point)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it; of an unknown command, names the one that may be meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near:
                raise
            meant = f"{error.message} Did you mean {near[0]!r}?"
            raise click.UsageError(meant, error.ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing any."""
        rows = [(name, _short_help(point)) for name, point in sorted(self.entry_points().items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="limpet", message="%(prog)s %(version)s")
def cli() -> None:
    """Runs contrastive encoders on robots and machines: embeddings, grasps and anomaly alerts."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command line and exits.

    Exit codes: 0 done, 1 failed, 2 usage, 3 a missing extra, 4 impossible on this machine,
    130 interrupted.
    """
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("limpet").setLevel(logging.INFO)
    # ONNX Runtime reports to its makers, under a number that it keeps in the home folder; a robot
    # does neither unless somebody says so. This is read when the library is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        code = cli.main(arguments, prog_name="limpet", standalone_mode=False)
        sys.stdout.flush()
    except LimpetError as error:
        code = _report(error)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except ModuleNotFoundError as error:
        extra = _extra_for(error)
        if extra is None:
            raise
        code = _report(MissingExtraError(extra, error.name or ""))
    except OSError as error:
        if error.errno == errno.EPIPE:
            # The reader has gone; what is still buffered must not complain at interpreter exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = 1
        elif error.filename is None or error.strerror is None:
            raise
        else:  # a folder that is read-only, a full disk: the machine's state, not a bug of ours
            code = _report(LimpetError(f"{error.filename}: {error.strerror}"))
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: LimpetError) -> int:
    kind = "impossible on this machine: " if isinstance(error, ImpossibleHereError) else ""
    click.echo(f"error: {kind}{error}", err=True)
    return error.exit_code


def _extra_for(error: ModuleNotFoundError) -> str | None:
    """The extra that brings a missing module, preferably that of the command's own portion."""
    from limpet.runtime.extras import extra_of

    traceback, portion = error.__traceback__, ""
    while traceback is not None and not portion:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if module.startswith("limpet.") and module != __name__:
            portion = module.split(".")[1]
        traceback = traceback.tb_next
    return extra_of(error.name or "", portion)


def _short_help(point: metadata.EntryPoint) -> str:
    """First sentence of the docstring of a command's function, read from its source."""
    try:
        spec = importlib.util.find_spec(point.module)
    except ModuleNotFoundError:  # entry points of another version: help goes on without it
        return ""
    if spec is None or spec.origin is None:
        return ""
    with open(spec.origin, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == point.attr:
            first = (ast.get_docstring(node) or "").partition("\n\n")[0]
            return " ".join(first.split()).partition(". ")[0].removesuffix(".")
    return ""


if __name__ == "__main__":
    main()
