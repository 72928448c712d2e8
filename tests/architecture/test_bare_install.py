"""The wheel with its base dependencies alone is what a robot installs: it has to work so."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from limpet.runtime.client import RobotClient
from tests.bundles import anomaly_bundle

REPOSITORY = Path(__file__).resolve().parents[2]

# Ten seconds where the package index is near; the limit is for where it is not.
pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the repository and return its output; a failure shows it."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def bare_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with limpet's wheel and its base dependencies, no extra."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, REPOSITORY, cwd=folder)
    (wheel,) = folder.glob("limpet-*.whl")
    environment = folder / "venv"
    venv.create(environment, with_pip=True)
    run(environment / "bin/python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return environment


def test_a_bare_install_brings_no_training_library(bare_venv: Path) -> None:
    program = (
        "from importlib.util import find_spec;"
        "print(*(n for n in ('torch', 'onnx', 'onnxscript', 'safetensors', 'matplotlib', 'pytest')"
        " if find_spec(n)))"
    )
    assert run(bare_venv / "bin/python", "-c", program, cwd=bare_venv).split() == []


def test_a_bare_install_has_all_three_portions(bare_venv: Path) -> None:
    program = "import limpet, os; print(*sorted(os.listdir(*limpet.__path__)))"
    portions = run(bare_venv / "bin/python", "-c", program, cwd=bare_venv).split()
    assert portions == ["contracts", "export", "runtime", "training"]


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["doctor"]])
def test_a_bare_install_runs(bare_venv: Path, arguments: list[str]) -> None:
    assert run(bare_venv / "bin/limpet", *arguments, cwd=bare_venv)


def test_a_bare_install_serves_a_bundle(bare_venv: Path, tmp_path: Path) -> None:
    anomaly_bundle(tmp_path / "bundle")
    config = tmp_path / "serve.toml"
    config.write_text(
        '[server]\nlisten = ["tcp://127.0.0.1:0"]\npublish = ["tcp://127.0.0.1:0"]\n'
        '[[models]]\nname = "pump"\nbundle = "bundle"\n'
    )
    server = subprocess.Popen(
        [bare_venv / "bin/limpet", "serve", config], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert server.stdout is not None
        _, endpoint = server.stdout.readline().split()
        with RobotClient(endpoint) as robot:
            answer = robot.infer("pump", {"rows": np.ones((1, 8, 2), np.float32)}, timeout_s=10)
        assert answer.outputs["score"] == [1.0]
    finally:
        server.terminate()
        assert server.wait(20) == 0
        server.stdout.close()


def test_a_bare_install_evaluates_a_bundle(bare_venv: Path, tmp_path: Path) -> None:
    anomaly_bundle(tmp_path / "bundle")
    values, label = np.zeros((60, 2)), np.zeros(60)
    values[40:], label[40:] = 9.0, 1.0
    np.savez(tmp_path / "a.npz", values=values, label=label)
    line = ["evaluate", "anomaly", "bundle", "--data", "a.npz", "--rate-hz", "10"]
    assert "1 of 1 found" in run(bare_venv / "bin/limpet", *line, cwd=tmp_path)
