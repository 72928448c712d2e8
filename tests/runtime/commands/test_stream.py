"""`limpet stream`: channels are matched as in `limpet predict`.

Dimension legend: n rows, c channels (speed and current; the score is their mean magnitude).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.scores_file import read_scores
from limpet.runtime.server import Server
from tests.command_line import Done, limpet
from tests.runtime.serving import WARM_UP_ROWS, serving

Capture = pytest.CaptureFixture[str]
ROWS = np.random.default_rng(3).normal(size=(60, 2))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as running:
        yield running


def stream(server: Server, capsys: Capture, file: Path) -> Done:
    options = ["--stream", "pump", "--speed", "max", "--out", file.with_suffix(".scores.npy")]
    return limpet(capsys, "stream", file, "--to", server.listening[0], *options, "--json", "-")


def assert_scored(file: Path, rows: NDArray[np.float64]) -> None:
    found = read_scores(file.with_suffix(".scores.npy"))
    wanted = np.abs(rows.astype(np.float32)).mean(axis=1)
    assert np.isnan(found[:WARM_UP_ROWS]).all()
    np.testing.assert_allclose(found[WARM_UP_ROWS:], wanted[WARM_UP_ROWS:], rtol=1e-5)


def test_an_array_without_names_is_taken_by_position(
    server: Server, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    done = stream(server, capsys, tmp_path / "rows.npy")
    assert done.code == 0, done.err
    assert done.report["acknowledged"] == len(ROWS)
    assert "taken in order: speed, current" in done.err
    assert_scored(tmp_path / "rows.npy", ROWS)


def test_columns_are_found_by_name_among_others(
    server: Server, tmp_path: Path, capsys: Capture
) -> None:
    lines = [f"{current},7,{speed}" for speed, current in ROWS]
    (tmp_path / "rows.csv").write_text("\n".join(["current,other,speed", *lines]))
    done = stream(server, capsys, tmp_path / "rows.csv")
    assert done.code == 0, done.err
    assert_scored(tmp_path / "rows.csv", ROWS)


def test_a_missing_column_is_named_before_a_row_is_sent(
    server: Server, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "rows.csv").write_text("speed\n1.0\n2.0\n")
    done = stream(server, capsys, tmp_path / "rows.csv")
    assert done.code == 1
    assert "channel 'current' is missing" in done.err


def test_a_model_that_is_not_served_is_refused_by_the_server(
    server: Server, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    options = ["--to", server.listening[0], "--stream", "pump", "--model", "nope"]
    done = limpet(capsys, "stream", tmp_path / "rows.npy", *options)
    assert done.code == 1
    assert "no model 'nope' that scores streams" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--timeout", "0"], "--timeout is 0, wanted"),
        (["--timeout", "nan"], "--timeout is nan, wanted"),
        (["--timeout", "inf"], "--timeout is inf, wanted"),
        (["--from-row", "60"], "--from-row 60 leaves nothing of"),
        (["--stream", ""], "--stream is a name of 0 characters, wanted 1 to 128"),
        (["--stream", "x" * 129], "--stream is a name of 129 characters"),
        (["--speed", "1e9"], "--speed '1e9' is neither a number above 0 and below 1e9"),
        (["--out", "scores.parquet"], ".parquet is no suffix of a score file"),
        (["--out", "none/scores.csv"], "no folder none"),
    ],
)
def test_what_cannot_be_is_a_usage_error_before_a_row_is_sent(
    server: Server, tmp_path: Path, capsys: Capture, options: list[str], message: str
) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    line = ["--to", server.listening[0], "--stream", "pump", "--speed", "max", *options]
    done = limpet(capsys, "stream", tmp_path / "rows.npy", *line)
    assert done.code == 2, done.err
    assert message in done.err
    assert "acknowledged" not in done.out


def test_a_recording_is_not_replaced_by_its_scores_even_by_force(
    server: Server, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "rows.npy"
    np.save(file, ROWS)
    options = ["--to", server.listening[0], "--stream", "pump", "--speed", "max"]
    done = limpet(capsys, "stream", file, *options, "--out", file, "--force")
    assert done.code == 2
    assert "is FILE, which it would replace" in done.err
    np.testing.assert_array_equal(np.load(file), ROWS)
