"""The files that `limpet predict` writes: none over another, and none of work that failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.bundle import Bundle
from limpet.contracts.scores_file import read_scores
from tests.bundles import anomaly_bundle
from tests.command_line import limpet

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return anomaly_bundle(tmp_path / "pump", rate_hz=10.0)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """60 rows of speed and current."""
    path = tmp_path / "a.csv"
    np.savetxt(path, np.ones((60, 2)), delimiter=",", header="speed,current", comments="")
    return path


def test_an_existing_score_file_is_replaced_only_by_force(
    bundle: Bundle, recording: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "scores.csv"
    out.write_text("precious")
    done = limpet(capsys, "predict", bundle.path, recording, "--out", out)
    assert done.code == 2
    assert done.err == (
        f"error: {out} exists already\n  say --force to replace it, or another --out\n"
    )
    assert out.read_text() == "precious"
    assert limpet(capsys, "predict", bundle.path, recording, "--out", out, "--force").code == 0
    assert len(read_scores(out)) == 60


@pytest.mark.parametrize("out", ["scores", "scores.txt", "scores.parquet"])
def test_a_score_file_of_another_suffix_is_a_usage_error(
    bundle: Bundle, tmp_path: Path, capsys: Capture, out: str
) -> None:
    done = limpet(capsys, "predict", bundle.path, "a.csv", "--out", tmp_path / out)
    assert done.code == 2
    assert "suffixes: .csv, .npy, .npz" in done.err


def test_one_bad_input_of_several_leaves_no_score_file(
    bundle: Bundle, recording: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "scores.csv"
    done = limpet(capsys, "predict", bundle.path, recording, tmp_path / "no.csv", "--out", out)
    assert done.code == 1
    assert str(tmp_path / "no.csv") in done.err
    assert not out.exists()


def test_an_input_is_not_replaced_by_its_scores_even_by_force(
    bundle: Bundle, recording: Path, tmp_path: Path, capsys: Capture
) -> None:
    before = recording.read_bytes()
    done = limpet(capsys, "predict", bundle.path, recording, "--out", recording, "--force")
    assert done.code == 2
    assert "is an INPUT" in done.err
    assert recording.read_bytes() == before


def test_scores_and_report_do_not_share_a_file(
    bundle: Bundle, recording: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "scores.csv"
    done = limpet(capsys, "predict", bundle.path, recording, "--out", out, "--json", out)
    assert done.code == 2
    assert f"--json {out} is --out, which it would replace" in done.err
    assert not out.exists()


def test_a_report_does_not_replace_an_input(
    bundle: Bundle, recording: Path, tmp_path: Path, capsys: Capture
) -> None:
    before = recording.read_bytes()
    out = tmp_path / "scores.csv"
    done = limpet(capsys, "predict", bundle.path, recording, "--out", out, "--json", recording)
    assert done.code == 2
    assert f"--json {recording} is an INPUT" in done.err
    assert recording.read_bytes() == before


def test_a_folder_that_is_not_there_is_said_before_anything_is_read(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "none" / "scores.csv"
    done = limpet(capsys, "predict", bundle.path, tmp_path / "none.csv", "--out", out)
    assert done.code == 2
    assert f"no folder {tmp_path / 'none'}" in done.err
