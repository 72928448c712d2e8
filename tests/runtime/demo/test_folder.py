"""The demo's folder: made anew by each run, and nothing of anybody else's is ever deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.contracts.errors import UsageError
from limpet.runtime.demo.folder import open_folder


def test_an_earlier_demos_folder_is_emptied(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with open_folder(out) as folder:
        folder.summary.write_text("old")
        folder.run("machine").mkdir()
    with open_folder(out) as folder:
        assert not folder.summary.exists()
        assert not folder.run("machine").exists()
        assert folder.logs.is_dir()


def test_a_folder_with_anything_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"), open_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_that_joined_a_demos_folder_is_not_deleted(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with open_folder(out) as folder:
        folder.summary.write_text("ours")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"), open_folder(out):
        pass
    assert (out / "notes.txt").exists()
    assert (out / "summary.json").exists()


def test_a_folder_that_only_looks_like_a_demos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(UsageError, match="runs"), open_folder(tmp_path):
        pass
    assert (tmp_path / "runs").is_dir()


def test_two_demos_never_share_a_folder(tmp_path: Path) -> None:
    with open_folder(tmp_path / "demo") as folder:
        folder.summary.write_text("first")
        with pytest.raises(UsageError, match="in use"), open_folder(tmp_path / "demo"):
            pass
        assert folder.summary.read_text() == "first"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no folder"), open_folder(tmp_path / "file"):
        pass
