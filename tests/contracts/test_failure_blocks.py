"""Robot failures in UCI's format: blocks of a class and 15 rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limpet.contracts.errors import DataError
from limpet.contracts.recordings import load_recording, load_recordings

CHANNELS = ("Fx", "Fy", "Fz", "Tx", "Ty", "Tz")
ROW = "\t-1\t2\t63\t-3\t+4\t0\n"


def block(name: str, rows: int = 15) -> str:
    return f"{name}\n{ROW * rows}\n\n"


def write(folder: Path, content: str | bytes, name: str = "lp.data") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path, **options: object) -> str:
    """The message with which a file is refused."""
    with pytest.raises(DataError) as caught:
        load_recording(path, **options)  # type: ignore[arg-type]
    assert str(path) in caught.value.message
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "blocks", "normal"), [("lp1", 88, 21), ("lp2", 47, 20), ("lp3", 47, 20)]
)
def test_each_block_of_a_real_file_is_a_segment_with_its_label(
    data_dir: Path, name: str, blocks: int, normal: int
) -> None:
    found = load_recording(data_dir / f"robot_failures/{name}.data")
    assert found.channels == CHANNELS
    assert found.segments == tuple(range(0, 15 * blocks, 15))
    assert found.labels is not None
    by_block = found.labels.reshape(blocks, 15)
    assert (by_block == by_block[:, :1]).all()
    assert (~by_block[:, 0]).sum() == normal
    assert found.rate_hz == pytest.approx(47.62, abs=0.01)
    assert (found.left_out, found.warnings) == (("label (label)",), ())


def test_the_first_row_is_as_it_stands(data_dir: Path) -> None:
    found = load_recording(data_dir / "robot_failures/lp1.data")
    assert found.values[0].tolist() == [-1, -1, 63, -3, -1, 0]
    assert len(load_recordings(data_dir / "robot_failures")) == 3


@pytest.mark.parametrize("name", ["lp.data", "lp.txt", "LP.CSV", "lp.tsv"])
def test_the_format_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    text = "\n" + block("ok") + block("Collision")
    for newline in ("\n", "\r\n"):
        found = load_recording(write(tmp_path, text.replace("\n", newline), name))
        assert found.channels == CHANNELS
        assert found.segments == (0, 15)
        assert found.values[-1].tolist() == [-1, 2, 63, -3, 4, 0]
        assert found.labels is not None
        assert found.labels[::15].tolist() == [False, True]


def test_a_table_with_the_suffix_data_is_a_table(tmp_path: Path) -> None:
    found = load_recording(write(tmp_path, "speed,current\n1,2\n3,4\n"))
    assert found.channels == ("speed", "current")
    assert found.warnings == ("no time column: taking 1 Hz, say --rate-hz",)


def test_channels_are_ignored_and_labels_chosen_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, block("normal").replace("-1\t2", "1\t2"))
    assert load_recording(path, ignore=["Fx", "Tz"]).channels == CHANNELS[1:-1]
    assert load_recording(path, label="label").channels == CHANNELS
    by_channel = load_recording(path, label="Fx")
    assert by_channel.labels is not None
    assert by_channel.labels.all()
    assert by_channel.left_out == ("label (never a channel)", "Fx (label)")
    assert "--label force: no such column" in refusal(path, label="force")
    assert "channels: Fx, Fy, Fz, Tx, Ty, Tz" in refusal(path, ignore=["normal"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (block("normal") + block("lost", 14), "line 19: block 'lost' has 14 rows, wanted 15"),
        (block("lost", 16) + block("normal"), "line 1: block 'lost' has 16 rows, wanted 15"),
        (block("normal") + "lost\n", "line 19: block 'lost' has 0 rows, wanted 15"),
        (
            "normal\n" + ROW + ROW.replace("+4", "4.5"),
            "line 3: '-1\\t2\\t63\\t-3\\t4.5\\t0', wanted",
        ),
        (
            block("normal") + ROW.replace("\t0", ""),
            "line 19: '-1\\t2\\t63\\t-3\\t+4', wanted a class",
        ),
    ],
)
def test_a_block_that_is_not_whole_is_refused_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    assert message in refusal(write(tmp_path, text))


def test_bytes_that_are_not_ascii_are_refused(tmp_path: Path) -> None:
    content = (block("normal") * 20).encode() + b"\xff"
    assert f"byte {len(content) - 1}: not ASCII" in refusal(write(tmp_path, content))


@given(
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), max_size=4),
    stop=st.integers(0, 10_000),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_refused_or_read_never_a_traceback(
    tmp_path: Path, edits: list[tuple[int, bytes]], stop: int
) -> None:
    content = (block("normal") + block("lost") + block("moved")).encode()
    for position, inserted in edits:
        position %= len(content)
        content = content[:position] + inserted + content[position + 1 :]
    try:
        found = load_recording(write(tmp_path, content[:stop]))
    except DataError:
        return
    assert found.values.shape == (len(found), len(found.channels))
    assert not np.isnan(found.values).all()
