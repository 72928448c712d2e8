"""MATLAB files: Case Western's, those that SciPy writes, damaged ones and other versions."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.mat_format import read_variables
from limpet.contracts.recordings import load_recording, load_recordings

Array = NDArray[Any]
Write = Callable[..., Path]

NO_RATE = "no sampling rate in the file: taking 1 Hz, say --rate-hz"
SAVED = {
    "X105_DE_time": np.arange(30.0)[:, None],
    "X105_FE_time": np.arange(30, dtype=np.int16)[None, :],
    "X105RPM": 1797,
    "Fs": 12_000.0,
    "label": np.repeat([0, 1], 15)[:, None],
    "note": "drive end",
    "rig": {"load": 0},
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes bytes, or variables as SciPy does."""

    def write(name: str, content: bytes = b"", *, compress: bool = False, **variables: Any) -> Path:
        path = tmp_path / name
        if variables:
            savemat(path, variables, do_compression=compress)
        else:
            path.write_bytes(content)
        return path

    return write


def saved(*, compress: bool) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, SAVED, do_compression=compress)
    return buffer.getvalue()


def refusal(path: Path, **options: object) -> str:
    """The message with which a file is refused."""
    with pytest.raises(DataError) as caught:
        load_recording(path, **options)  # type: ignore[arg-type]
    assert str(path) in caught.value.message
    return str(caught.value)


class TestCaseWestern:
    def test_arrays_of_equal_length_are_channels_without_the_number_of_the_test(
        self, data_dir: Path
    ) -> None:
        normal = load_recording(data_dir / "cwru/original/97_Normal_0.mat")
        assert normal.channels == ("DE", "FE")
        assert normal.values.shape == (243_938, 2)
        assert normal.left_out == ("X097RPM (one number)",)
        assert (normal.rate_hz, normal.warnings) == (1.0, (NO_RATE,))
        assert load_recording(normal.path, rate_hz=48_000).warnings == ()

    def test_the_numbers_are_those_of_the_npz_and_of_scipy(self, data_dir: Path) -> None:
        path = data_dir / "cwru/original/97_Normal_0.mat"
        values = load_recording(path).values
        npz = load_recording(data_dir / "cwru/normal_1797_48k.npz", key="DE,FE")
        np.testing.assert_array_equal(values.astype(np.float32), npz.values)
        np.testing.assert_array_equal(values[:, :1], loadmat(path)["X097_DE_time"])

    def test_a_key_chooses_the_same_array_of_each_file_by_short_name(self, data_dir: Path) -> None:
        fault, normal = load_recordings(data_dir / "cwru/original", key="DE,FE")
        assert fault.channels == normal.channels == ("DE", "FE")
        assert fault.left_out == ("X105_BA_time (not chosen)", "X105RPM (one number)")
        only = load_recording(normal.path, key="X097_FE_time")
        assert only.channels == ("FE",)
        assert only.values[:, 0].tolist() == normal.values[:, 1].tolist()

    def test_files_with_different_arrays_say_how_to_take_the_same(self, data_dir: Path) -> None:
        with pytest.raises(DataError, match="it lacks BA") as caught:
            load_recordings(data_dir / "cwru/original")
        assert "take the same arrays of each with --key NAME,NAME" in caught.value.hint


class TestVariables:
    @pytest.mark.parametrize("compress", [False, True])
    def test_labels_rate_and_what_is_no_channel_are_told_apart(
        self, write: Write, compress: bool
    ) -> None:
        found = load_recording(write("a.mat", compress=compress, **SAVED))
        assert found.channels == ("DE", "FE")
        assert found.values.tolist() == [[row, row] for row in range(30)]
        assert (found.rate_hz, found.warnings) == (12_000, ())
        assert found.labels is not None
        assert found.labels.tolist() == [False] * 15 + [True] * 15
        assert found.left_out == (
            "X105RPM (one number)",
            "note (char, no real numbers)",
            "rig (struct, no real numbers)",
            "label (label)",
        )
        assert load_recording(found.path, ignore=["FE"]).channels == ("DE",)
        assert load_recording(found.path, key="DE", label="X105_FE_time").labels is not None

    @pytest.mark.parametrize(
        "array",
        [
            *(np.arange(6).reshape(3, 2).astype(dtype) for dtype in ("f4", "i1", "u8", ">f8")),
            np.array([[True, False], [False, True]]),
            np.arange(24.0).reshape(2, 3, 4),
            np.zeros((0, 3)),
            np.array([[1 + 2j, 3]]),
            np.array([["a", "b"]], dtype=object),
            "text",
        ],
        ids=str,
    )
    def test_variables_are_those_that_scipy_reads(self, write: Write, array: Any) -> None:
        path = write("a.mat", x=array, y=1.0)
        variable, other = read_variables(path.read_bytes())
        wanted = loadmat(path)["x"]
        assert (variable.name, other.name, other.array.item()) == ("x", "y", 1.0)
        if variable.is_numeric:
            np.testing.assert_array_equal(variable.array, wanted)
        else:
            assert variable.kind in ("complex", "cell", "char")

    def test_big_endian_files_are_read(self, write: Write) -> None:
        element = struct.pack(
            ">II II II II II HH4s II d", 14, 56, 6, 8, 6, 0, 5, 8, 1, 1, 1, 1, b"x\0\0\0", 9, 8, 2.5
        )
        header = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI"
        (variable,) = read_variables(header + element)
        assert (variable.name, variable.kind, variable.array.item()) == ("x", "double", 2.5)

    def test_a_matrix_is_numbered_channels(self, write: Write) -> None:
        assert load_recording(write("a.mat", x=np.eye(3))).channels == ("c0", "c1", "c2")
        found = load_recording(write("b.mat", x=np.ones((3, 2)), force=np.zeros(3)))
        assert found.channels == ("x_0", "x_1", "force")

    def test_three_dimensions_are_segments_by_key(self, write: Write) -> None:
        array = np.arange(24.0).reshape(2, 3, 4)
        path = write("a.mat", x=array, label=np.array([[0, 1]]))
        assert "has no vector or matrix of real numbers" in refusal(path)
        found = load_recording(path, key="x")
        assert found.segments == (0, 3)
        assert found.values.tolist() == array.reshape(6, 4).tolist()
        assert found.labels is not None
        assert found.labels.tolist() == [False] * 3 + [True] * 3

    def test_a_time_vector_gives_times_and_the_rate(self, write: Write) -> None:
        found = load_recording(write("a.mat", t=np.arange(5) / 50, force=np.arange(5.0)))
        assert found.channels == ("force",)
        assert found.rate_hz == pytest.approx(50)
        assert found.times_ns is not None
        assert found.left_out == ("t (time)",)
        alone = load_recording(write("b.mat", t=np.arange(5.0)))
        assert alone.channels == ("t",)

    def test_two_tests_in_one_file_keep_their_numbers(self, write: Write) -> None:
        path = write("a.mat", X098_DE_time=np.zeros(5), X099_DE_time=np.ones(5))
        assert load_recording(path).channels == ("X098_DE_time", "X099_DE_time")
        assert load_recording(path, key="X099_DE_time").channels == ("DE",)
        assert "has 2 arrays 'DE'" in refusal(path, key="DE")

    def test_lengths_that_differ_want_a_key(self, write: Write) -> None:
        path = write("a.mat", x=np.zeros(5), y=np.zeros(6), note="n")
        message = refusal(path)
        assert "has arrays of several lengths" in message
        assert "x double [1, 5]; y double [1, 6]; note char [1, 1]" in message
        assert "several shapes" in refusal(path, key="x,y")
        assert "has no array 'z'" in refusal(path, key="z")
        assert "note char [1, 1], wanted real numbers" in refusal(path, key="note")
        assert "--label y double [1, 6], wanted one number a row" in refusal(
            path, key="x", label="y"
        )
        assert "--label z: no such column" in refusal(path, key="x", label="z")

    @pytest.mark.parametrize("rate", [0.0, -5.0, np.nan])
    def test_a_rate_that_is_none_is_not_used(self, write: Write, rate: float) -> None:
        found = load_recording(write("a.mat", x=np.zeros(3), fs=rate))
        assert found.rate_hz == 1
        assert found.warnings[0].startswith("'fs' is ")

    def test_a_key_is_for_files_with_keys(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a\n1\n")
        with pytest.raises(UsageError, match=r"an array of an \.npz file or a \.mat file"):
            load_recording(tmp_path / "a.csv", key="a")


class TestDamage:
    def test_version_7_3_says_how_to_save_it_anew(self, write: Write) -> None:
        content = b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(100)
        message = refusal(write("a.mat", content))
        assert "is a MATLAB file of version 7.3 (HDF5), wanted 5 to 7" in message
        assert "save('a_v7.mat', '-v7')" in message

    def test_version_4_says_how_to_save_it_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mat"
        savemat(path, {"force": np.arange(5.0)}, format="4")
        assert "is a MATLAB file of version 4, wanted 5 to 7" in refusal(path)

    @pytest.mark.parametrize("content", [b"", b"MATLAB", b"a,b\n1,2\n" * 40])
    def test_other_bytes_are_refused(self, write: Write, content: bytes) -> None:
        assert "is no whole .mat file: no header" in refusal(write("a.mat", content))

    def test_two_variables_of_one_name_are_refused(self, write: Write) -> None:
        content = write("a.mat", x=np.zeros(9)).read_bytes()
        path = write("a.mat", content + content[128:])
        assert "has several variables 'x'" in refusal(path)

    def test_a_wrong_type_of_the_numbers_is_refused(self, write: Write) -> None:
        content = bytearray(write("a.mat", x=np.zeros(30)).read_bytes())
        assert struct.unpack_from("<II", content, 176) == (9, 240)
        content[176] ^= 1  # SciPy 1.17.1 crashes on this
        assert "'x' has no numbers" in refusal(write("a.mat", bytes(content)))

    def test_a_dimension_that_promises_terabytes_takes_no_memory(self, write: Write) -> None:
        content = bytearray(write("a.mat", x=np.zeros(30)).read_bytes())
        assert struct.unpack_from("<ii", content, 160) == (1, 30)
        struct.pack_into("<ii", content, 160, 1 << 30, 1 << 30)
        assert "'x' [1073741824, 1073741824] needs" in refusal(write("a.mat", bytes(content)))

    def test_a_compressed_variable_larger_than_its_tag_is_refused(self, write: Write) -> None:
        content = write("a.mat", x=np.zeros(30)).read_bytes()[128:]
        packed = zlib.compress(content + bytes(1 << 20))
        header = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed))
        assert "promises 288 bytes and has another number" in refusal(
            write("a.mat", header + packed)
        )

    @pytest.mark.parametrize("compress", [False, True])
    @given(data=st.data())
    @settings(
        max_examples=200,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_a_damaged_file_is_refused_or_read_never_a_traceback(
        self, tmp_path: Path, compress: bool, data: st.DataObject
    ) -> None:
        content = bytearray(saved(compress=compress))
        for _ in range(data.draw(st.integers(0, 3))):
            position = data.draw(st.integers(116, len(content) - 1))
            content[position] = data.draw(st.integers(0, 255))
        path = tmp_path / "a.mat"
        path.write_bytes(content[: data.draw(st.integers(116, len(content)))])
        try:
            found = load_recording(path)
        except DataError:
            return
        assert found.values.shape == (len(found), len(found.channels))
