"""Files appear whole, or stay as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.contracts.errors import LimpetError, UsageError
from limpet.contracts.whole_files import UNFINISHED, output_file, whole_file, write_whole


def test_a_file_is_replaced_when_the_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"old")
    with whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert len(list(tmp_path.glob(UNFINISHED))) == 1
    assert path.read_bytes() == b"new"
    assert [*tmp_path.iterdir()] == [path]


def test_what_fails_half_way_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(bytes([1, 2, 1 // file.tell()]))
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with whole_file(path) as first, whole_file(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first", "the outer block ended last"
    assert [*tmp_path.iterdir()] == [path]


def test_a_name_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"cannot write .*a\.bin: no folder"),
        output_file(tmp_path / "no" / "a.bin") as file,
    ):
        file.write(b"x")
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(LimpetError, match=r"cannot write .*folder: Is a directory"),
        output_file(tmp_path / "folder") as file,
    ):
        file.write(b"x")
