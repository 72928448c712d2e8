"""`limpet demo` refuses at once what it could not finish."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import identity_bundle
from tests.command_line import limpet


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that no test here may see made."""
    return tmp_path / "demo-output"


def test_missing_extras_are_named_with_the_line_that_brings_them(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> object:
        return None if name in ("torch", "onnxscript") else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    done = limpet(capsys, "demo", "--out", out)
    assert done.code == 3
    assert "torch, onnxscript" in done.err
    assert "pip install 'limpet[training,export]'" in done.err
    assert not out.exists()


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan", "inf"])
def test_a_speed_that_is_none_is_refused(
    speed: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = limpet(capsys, "demo", "--out", out, "--speed", speed)
    assert done.code == 2
    assert "--speed" in done.err
    assert not out.exists()


def test_options_for_a_users_file_need_one(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = limpet(capsys, "demo", "--out", out, "--key", "x", "--train-rows", "5")
    assert done.code == 2
    assert "--train-rows, --key says how to read a file of yours" in done.err


def test_a_file_that_is_not_there_is_an_error(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = limpet(capsys, "demo", "--out", out, "--data", tmp_path / "none.csv")
    assert done.code == 1
    assert "none.csv" in done.err
    assert not out.exists()


def test_a_folder_that_holds_anything_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "mine.npy", np.zeros(100))
    done = limpet(capsys, "demo", "--out", tmp_path, "--data", tmp_path / "mine.npy")
    assert done.code == 2
    assert "mine.npy" in done.err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.npy"]


def test_a_report_that_could_not_be_written_is_refused_before_the_work(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = limpet(capsys, "demo", "--out", out, "--json", tmp_path / "no" / "report.json")
    assert done.code == 2
    assert not out.exists()


def test_a_bundle_that_finds_no_grasps_is_refused(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = identity_bundle(tmp_path / "identity").path
    np.save(tmp_path / "mine.npy", np.zeros(100))
    done = limpet(capsys, "demo", "--out", out, "--data", tmp_path / "mine.npy", "--grasp", bundle)
    assert done.code == 2
    assert "this bundle finds no grasps" in done.err
    assert not out.exists()
