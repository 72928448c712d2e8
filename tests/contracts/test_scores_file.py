"""Score files: what is written is read back, and a file is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from limpet.contracts.errors import DataError, LimpetError, UsageError
from limpet.contracts.scores_file import read_scores, write_scores

SCORES = np.array([np.nan, 0.1, np.inf, -2.5e-38], np.float32)


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz", ".NPY"])
@given(scores=npst.arrays(np.float32, st.integers(0, 20)))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scores_come_back_bit_for_bit(
    tmp_path: Path, suffix: str, scores: NDArray[np.float32]
) -> None:
    path = tmp_path / f"scores{suffix}"
    write_scores(path, scores)
    found = read_scores(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, scores)


def test_the_formats_are_the_frozen_ones(tmp_path: Path) -> None:
    for suffix in (".csv", ".npy", ".npz"):
        write_scores(tmp_path / f"a{suffix}", SCORES)
    assert (tmp_path / "a.csv").read_text().splitlines()[:2] == ["score", "nan"]
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + len(SCORES)
    assert np.load(tmp_path / "a.npy").dtype == np.float32
    assert np.load(tmp_path / "a.npy").shape == (len(SCORES),)
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["score"]
        np.testing.assert_array_equal(archive["score"], SCORES)


def test_double_precision_is_stored_as_single(tmp_path: Path) -> None:
    write_scores(tmp_path / "a.npy", np.array([0.1, 0.2]))
    assert np.load(tmp_path / "a.npy").dtype == np.float32


@pytest.mark.parametrize("name", ["a.json", "a", "a.csv.gz"])
def test_another_suffix_is_a_mistake_in_usage(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"suffixes: .csv, .npy, .npz"):
        write_scores(tmp_path / name, SCORES)
    with pytest.raises(UsageError, match=r"suffixes: .csv, .npy, .npz"):
        read_scores(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_only_a_row_of_floating_scores_is_written(tmp_path: Path) -> None:
    for scores in (np.zeros((3, 1), np.float32), np.zeros(3, np.int64)):
        with pytest.raises(TypeError, match="wanted floating"):
            write_scores(tmp_path / "a.npy", scores)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_a_mistake_in_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        write_scores(tmp_path / "nope" / "a.csv", SCORES)


def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    write_scores(path, SCORES)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LimpetError, match="No space left on device"):
        write_scores(path, SCORES * 2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_are_on_disk_before_the_name_points_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.replace

    def note_fsync(handle: int) -> None:
        calls.append("fsync")
        fsync(handle)

    def note_rename(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_rename)
    write_scores(tmp_path / "a.npz", SCORES)
    assert calls == ["fsync", "rename", "fsync"]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_scores(tmp_path / "a.csv", SCORES)
    assert (tmp_path / "a.csv").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"", "has no column 'score', found: nothing"),
        ("a.csv", b"value\n1\n", "has no column 'score', found: value"),
        ("a.csv", b"score\n1\nx\n", "line 3"),
        ("a.csv", b"score\n1\n\n2\n", "line 3"),
        ("a.csv", b"score\n\xff\n", "is no score file"),
        ("a.npy", b"", "is no score file"),
        ("a.npy", b"\x93NUMPY\x01\x00", "is no score file"),
        ("a.npz", b"PK\x03\x04", "is no score file"),
    ],
)
def test_what_is_no_score_file_is_refused(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_scores(path)
    assert str(path) in caught.value.message
    assert problem in caught.value.message


def test_arrays_that_are_no_scores_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"float64 \[2, 2\], wanted \[rows\]"):
        read_scores(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", other=np.zeros(2))
    with pytest.raises(DataError, match="score"):
        read_scores(tmp_path / "a.npz")
    with pytest.raises(DataError, match="No such file"):
        read_scores(tmp_path / "nope.npy")
