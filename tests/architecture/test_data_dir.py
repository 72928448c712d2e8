"""The `data_dir` fixture: absent recordings fail where they are required and skip elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"


def run_with(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one test that asks for `data_dir`, in a copy of the suite's conftest."""
    tests = tmp_path / "tests"
    tests.mkdir()
    shutil.copy(CONFTEST, tests)
    (tests / "test_one.py").write_text(
        "def test_one(data_dir):\n    assert (data_dir / 'skab').is_dir()\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LIMPET_", "PYTEST_"))}
    clean.pop("CI", None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", str(tests)],
        cwd=tmp_path,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_absent_recordings_skip_and_say_why(tmp_path: Path) -> None:
    done = run_with(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "set LIMPET_DATA" in done.stdout


@pytest.mark.parametrize("environment", [{"LIMPET_REQUIRE_DATA": "1"}, {"CI": "true"}])
def test_absent_recordings_fail_where_they_are_required(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = run_with(tmp_path, **environment)
    assert done.returncode == 1, done.stdout
    assert "set LIMPET_DATA" in done.stdout


def test_recordings_are_found_where_limpet_data_says(tmp_path: Path) -> None:
    recordings = tmp_path / "elsewhere"
    (recordings / "skab").mkdir(parents=True)
    done = run_with(tmp_path, LIMPET_DATA=str(recordings), LIMPET_REQUIRE_DATA="1")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
