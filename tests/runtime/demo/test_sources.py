"""What the demo plays: the recordings in the package are whole, labelled and their sources'."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.errors import DataError
from limpet.contracts.incidents import labelled_intervals
from limpet.contracts.recordings import load_recording
from limpet.runtime.demo.sources import (
    SHIPPED,
    Source,
    format_seconds,
    shipped_sources,
    user_source,
)

LONGEST_WINDOW = 128


def shipped(name: str) -> Source:
    """One of the recordings that limpet brings."""
    return next(source for source in shipped_sources() if source.name == name)


@pytest.mark.parametrize("source", shipped_sources(), ids=lambda source: source.name)
def test_no_row_that_trains_is_labelled_anomalous(source: Source) -> None:
    labels = source.recording.labels
    assert labels is not None
    assert not labels[: source.first_row].any()
    assert labels[source.first_row :].any()


def test_the_machine_trains_up_to_one_window_before_the_first_label() -> None:
    source = shipped("machine")
    first = labelled_intervals(source.recording.labels)[0].start  # type: ignore[arg-type]
    assert source.first_row == first - LONGEST_WINDOW


def test_shipped_recordings_are_small_and_their_sources_are_named() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 1_500_000
    sources = (SHIPPED / "SOURCES.md").read_text("utf-8")
    for source in shipped_sources():
        assert source.path.name in sources


def test_the_machine_has_the_values_and_windows_of_nab(data_dir: Path) -> None:
    name = "realKnownCause/machine_temperature_system_failure.csv"
    windows = json.loads((data_dir / "nab/labels/combined_windows.json").read_text())[name]
    with (data_dir / "nab" / name).open() as file:
        original = list(csv.reader(file))[1:]
    with shipped("machine").path.open() as file:
        ours = list(csv.reader(file))[1:]
    assert [row[:2] for row in ours] == original
    within = [any(a[:19] <= time <= b[:19] for a, b in windows) for time, _ in original]
    assert [row[2] == "1" for row in ours] == within


def test_the_satellite_has_the_values_and_labels_of_smap(data_dir: Path) -> None:
    recording = shipped("satellite").recording
    with np.load(data_dir / "smap/E-8.npz") as original:
        train = len(original["train"])
        np.testing.assert_array_equal(recording.values[:train], original["train"])
        np.testing.assert_array_equal(recording.values[train:], original["test"])
        assert recording.labels is not None
        np.testing.assert_array_equal(recording.labels[train:], original["label"] != 0)
    assert train == shipped("satellite").first_row


def test_a_users_file_trains_on_its_first_half_unless_told_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "Pump 7 (new).npy"
    np.save(file, np.zeros((100, 2)))
    source = user_source(file)
    assert source.name == "pump-7-new"
    assert source.first_row == 50
    assert len(user_source(file, train_rows=80).streamed) == 20


def test_a_file_whose_rows_all_train_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.zeros((100, 2)))
    with pytest.raises(DataError, match="none is left to stream"):
        _ = user_source(tmp_path / "short.npy", train_rows=100).streamed


def test_a_file_of_segments_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "segments.npy", np.zeros((3, 100, 2)))
    with pytest.raises(DataError, match="3 segments"):
        _ = user_source(tmp_path / "segments.npy").recording


def test_commands_read_a_users_file_as_the_demo_does(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, x=np.zeros((9, 2)), y=np.zeros((9, 2)), truth=np.zeros(9))
    source = user_source(file, key="x", ignore=("c1",), label="truth", rate_hz=5.0)
    assert source.options == [
        *("--ignore", "c1"), *("--key", "x"), *("--label", "truth"), *("--rate-hz", "5.0"),
    ]  # fmt: skip
    assert source.recording.channels == ("c0",)
    assert source.recording.labels is not None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.25 s"),
        (42.4, "42 s"),
        (60, "1 min"),
        (12_000, "3 h 20 min"),
        (7_199.9, "2 h"),
        (170_000, "1 d 23 h"),
        (172_799, "2 d"),
    ],
)
def test_durations_are_told_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_without_times_durations_are_rows() -> None:
    assert shipped("satellite").duration(1) == "1 row"
    assert shipped("satellite").duration(1234) == "1,234 rows"
    assert shipped("machine").duration(40) == "3 h 20 min"


def test_the_rate_of_the_satellite_is_nominal_and_no_times_come_with_it() -> None:
    recording = load_recording(shipped("satellite").path)
    assert recording.rate_hz == 1.0
    assert recording.times_ns is None
