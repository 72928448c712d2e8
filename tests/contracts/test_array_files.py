"""Arrays with and without keys, damaged ones and traps."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.contracts.recordings import load_recording

Array = NDArray[Any]
Write = Callable[..., Path]
in_any_folder = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes bytes, one array, or several by name."""

    def write(name: str, content: bytes | Array = b"", **arrays: Array | float) -> Path:
        path = tmp_path / name
        if isinstance(content, np.ndarray):
            np.save(path, content)
        elif arrays:
            np.savez(path, **arrays)  # type: ignore[arg-type]
        else:
            path.write_bytes(content)
        return path

    return write


def refusal(path: Path, **options: object) -> str:
    """The message with which a file is refused."""
    with pytest.raises(DataError) as caught:
        load_recording(path, **options)  # type: ignore[arg-type]
    assert str(path) in caught.value.message
    return str(caught.value)


class TestArrays:
    def test_one_dimension_is_one_channel(self, write: Write) -> None:
        found = load_recording(write("a.npy", np.array([1, 2, 3], np.int16)))
        assert found.values.tolist() == [[1], [2], [3]]
        assert found.values.dtype == np.float64
        assert found.channels == ("c0",)
        assert found.warnings == ("no sampling rate in the file: taking 1 Hz, say --rate-hz",)

    @pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", ">i4", "<u8", "bool"])
    def test_any_real_element_type_is_read(self, write: Write, dtype: str) -> None:
        array = np.array([[1, 0], [0, 1], [1, 1]], dtype)
        assert load_recording(write("a.npy", array)).values.tolist() == array.tolist()
        fortran = np.asfortranarray(array)
        assert load_recording(write("b.npy", fortran)).values.tolist() == array.tolist()

    def test_three_dimensions_are_segments_and_rows_flatten(self, write: Write) -> None:
        array = np.arange(24.0).reshape(3, 4, 2)
        found = load_recording(write("a.npy", array))
        assert found.segments == (0, 4, 8)
        assert found.values.tolist() == array.reshape(12, 2).tolist()

    def test_columns_of_an_array_are_ignored_and_labels_by_number(self, write: Write) -> None:
        array = np.array([[1.0, 2, 3, 0], [4, 5, 6, 1]])
        found = load_recording(write("a.npy", array), ignore=["c1"], label="c3")
        assert found.channels == ("c0", "c2")
        assert found.values.tolist() == [[1, 3], [4, 6]]
        assert found.labels is not None
        assert found.labels.tolist() == [False, True]
        assert found.left_out == ("c1 (ignored)", "c3 (label)")
        assert "channels: c0, c1, c2, c3" in refusal(write("a.npy", array), ignore=["c4"])
        assert "--label c4" in refusal(write("a.npy", array), label="c4")
        assert "no channel is left" in refusal(write("b.npy", array[:, :1]), ignore=["c0"])

    @pytest.mark.parametrize(
        "array",
        [
            np.array(1.0),
            np.zeros((2, 2, 2, 2)),
            np.zeros((0, 3)),
            np.zeros((3, 0)),
            np.array([1j]),
            np.array(["a"]),
            np.array(["2020-01-01"], "M8[s]"),
            np.array([(1, 2.0)], "i4,f8"),
        ],
        ids=str,
    )
    def test_other_shapes_and_element_types_are_refused(self, write: Write, array: Array) -> None:
        assert "wanted" in refusal(write("a.npy", array))
        assert "wanted" in refusal(write("a.npz", x=array), key="x")

    def test_objects_are_never_unpickled(self, write: Write, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[object, ...]:
                return (Path.touch, (tmp_path / "sprung",))

        array = np.array([Trap()], dtype=object)
        assert "object [1], wanted real numbers" in refusal(write("a.npy", array))
        assert "object [1]" in refusal(write("a.npz", x=array), key="x")
        assert "x object [1]" in refusal(write("a.npz", x=array))
        assert not (tmp_path / "sprung").exists()

    def test_the_only_array_of_an_npz_needs_no_key(self, write: Write) -> None:
        values = np.array([[1.0, 2], [3, 4]])
        path = write(
            "a.npz", x=values, Anomaly=np.array([0, 1]), rate_hz=250.0,
            channels=np.array(["force", "torque"]), made_by=np.array("rig"),
        )  # fmt: skip
        found = load_recording(path)
        assert found.values.tolist() == values.tolist()
        assert found.channels == ("force", "torque")
        assert found.rate_hz == 250
        assert found.labels is not None
        assert found.labels.tolist() == [False, True]
        assert found.left_out == ("Anomaly (label)",)
        assert found.warnings == ()
        assert load_recording(path, ignore=["force"]).channels == ("torque",)

    def test_a_key_must_exist(self, write: Write) -> None:
        message = refusal(write("a.npz", x=np.zeros(3), y=np.zeros((2, 2, 2))), key="z")
        assert "has no array 'z'" in message
        assert "arrays: x float64 [3]; y float64 [2, 2, 2]" in message

    def test_a_three_dimensional_array_is_taken_by_key_alone(self, write: Write) -> None:
        path = write("a.npz", x=np.zeros((2, 3, 4)), label=np.array([[0, 1, 0], [1, 1, 1]]))
        assert "no numeric arrays of one or two dimensions" in refusal(path)
        found = load_recording(path, key="x")
        assert found.segments == (0, 3)
        assert found.labels is not None
        assert found.labels.tolist() == [False, True, False, True, True, True]

    def test_one_number_a_segment_is_no_recording_beside_the_segments(self, write: Write) -> None:
        found = load_recording(write("a.npz", x=np.zeros((5, 3, 2)), index=np.arange(5)))
        assert found.segments == (0, 3, 6, 9, 12)
        assert found.left_out == ("index (one number a segment)",)
        rows = load_recording(write("b.npz", x=np.zeros((5, 3, 2)), rows=np.arange(7.0)))
        assert rows.values[:, 0].tolist() == list(range(7))
        assert rows.warnings[0] == "taking 'rows' float64 [7]; say --key x for float64 [5, 3, 2]"

    def test_several_keys_stand_beside_each_other(self, write: Write) -> None:
        path = write(
            "a.npz", x=np.arange(3.0), y=np.ones((3, 2)), long=np.zeros(4),
            label=np.array([0, 0, 1]), Fs=20.0, **{"p,q": np.zeros(3)},
        )  # fmt: skip
        found = load_recording(path, key="y, x")
        assert found.channels == ("y_0", "y_1", "x")
        assert found.values.tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 2]]
        assert found.labels is not None
        assert found.labels.tolist() == [False, False, True]
        assert found.rate_hz == 20
        assert load_recording(path, key="p,q").channels == ("p,q",)  # a name may hold a comma
        assert "several shapes" in refusal(path, key="x,long")
        assert "x [3]; long [4]" in refusal(path, key="x,long")
        assert "has no array 'z'" in refusal(path, key="x,z")
        assert "one number a row of 'x', 'y' [3, 3]" in refusal(path, key="x,y", label="long")

    def test_one_label_a_segment_holds_for_its_rows(self, write: Write) -> None:
        found = load_recording(
            write("a.npz", x=np.zeros((2, 3, 4)), label=np.array([0, 1])), key="x"
        )
        assert found.labels is not None
        assert found.labels.tolist() == [False] * 3 + [True] * 3

    def test_a_label_is_named_by_key_and_must_fit(self, write: Write) -> None:
        path = write("a.npz", x=np.zeros((3, 2)), truth=np.array([0, 0, 1]), other=np.zeros(5))
        found = load_recording(path, key="x", label="truth")
        assert found.labels is not None
        assert found.labels.tolist() == [False, False, True]
        assert "--label other is float64 [5]" in refusal(path, key="x", label="other")
        message = refusal(path, key="x", label="nope")
        assert "keys and channels: x, truth, other, c0, c1" in message

    def test_channel_names_that_do_not_fit_are_not_used(self, write: Write) -> None:
        found = load_recording(write("a.npz", x=np.zeros((3, 2)), channels=np.array(["a"])))
        assert found.channels == ("c0", "c1")
        assert "'channels' is <U1 [1], wanted [2]" in found.warnings[0]

    @pytest.mark.parametrize("rate", [0.0, -5.0, np.nan])
    def test_a_rate_that_is_none_is_not_used(self, write: Write, rate: float) -> None:
        found = load_recording(write("a.npz", x=np.zeros(3), fs=rate))
        assert found.rate_hz == 1
        assert "'fs' is" in found.warnings[0]

    def test_bytes_after_the_array_are_refused(self, write: Write) -> None:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(3))
        np.save(buffer, np.ones(3))
        assert "needs 24 bytes" in refusal(write("a.npy", buffer.getvalue()))

    def test_a_header_that_promises_terabytes_takes_no_memory(self, write: Write) -> None:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)}
        )
        path = write("a.npy", buffer.getvalue() + bytes(80))
        assert "needs 80000000000000 bytes, found 80" in refusal(path)
        with zipfile.ZipFile(path.with_suffix(".npz"), "w") as archive:
            archive.write(path, "x.npy")
        assert "found 80" in refusal(path.with_suffix(".npz"))

    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    @given(data=st.data())
    @in_any_folder
    @pytest.mark.filterwarnings("ignore::UserWarning")  # numpy guesses that Python 2 wrote it
    @pytest.mark.filterwarnings("ignore::SyntaxWarning")
    def test_a_damaged_file_is_refused_or_read_never_a_traceback(
        self, tmp_path: Path, suffix: str, data: st.DataObject
    ) -> None:
        path = tmp_path / f"a{suffix}"
        if suffix == ".npy":
            np.save(path, np.arange(12.0).reshape(4, 3))
        else:
            np.savez_compressed(path, x=np.arange(12.0).reshape(4, 3), rate_hz=5.0)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(0, 3))):
            position = data.draw(st.integers(0, len(content) - 1))
            content[position] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            found = load_recording(path)
        except DataError:
            return
        assert found.values.shape == (len(found), len(found.channels))

    def test_a_wrong_checksum_is_refused(self, write: Write) -> None:
        path = write("a.npz", x=np.arange(100.0))
        content = bytearray(path.read_bytes())
        content[content.index(np.float64(50.0).tobytes())] ^= 1
        path.write_bytes(content)
        assert "CRC" in refusal(path)
