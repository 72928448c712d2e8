"""Imports point down: runtime and training to contracts, export to training and contracts."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# portion: where it lives, which portions of limpet it may import
PORTIONS = {
    "contracts": ("runtime/limpet/contracts", {"contracts"}),
    "runtime": ("runtime/limpet/runtime", {"contracts", "runtime"}),
    "training": ("training/limpet/training", {"contracts", "training"}),
    "export": ("export/limpet/export", {"contracts", "training", "export"}),
}
ROBOT_PORTIONS = ["contracts", "runtime"]

# Not even inside a function: a robot has none of these.
NEVER_ON_A_ROBOT = {"torch", "open3d", "onnx", "gymnasium", "rosbags"}
# Inside a function perhaps (an extra may bring it), but never because a module was imported.
NEVER_AT_IMPORT = [*sorted(NEVER_ON_A_ROBOT), "matplotlib", "safetensors", "onnxscript"]

# Import names of what limpet depends on, by itself or through an extra.
DEPENDENCIES = {
    *("click", "msgspec", "numpy", "onnxruntime", "tomli", "tomllib", "zmq", "pyzmq"),
    *("matplotlib", "onnx", "onnxscript", "open3d", "safetensors", "scipy", "sklearn", "torch"),
    *("cuda", "gymnasium", "rosbags", "tensorboardX", "tensorrt", "tensorrt_rtx"),
}


def modules_of(portion: str) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module of a portion."""
    folder = REPOSITORY / PORTIONS[portion][0]
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder.parent.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), file


def imports_of(module: str, source: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a source imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(module=target, names=names, level=level):
                above = level - is_package  # a package is its own level 1
                parents = module.split(".")[: len(module.split(".")) - above] if level else []
                for alias in names:
                    yield node.lineno, ".".join([*parents, *filter(None, [target]), alias.name])
            case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]) if (
                isinstance(func, ast.Attribute) and func.attr == "import_module"
            ) or (isinstance(func, ast.Name) and func.id in ("import_module", "__import__")):
                yield node.lineno, name


def broken_arrows(portion: str, module: str, source: str, is_package: bool = False) -> list[str]:
    """What a source of `portion` imports that it may not, one line each."""
    _, allowed = PORTIONS[portion]
    broken = []
    for line, name in imports_of(module, source, is_package):
        root, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if root == "limpet" and target not in allowed:
            below = ", ".join(sorted(allowed))
            broken.append(f"{module}:{line} imports {name}; limpet.{portion} may import {below}")
        if portion in ROBOT_PORTIONS and root in NEVER_ON_A_ROBOT:
            broken.append(f"{module}:{line} imports {name}, which no robot has")
    return broken


@pytest.mark.parametrize("portion", PORTIONS)
def test_a_portion_imports_only_what_lies_below_it(portion: str) -> None:
    modules = list(modules_of(portion))
    assert modules, f"no module found in {PORTIONS[portion][0]}"
    broken = [
        line
        for module, file in modules
        for line in broken_arrows(
            portion, module, file.read_text("utf-8"), file.name == "__init__.py"
        )
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    "source",
    [
        "import limpet.training",
        "from limpet import export",
        "from limpet.training.anomaly import model",
        "def f():\n    import torch.nn",
        "from onnx import helper",
        "from ..training import fit",
        "from ... import training",
        "import importlib\nimportlib.import_module('limpet.export')",
    ],
)
def test_an_arrow_that_points_up_is_seen(source: str) -> None:
    module = "limpet.runtime.commands.serve" if "..." in source else "limpet.runtime.server"
    assert len(broken_arrows("runtime", module, source)) == 1


@pytest.mark.parametrize(
    ("module", "is_package", "source"),
    [
        ("limpet.runtime.server", False, "from limpet.contracts.errors import LimpetError"),
        ("limpet.runtime.server", False, "from .scheduler import Scheduler"),
        ("limpet.runtime.server", False, "from ..contracts import errors"),
        ("limpet.runtime.engines", True, "from .protocol import Engine"),
        ("limpet.runtime.engines", True, "from ..server import Server"),
        ("limpet.runtime.engines", True, "import onnxruntime"),
    ],
)
def test_an_arrow_that_points_down_is_left_alone(
    module: str, is_package: bool, source: str
) -> None:
    assert broken_arrows("runtime", module, source, is_package) == []


def test_importing_everything_a_robot_runs_brings_in_nothing_a_robot_lacks() -> None:
    names = [name for portion in ROBOT_PORTIONS for name, _ in modules_of(portion)]
    program = textwrap.dedent(
        f"""
        import importlib, sys

        for name in {[name for name in names if not name.endswith(".__main__")]!r}:
            importlib.import_module(name)
        unwanted = [*{NEVER_AT_IMPORT!r}, "limpet.training", "limpet.export"]
        print(*(name for name in unwanted if name in sys.modules))
        """
    )
    fresh = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert fresh.returncode == 0, fresh.stderr
    assert fresh.stdout.split() == []


def test_no_module_is_named_after_a_dependency() -> None:
    named = [
        str(file.relative_to(REPOSITORY))
        for portion in PORTIONS
        for module, file in modules_of(portion)
        if module.rpartition(".")[2] in DEPENDENCIES
    ]
    assert named == []


def test_the_namespace_package_has_no_init() -> None:
    """An `__init__.py` in one portion would hide the other two."""
    assert list(REPOSITORY.glob("*/limpet/__init__.py")) == []
