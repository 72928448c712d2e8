"""The command line itself: finding commands, loading them late, and reporting errors."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import click
import pytest

from limpet.contracts import errors
from limpet.contracts.errors import LimpetError
from limpet.runtime import cli
from tests.command_line import limpet

Capture = pytest.CaptureFixture[str]

HEAVY = ["torch", "onnx", "onnxscript", "onnxruntime", "matplotlib", "zmq", "numpy"]
"""What `limpet --help` has no use for."""


def run(
    *arguments: str, program: str = "from limpet.runtime.cli import main; main()"
) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Commands]:
    """Adds commands as another distribution's entry points would."""
    Commands.points = {}
    Commands.folder = tmp_path
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli.Commands, "entry_points", lambda self: dict(Commands.points))
    return Commands


class Commands:
    """Commands of a test."""

    points: dict[str, metadata.EntryPoint]
    folder: Path

    @classmethod
    def add(cls, name: str, source: str) -> None:
        """A command `name` whose module has this source."""
        module = f"limpet_test_{name}"
        text = textwrap.dedent(source)
        (cls.folder / f"{module}.py").write_text(f"import click\n\n{text}")
        sys.modules.pop(module, None)
        cls.points[name] = metadata.EntryPoint(name, f"{module}:command", cli.GROUP)


def failing(statement: str) -> str:
    return f"""
        @click.command()
        def command():
            '''Fail. Always.'''
            {statement}
        """


def test_every_command_is_listed_with_what_it_does(capsys: Capture) -> None:
    done = limpet(capsys, "--help")
    assert done.code == 0
    listed = done.out.partition("Commands:\n")[2]
    points = metadata.entry_points(group=cli.GROUP)
    assert points
    for point in points:
        (line,) = [line for line in listed.splitlines() if line.startswith(f"  {point.name} ")]
        assert len(line.split()) > 2, f"{point.name} says nothing about itself"


@pytest.mark.parametrize("name", sorted(metadata.entry_points(group=cli.GROUP).names))
def test_every_command_has_help(capsys: Capture, name: str) -> None:
    done = limpet(capsys, name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: limpet {name} ")


def test_the_short_help_is_the_one_that_click_would_give(add: type[Commands]) -> None:
    add.add(
        "fly",
        """
        @click.command()
        def command():
            '''Fly over the sea
            and back. Then rest.

            More of it.
            '''
        """,
    )
    assert cli._short_help(add.points["fly"]) == "Fly over the sea and back"


def test_help_imports_no_command_and_no_library() -> None:
    program = f"""
import sys
from limpet.runtime.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
print(*(name for name in sys.modules if ".commands." in name), file=sys.stderr)
"""
    done = run(program=program)
    assert done.returncode == 0
    assert done.stderr.split() == []


def test_a_broken_command_does_not_break_the_others(add: type[Commands], capsys: Capture) -> None:
    add.add("broken", "raise RuntimeError('at import')\n\ndef command(): '''Break.'''")
    add.add("whole", failing("click.echo('done')"))
    add.points["gone"] = metadata.EntryPoint("gone", "limpet_test_gone:command", cli.GROUP)
    add.points["lost"] = metadata.EntryPoint("lost", "limpet.nowhere.lost:command", cli.GROUP)
    assert limpet(capsys, "--help").code == 0
    assert limpet(capsys, "whole").out == "done\n"


def test_the_version_is_the_distributions(capsys: Capture) -> None:
    done = limpet(capsys, "--version")
    assert (done.code, done.out) == (0, f"limpet {metadata.version('limpet')}\n")


def test_an_unknown_command_is_a_usage_error(capsys: Capture) -> None:
    done = limpet(capsys, "swim")
    assert done.code == 2
    assert "No such command 'swim'" in done.err
    assert done.out == ""


def test_an_unknown_command_names_the_one_that_may_be_meant(capsys: Capture) -> None:
    done = limpet(capsys, "verfy")
    assert done.code == 2
    assert "No such command 'verfy'. Did you mean 'verify'?" in done.err


def test_an_unknown_option_is_a_usage_error(capsys: Capture) -> None:
    assert limpet(capsys, "doctor", "--fast").code == 2


def subclasses(of: type[LimpetError]) -> list[type[LimpetError]]:
    return [of, *(c for direct in of.__subclasses__() for c in subclasses(direct))]


def test_each_kind_of_error_has_its_exit_code() -> None:
    codes = {
        kind.__name__: kind.exit_code
        for kind in subclasses(LimpetError)
        if kind.__module__ == errors.__name__
    }
    special = {"UsageError": 2, "MissingExtraError": 3, "ImpossibleHereError": 4}
    for name, code in codes.items():
        assert code == special.get(name, 1), name
    assert special.items() <= codes.items()


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("DataError", 1, "error: a broke\n  mend a\n"),
        ("UsageError", 2, "error: a broke\n  mend a\n"),
        ("ImpossibleHereError", 4, "error: impossible on this machine: a broke\n  mend a\n"),
    ],
)
def test_an_error_is_its_message_its_hint_and_its_code(
    add: type[Commands], capsys: Capture, kind: str, code: int, said: str
) -> None:
    assert issubclass(getattr(errors, kind), LimpetError)
    statement = f"from limpet.contracts.errors import {kind}; raise {kind}('a broke', 'mend a')"
    add.add("fail", failing(statement))
    done = limpet(capsys, "fail")
    assert (done.code, done.out, done.err) == (code, "", said)


def test_an_unexpected_exception_keeps_its_traceback(add: type[Commands]) -> None:
    add.add("fail", failing("raise ZeroDivisionError('a bug')"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main(["fail"])


def test_a_file_that_the_system_refuses_is_an_error_of_one_line(
    add: type[Commands], capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    add.add("fail", failing(f"import os; os.mkdir({str(tmp_path / 'file' / 'run')!r})"))
    done = limpet(capsys, "fail")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"error: {tmp_path / 'file' / 'run'}: Not a directory\n"


def test_a_command_ends_with_the_code_it_chose(add: type[Commands], capsys: Capture) -> None:
    add.add("fail", failing("raise click.exceptions.Exit(1)"))
    assert limpet(capsys, "fail").code == 1


def test_what_a_command_returns_is_no_exit_code(add: type[Commands], capsys: Capture) -> None:
    add.add("count", failing("return 'three'"))
    assert limpet(capsys, "count").code == 0


def test_an_interrupt_ends_with_130_and_no_traceback(add: type[Commands], capsys: Capture) -> None:
    add.add("wait", failing("raise KeyboardInterrupt"))
    done = limpet(capsys, "wait")
    assert done.code == 130
    assert "Traceback" not in done.err


@pytest.mark.parametrize("module", ["torch", "onnx", "onnxscript", "safetensors"])
def test_a_command_whose_extra_is_missing_ends_with_its_pip_line(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str
) -> None:
    pytest.importorskip("torch")
    for name in [*sys.modules]:
        if name.startswith(("limpet.export.", "limpet.training.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    done = limpet(capsys, "export", tmp_path / "run", "--out", tmp_path / "bundle")
    assert done.code == 3
    assert done.err == (
        f"error: this needs {module}, which is not installed\n  pip install 'limpet[export]'\n"
    )


def test_a_missing_module_that_no_extra_brings_keeps_its_traceback(add: type[Commands]) -> None:
    add.add("fail", failing("import limpet_no_such_module"))
    with pytest.raises(ModuleNotFoundError, match="limpet_no_such_module"):
        cli.main(["fail"])


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = "from limpet.runtime.cli import main; main(['doctor'])"
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.stderr == ""


def test_logs_go_to_standard_error() -> None:
    program = """
import logging
import click
from limpet.runtime import cli

@click.command()
def command():
    logging.getLogger("limpet.runtime.test").info("listening")
    logging.getLogger("other").info("noise")
    click.echo("data")

cli.Commands.get_command = lambda self, ctx, name: command
cli.main(["log"])
"""
    done = run(program=program)
    assert done.stdout == "data\n"
    assert done.stderr.endswith("INFO limpet.runtime.test: listening\n")
    assert "noise" not in done.stderr


def test_groups_are_commands_too() -> None:
    for point in metadata.entry_points(group=cli.GROUP):
        assert isinstance(point.load(), click.Command), point.value
