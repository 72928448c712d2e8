"""PRONOSTIA folders: one recording, a segment a snapshot."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limpet.contracts.bundle import file_sha256, files_sha256
from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.recordings import load_recording, load_recordings

BEARING = "femto/raw/Learning_set/Bearing1_1"


def snapshot(
    folder: Path, number: int, *, clock: tuple[int, int, int] = (9, 39, 39), rows: int = 4,
    step_us: float = 40.0, delimiter: str = ",",
) -> Path:  # fmt: skip
    """A snapshot whose accelerations are its number and the row's."""
    path = folder / f"acc_{number:05}.csv"
    path.write_text(
        "".join(
            delimiter.join(map(str, (*clock, step_us * row, number, row))) + "\n"
            for row in range(rows)
        )
    )
    return path


def refusal(path: Path, **options: object) -> str:
    """The message with which a folder is refused."""
    with pytest.raises(DataError) as caught:
        load_recording(path, **options)  # type: ignore[arg-type]
    assert str(path) in caught.value.message
    return str(caught.value)


def test_a_real_folder_is_one_recording_of_eight_segments(data_dir: Path) -> None:
    bearing = load_recording(data_dir / BEARING)
    assert bearing.channels == ("horizontal", "vertical")
    assert bearing.values.shape == (8 * 2560, 2)
    assert bearing.values[0].tolist() == [0.552, -0.146]
    assert bearing.segments == tuple(range(0, 8 * 2560, 2560))
    assert (bearing.rate_hz, bearing.warnings) == (25_600, ())
    assert bearing.labels is None
    assert bearing.times_ns is not None
    first = np.datetime64("1970-01-01T09:39:39.065664", "ns")
    assert bearing.times_ns[:2].astype("M8[ns]").tolist() == [
        first.astype(int),
        first.astype(int) + 39_000,
    ]
    assert np.diff(bearing.times_ns[::2560]).tolist() == [10 * 10**9] * 7
    assert bearing.left_out == tuple(
        f"{name} (time)" for name in ("hour", "minute", "second", "microsecond")
    )


def test_the_first_snapshot_is_that_of_the_npz(data_dir: Path) -> None:
    raw = load_recording(data_dir / BEARING)
    npz = load_recording(data_dir / "femto/Learning_set_Bearing1_1.npz")
    np.testing.assert_allclose(raw.values[:2560] * 1e3, npz.values[:2560], atol=0.51)


def test_each_folder_of_snapshots_below_a_folder_is_a_recording(
    data_dir: Path, tmp_path: Path
) -> None:
    (only,) = load_recordings(data_dir / "femto/raw")
    assert only.path == data_dir / BEARING
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        snapshot(tmp_path / name, 1)
        snapshot(tmp_path / name, 2)
    assert [r.path.name for r in load_recordings(tmp_path)] == ["a", "b"]
    assert [len(r) for r in load_recordings(tmp_path / "a")] == [8]


def test_snapshots_come_in_order_of_their_numbers_and_may_differ_in_length(tmp_path: Path) -> None:
    snapshot(tmp_path, 100_000, rows=2)
    snapshot(tmp_path, 2, rows=3)
    snapshot(tmp_path, 10, rows=5)
    found = load_recording(tmp_path)
    assert found.segments == (0, 3, 8)
    assert found.values[[0, 3, 8], 0].tolist() == [2, 10, 100_000]
    assert [file.name for file in found.files] == [
        "acc_00002.csv", "acc_00010.csv", "acc_100000.csv",
    ]  # fmt: skip


def test_semicolons_and_decimal_commas_are_read(tmp_path: Path) -> None:
    snapshot(tmp_path, 1)
    snapshot(tmp_path, 2, delimiter=";")
    (tmp_path / "acc_00003.csv").write_text("9;39;40;0;0,5;-0,25\n")
    found = load_recording(tmp_path)
    assert found.segments == (0, 4, 8)
    assert found.values[4:6].tolist() == [[2, 0], [2, 1]]
    assert found.values[8].tolist() == [0.5, -0.25]


def test_temperatures_and_other_files_are_left_out_with_a_reason(tmp_path: Path) -> None:
    snapshot(tmp_path, 1)
    (tmp_path / "temp_00001.csv").write_text("9,39,39,0,66.1\n")
    (tmp_path / "temp_00002.csv").write_text("9,39,39,1,66.1\n")
    (tmp_path / "notes.csv").write_text("a\n1\n")
    (found,) = load_recordings(tmp_path)
    assert found.left_out[4:] == (
        "temp_*.csv (temperatures at another rate: 2)",
        "other files (no snapshots: 1)",
    )


def test_times_go_on_after_midnight(tmp_path: Path) -> None:
    snapshot(tmp_path, 1, clock=(23, 59, 55))
    snapshot(tmp_path, 2, clock=(0, 0, 5))
    found = load_recording(tmp_path)
    assert found.times_ns is not None
    assert found.times_ns[4] - found.times_ns[0] == 10 * 10**9
    assert found.warnings == ()


def test_times_that_say_another_rate_are_believed(tmp_path: Path) -> None:
    snapshot(tmp_path, 1, step_us=100.0)
    assert load_recording(tmp_path).rate_hz == pytest.approx(10_000)
    assert load_recording(tmp_path, rate_hz=9_000).rate_hz == 9_000


def test_channels_are_ignored_by_name(tmp_path: Path) -> None:
    snapshot(tmp_path, 1)
    assert load_recording(tmp_path, ignore=["vertical"]).channels == ("horizontal",)
    assert "channels: horizontal, vertical" in refusal(tmp_path, ignore=["c5"])
    assert "--label c5: no such column" in refusal(tmp_path, label="c5")
    with pytest.raises(UsageError, match="--key x"):
        load_recording(tmp_path, key="x")


def test_tables_that_are_called_alike_stay_tables(tmp_path: Path) -> None:
    (tmp_path / "acc_1.csv").write_text("x,y\n1,2\n")
    (tmp_path / "acc_2.csv").write_text("x,y\n3,4\n")
    assert "is a folder, wanted a file" in refusal(tmp_path)
    assert [r.channels for r in load_recordings(tmp_path)] == [("x", "y")] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9,39,39,0,1,2\n9,39,39,40,1\n", "line 2: '9,39,39,40,1', wanted hour, minute"),
        ("9,39,39,0,1,2\n\n9,39,39,40,x,2\n", "line 3: '9,39,39,40,x,2'"),
        ("9,39,39,0,1,2\n9,39,39,40,nan,2\n", "line 2: '9,39,39,40,nan,2'"),
        ("9,39,39,0,1,2\n9,99,39,40,1,2\n", "line 2: '9,99,39,40,1,2'"),
        ("9,39,39,0,1\n", "line 1: '9,39,39,0,1'"),
        ("\n", "is empty"),
        ("9,39,39,0,1,é\n", "byte 12: not ASCII"),
    ],
)
def test_a_damaged_snapshot_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    snapshot(tmp_path, 1)
    (tmp_path / "acc_00002.csv").write_bytes(text.encode())
    assert message in refusal(tmp_path)


def test_the_digest_of_a_folder_can_be_checked_with_sha256sum(tmp_path: Path) -> None:
    one = snapshot(tmp_path, 1)
    assert files_sha256(load_recording(one).files) == file_sha256(one)
    snapshot(tmp_path, 2)
    assert shutil.which("sha256sum"), "coreutils are missing"
    lines = subprocess.run(
        "sha256sum acc_*.csv", shell=True, cwd=tmp_path, capture_output=True, check=True
    ).stdout
    assert files_sha256(load_recording(tmp_path).files) == hashlib.sha256(lines).hexdigest()


@given(
    edits=st.lists(st.tuples(st.integers(0, 999), st.binary(max_size=3)), max_size=4),
    stop=st.integers(0, 200),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_folder_is_refused_or_read_never_a_traceback(
    tmp_path: Path, edits: list[tuple[int, bytes]], stop: int
) -> None:
    content = snapshot(tmp_path, 1).read_bytes()
    for position, inserted in edits:
        position %= len(content)
        content = content[:position] + inserted + content[position + 1 :]
    (tmp_path / "acc_00002.csv").write_bytes(content[:stop])
    try:
        found = load_recording(tmp_path)
    except DataError:
        return
    assert found.segments == (0, 4)
    assert np.isfinite(found.values).all()
