"""The README's commands and its Python example work as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def block(language: str) -> str:
    """The README's only block of a language."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(found)


def run(script: str, folder: Path, timeout_s: float) -> str:
    """What a script says that has to succeed, `limpet` on its path."""
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(300)
def test_the_four_jobs_and_the_python_example_run_as_the_readme_says(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "robot_configs", tmp_path / "robot_configs")
    (tmp_path / "runtime").symlink_to(REPOSITORY / "runtime")
    (tmp_path / "node.py").write_text(block("python"))
    # Fewer training steps than a user takes, to be quick; nothing else differs.
    commands = block("sh").replace("limpet train anomaly", "limpet train anomaly --steps 100")
    script = (
        f"set -e\ntrap 'kill %1' EXIT\n{commands}\npython node.py\nkill %1\nwait %1\ntrap - EXIT\n"
    )
    out = run(script, tmp_path, timeout_s=280)
    assert "22695 of 22695 rows acknowledged" in out
    assert "computes what training computed" in out
    assert re.search(r"^labelled intervals: \d of 4 found", out, re.MULTILINE)
    assert "600 rows acknowledged, each once" in out
    assert re.search(r"press-4: open", out)
    assert re.search(r"^open \d+", out, re.MULTILINE)
    assert out.rstrip().endswith("stopped")


@pytest.mark.timeout(180)
def test_an_encoder_of_ones_own_is_exported_and_served_as_the_readme_says(tmp_path: Path) -> None:
    (tmp_path / "my_encoder.py").write_text(block("py"))
    (tmp_path / "SPEC.toml").write_text(block("toml"))
    script = f"set -e\ntrap 'kill %1' EXIT\n{block('bash')}\nkill %1\nwait %1\ntrap - EXIT\n"
    out = run(script, tmp_path, timeout_s=160)
    assert "onnxruntime-cpu: mine (custom, fp32) computes what training computed" in out
    assert "bundle: bundles/theirs" in out
    assert "(2, 16) onnxruntime-cpu" in out
    assert out.rstrip().endswith("stopped")
