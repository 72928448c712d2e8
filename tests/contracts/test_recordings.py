"""Recordings: real ones, their labels, folders of them, channels and rows of one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from limpet.contracts.errors import DataError
from limpet.contracts.recordings import SUFFIXES, Recording, load_recording, load_recordings

Write = Callable[[str, str | bytes], Path]

NO_TIME_COLUMN = "no time column: taking 1 Hz, say --rate-hz"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of text or bytes."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def refusal(path: Path, **options: object) -> str:
    """The message with which a file is refused."""
    with pytest.raises(DataError) as caught:
        load_recording(path, **options)  # type: ignore[arg-type]
    assert str(path) in caught.value.message
    return str(caught.value)


class TestRealFiles:
    def test_a_skab_run_has_eight_channels_and_its_labels(self, data_dir: Path) -> None:
        run = load_recording(data_dir / "skab/valve1/0.csv")
        assert run.channels[0] == "Accelerometer1RMS"
        assert run.channels[-1] == "Volume Flow RateRMS"
        assert run.values.shape == (1147, 8)
        assert run.rate_hz == 1.0
        assert run.labels is not None
        assert run.labels.sum() == 401
        assert run.times_ns is not None
        assert np.datetime64(int(run.times_ns[0]), "ns") == np.datetime64("2020-03-09T10:14:33")
        assert run.left_out == (
            "datetime (time)",
            "anomaly (label)",
            "changepoint (never a channel)",
        )
        assert run.warnings == ()

    def test_changepoint_is_the_label_only_when_it_is_named(self, data_dir: Path) -> None:
        run = load_recording(data_dir / "skab/valve1/0.csv", label="changepoint")
        assert run.labels is not None
        assert run.labels.sum() == 4
        assert run.left_out[1:] == ("anomaly (never a channel)", "changepoint (label)")

    def test_all_of_skab_loads_as_one_folder_in_order_of_the_paths(self, data_dir: Path) -> None:
        runs = load_recordings(data_dir / "skab")
        assert len(runs) == 35
        assert {run.channels for run in runs} == {runs[0].channels}
        assert [run.labels is None for run in runs] == [True] + [False] * 34
        names = [run.path.relative_to(data_dir / "skab").as_posix() for run in runs]
        assert names[:3] == ["anomaly-free/anomaly-free.csv", "other/1.csv", "other/10.csv"]
        assert names == sorted(names)

    @pytest.mark.parametrize(
        ("name", "rows"),
        [("machine_temperature_system_failure", 22_695), ("nyc_taxi", 10_320)],
    )
    def test_a_nab_stream_takes_its_rate_from_its_times(
        self, data_dir: Path, name: str, rows: int
    ) -> None:
        stream = load_recording(data_dir / f"nab/realKnownCause/{name}.csv")
        assert stream.values.shape == (rows, 1)
        assert stream.channels == ("value",)
        assert stream.rate_hz == pytest.approx(1 / (1800 if name == "nyc_taxi" else 300))

    def test_a_repeated_hour_in_nab_is_announced(self, data_dir: Path) -> None:
        path = data_dir / "nab/realKnownCause/machine_temperature_system_failure.csv"
        assert load_recording(path).warnings == ("time runs backwards in 1 place",)

    def test_numbers_as_column_names_are_a_header_in_tsb_ad(self, data_dir: Path) -> None:
        path = data_dir / "tsb_ad/169_SMAP_id_26_Sensor_tr_1811_1st_4510.csv"
        smap = load_recording(path)
        assert smap.channels == tuple(map(str, range(25)))
        assert smap.values.shape == (7244, 25)
        assert smap.labels is not None
        assert smap.labels[:4510].sum() == 0
        assert smap.labels[4510]
        assert smap.warnings == (NO_TIME_COLUMN,)

    def test_smap_wants_a_key_and_takes_labels_of_the_same_length(self, data_dir: Path) -> None:
        path = data_dir / "smap/A-1.npz"
        assert "train float32 [2880, 25]; test float32 [8640, 25]; label" in refusal(path)
        test, train = load_recording(path, key="test"), load_recording(path, key="train")
        assert test.labels is not None
        assert test.labels.sum() == 85
        assert test.left_out == ("label (label)",)
        assert train.labels is None
        assert train.channels == tuple(f"c{i}" for i in range(25))

    def test_cwru_states_its_own_sampling_rate(self, data_dir: Path) -> None:
        assert "DE float32 [122571]; FE float32 [122571]" in refusal(
            data_dir / "cwru/de12k_B007_0.npz"
        )
        assert load_recording(data_dir / "cwru/de12k_B007_0.npz", key="DE").rate_hz == 12_000
        assert load_recording(data_dir / "cwru/normal_1797_48k.npz", key="FE").rate_hz == 48_000

    def test_two_keys_of_cwru_are_two_channels(self, data_dir: Path) -> None:
        both = load_recording(data_dir / "cwru/de12k_B007_0.npz", key="DE,FE")
        assert both.channels == ("DE", "FE")
        assert both.values.shape == (122_571, 2)
        assert (both.rate_hz, both.warnings) == (12_000, ())

    def test_a_mixture_of_rates_in_a_folder_is_announced(self, data_dir: Path) -> None:
        *faults, normal, _, _ = load_recordings(data_dir / "cwru", key="DE")
        assert normal.path.name == "normal_1797_48k.npz"
        assert any("48000 Hz" in warning and "12000 Hz" in warning for warning in normal.warnings)
        assert not any(fault.warnings for fault in faults)

    def test_one_array_has_the_same_name_in_npz_and_mat(self, data_dir: Path) -> None:
        recordings = load_recordings(data_dir / "cwru", key="DE")
        assert {found.path.suffix for found in recordings} == {".npz", ".mat"}
        assert {found.channels for found in recordings} == {("DE",)}

    def test_snapshots_of_a_femto_bearing_are_segments(self, data_dir: Path) -> None:
        path = data_dir / "femto/Learning_set_Bearing1_1.npz"
        bearing = load_recording(path, key="acc_mg", rate_hz=25_600)
        assert bearing.values.shape == (256_000, 2)
        assert bearing.segments == tuple(range(0, 256_000, 2560))
        assert bearing.warnings == ()
        assert bearing.left_out == ("file_index (one number a segment)",)
        unkeyed = load_recording(path, rate_hz=25_600)
        assert (unkeyed.segments, unkeyed.warnings) == (bearing.segments, ())

    def test_a_raw_femto_snapshot_has_no_header(self, data_dir: Path) -> None:
        path = data_dir / "femto/raw/Learning_set/Bearing1_1/acc_00001.csv"
        snapshot = load_recording(path, ignore=["c0", "c1", "c2", "c3"], rate_hz=25_600)
        assert snapshot.values.shape == (2560, 2)
        assert snapshot.values[0].tolist() == [0.552, -0.146]


class TestLabels:
    @pytest.mark.parametrize("name", ["anomaly", "Label", "LABEL", "is_anomaly", "Is_Anomaly"])
    def test_a_label_is_found_in_any_case_and_is_never_a_channel(
        self, write: Write, name: str
    ) -> None:
        found = load_recording(write("a.csv", f"v,{name},ChangePoint\n1,0,1\n2,1,0\n"))
        assert found.channels == ("v",)
        assert found.labels is not None
        assert found.labels.tolist() == [False, True]

    def test_anomaly_comes_before_label_before_is_anomaly(self, write: Write) -> None:
        found = load_recording(write("a.csv", "v,is_anomaly,label,anomaly\n1,0,0,1\n"))
        assert found.labels is not None
        assert found.labels.tolist() == [True]
        path = write("a.csv", "v,is_anomaly,label,anomaly,leak\n1,0,0,0,1\n")
        found = load_recording(path, label="leak")
        assert found.labels is not None
        assert found.labels.tolist() == [True]

    def test_an_ignored_label_is_not_taken(self, write: Write) -> None:
        found = load_recording(write("a.csv", "v,anomaly\n1,0\n"), ignore=["anomaly"])
        assert found.labels is None
        assert found.left_out == ("anomaly (ignored)",)

    @pytest.mark.parametrize(
        ("cells", "expected"),
        [(["true", "False"], [True, False]), (["0", "3"], [False, True]), (["1.0", "0.0"], [1, 0])],
    )
    def test_words_and_class_numbers_are_labels(
        self, write: Write, cells: list[str], expected: list[bool]
    ) -> None:
        found = load_recording(write("a.csv", f"v,label\n1,{cells[0]}\n2,{cells[1]}\n"))
        assert found.labels is not None
        assert found.labels.tolist() == expected

    @pytest.mark.parametrize(
        ("cell", "problem"), [("", "1 of 2 rows have no label"), ("-1", "-1"), ("pump", "no label")]
    )
    def test_labels_that_say_nothing_are_dropped_loudly_and_refused_when_named(
        self, write: Write, cell: str, problem: str
    ) -> None:
        path = write("a.csv", f"v,label\n1,0\n2,{cell}\n")
        found = load_recording(path)
        assert found.labels is None
        assert any(problem in warning for warning in found.warnings)
        assert problem in refusal(path, label="label")


class TestPaths:
    def test_what_is_not_there_or_not_allowed_is_refused(
        self, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for suffix in (".csv", ".npy", ".npz", ".mat", ".data", ".mcap"):
            assert "No such file" in refusal(tmp_path / f"nope{suffix}")
        assert "is a folder" in refusal(tmp_path)
        path = write("a.csv", "a\n1\n")

        def deny(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", deny)
        assert "Permission denied" in refusal(path)

    @pytest.mark.parametrize("name", ["a.mcap", "a.bag", "a.parquet", "a"])
    def test_other_suffixes_are_refused_with_those_that_work(self, write: Write, name: str) -> None:
        assert "suffixes: .csv, .tsv, .txt, .npy, .npz, .mat, .data" in refusal(write(name, b"x"))

    def test_suffixes_count_in_any_case(self, write: Write) -> None:
        assert len(load_recording(write("A.CSV", "a\n1\n"))) == 1
        assert len(load_recording(write("B.Tsv", "a\tb\n1\t2\n"))) == 1

    def test_a_folder_without_recordings_says_what_it_has(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="holds no recording"):
            load_recordings(tmp_path)
        (tmp_path / "a.bag").touch()
        (tmp_path / ".hidden.csv").write_text("a\n1\n")
        with pytest.raises(DataError, match=re.escape("holds no recording, only .bag")):
            load_recordings(tmp_path)

    def test_channels_of_a_folder_take_the_order_of_the_first_file(self, write: Write) -> None:
        folder = write("a.csv", "x,y\n1,2\n").parent
        write("b.csv", "y,x\n3,4\n")
        first, second = load_recordings(folder)
        assert first.channels == second.channels == ("x", "y")
        assert second.values.tolist() == [[4, 3]]

    def test_a_file_with_other_channels_is_named_with_the_difference(self, write: Write) -> None:
        folder = write("a.csv", "x,y\n1,2\n").parent
        other = write("b.csv", "x,z\n3,4\n")
        with pytest.raises(DataError) as caught:
            load_recordings(folder)
        assert str(other) in caught.value.message
        assert "it lacks y and has also z" in caught.value.message
        assert [r.channels for r in load_recordings(folder, channels=["x"])] == [("x",)] * 2

    def test_a_single_file_is_a_list_of_one(self, write: Write) -> None:
        (only,) = load_recordings(write("a.csv", "x,y\n1,2\n"))
        assert only.channels == ("x", "y")


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(content=st.binary(max_size=300))
@example(content=b"")
@example(content=b"lost\n" + b"\t1\t2\t3\t4\t5\t6\n" * 15)
@example(content=bytes(128))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_recording_or_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    try:
        found = load_recording(path)
    except DataError:
        return
    assert found.values.shape == (len(found), len(found.channels))


class TestSelectAndRows:
    @pytest.fixture
    def recording(self, write: Write) -> Recording:
        return load_recording(write("a.csv", "x,dead,y,label\n1,,2,0\n3,,4,1\n5,,6,1\n"))

    def test_channels_are_selected_by_name_in_the_wanted_order(self, recording: Recording) -> None:
        selected = recording.select(["y", "x"])
        assert selected.values.tolist() == [[2, 1], [4, 3], [6, 5]]
        assert recording.select(["y"]).left_out == (*recording.left_out, "x (not wanted)")
        assert recording.select(recording.channels) is recording

    def test_a_missing_channel_is_refused_with_found_and_wanted(self, recording: Recording) -> None:
        with pytest.raises(DataError) as caught:
            recording.select(["x", "force"])
        assert "channel 'force' is missing" in str(caught.value)
        assert "wanted: x, force; found: x, y" in str(caught.value)

    def test_a_column_without_values_is_there_when_it_is_asked_for(
        self, recording: Recording
    ) -> None:
        selected = recording.select(["x", "dead"])
        np.testing.assert_array_equal(selected.values[:, 1], [np.nan] * 3)
        assert "channel 'dead' has no values" in selected.warnings
        assert "dead (empty)" not in selected.left_out
        assert "label (label)" in selected.left_out

    def test_rows_keep_labels_times_and_segments(self) -> None:
        recording = Recording(
            path=Path("a"),
            values=np.arange(10.0)[:, None],
            channels=("x",),
            rate_hz=1.0,
            times_ns=np.arange(10),
            segments=(0, 4, 8),
            labels=np.arange(10) % 2 == 0,
        )
        part = recording.rows(3, 9)
        assert part.values[:, 0].tolist() == [3, 4, 5, 6, 7, 8]
        assert part.segments == (0, 1, 5)
        assert part.times_ns is not None
        assert part.times_ns.tolist() == [3, 4, 5, 6, 7, 8]
        assert part.labels is not None
        assert part.labels.tolist() == [False, True] * 3
        assert recording.rows(4).segments == (0, 4)
        assert recording.rows(0, 99).segments == (0, 4, 8)
        assert len(recording.rows(5, 5)) == 0
        assert recording.rows(5, 5).segments == (0,)

    @given(cut=st.integers(0, 12), segments=st.sets(st.integers(1, 11)))
    def test_two_parts_hold_what_the_whole_held(self, cut: int, segments: set[int]) -> None:
        whole = Recording(
            Path("a"), np.arange(12.0)[:, None], ("x",), 1.0, segments=(0, *sorted(segments))
        )
        head, tail = whole.rows(0, cut), whole.rows(cut)
        assert np.concatenate([head.values, tail.values]).tolist() == whole.values.tolist()
        starts = {0, *head.segments, *(cut + row for row in tail.segments if len(tail))}
        assert starts == {*whole.segments, cut} - {12}

    def test_the_representation_is_one_line(self, recording: Recording) -> None:
        assert repr(recording).endswith("3 rows of 2 channels at 1 Hz)")
