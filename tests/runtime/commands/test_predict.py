"""`limpet predict`: exactly one score a row, whatever the input looks like.

Dimension legend: n rows, c channels (speed and current; the score is their mean magnitude).
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from limpet.contracts.bundle import Bundle
from limpet.contracts.scores_file import read_scores
from limpet.contracts.signal_steps import BandEnergies, HoldLast
from tests.bundles import MAX_FILL_ROWS, anomaly_bundle, identity_bundle
from tests.command_line import limpet

Capture = pytest.CaptureFixture[str]
Rows = NDArray[np.float64]

LOOK_BACK = 8
WARM_UP = LOOK_BACK - 1


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return anomaly_bundle(tmp_path / "pump", look_back=LOOK_BACK, rate_hz=10.0)


@pytest.fixture
def rows() -> Rows:
    """Speed and current of 60 rows; the last ten are anomalous. (n, 2)"""
    values: Rows = np.random.default_rng(3).normal(size=(60, 2)).round(3)
    values[-10:] = 9.0
    return values


def scores_of(rows: Rows) -> NDArray[np.float32]:
    """What the scores of rows without gaps must be. (n,)"""
    scores: NDArray[np.float32] = np.abs(rows.astype(np.float32)).mean(axis=1)
    scores[:WARM_UP] = np.nan
    return scores


def write_csv(path: Path, columns: dict[str, Any], rate_hz: float = 10.0) -> Path:
    """A CSV with a time column; NaN is an empty cell."""
    n = len(next(iter(columns.values())))
    table = {"time": np.arange(n) / rate_hz, **columns}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(["" if value != value else value for value in row])
    return path


def assert_scores(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz"])
def test_each_row_gets_its_score_in_every_format(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture, suffix: str
) -> None:
    source = write_csv(tmp_path / "a.csv", {"speed": rows[:, 0], "current": rows[:, 1]})
    out = tmp_path / f"scores{suffix}"
    done = limpet(capsys, "predict", bundle.path, source, "--out", out)
    assert done.code == 0
    assert done.err == ""
    scores = read_scores(out)
    assert scores.dtype == np.float32
    assert_scores(scores, scores_of(rows))
    assert f"{source}: 60 rows: 53 scored, 7 warming up" in done.out
    assert "60 scores by tiny-anomaly on onnxruntime-cpu" in done.out
    assert "10 at or above the threshold 3" in done.out


def test_columns_are_found_by_name_in_any_order_among_others(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    columns = {
        "current": rows[:, 1],
        "temperature": np.full(60, 1e6),
        "anomaly": np.zeros(60),
        "speed": rows[:, 0],
        "secret": np.full(60, 1e6),
    }
    source, out = write_csv(tmp_path / "a.csv", columns), tmp_path / "scores.csv"
    done = limpet(capsys, "predict", bundle.path, source, "--out", out, "--ignore", "secret")
    assert_scores(read_scores(out), scores_of(rows))
    (line,) = [line for line in done.out.splitlines() if "left out" in line]
    for column in ("time", "anomaly", "temperature", "secret"):
        assert column in line


def test_a_missing_column_is_an_error_that_names_it(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    source = write_csv(tmp_path / "a.csv", {"speed": rows[:, 0], "amperes": rows[:, 1]})
    done = limpet(capsys, "predict", bundle.path, source, "--out", tmp_path / "scores.csv")
    assert done.code == 1
    assert done.err.startswith(f"error: {source}: channel 'current' is missing\n")
    assert "wanted: speed, current; found: speed, amperes" in done.err
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_an_array_without_names_is_taken_by_position(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture, dtype: str
) -> None:
    values = (rows * 1000).astype(dtype) if dtype == "int16" else rows.astype(dtype)
    np.save(tmp_path / "a.npy", values)
    out = tmp_path / "scores.npy"
    done = limpet(capsys, "predict", bundle.path, tmp_path / "a.npy", "--out", out)
    assert "columns have no names and are taken in order: speed, current" in done.err
    wanted = np.clip(values.astype(np.float64), -50, 50)  # the chain's clip
    assert_scores(read_scores(out), scores_of(wanted))


def test_an_array_of_another_width_is_an_error(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((20, 3)))
    out = tmp_path / "scores.npy"
    done = limpet(capsys, "predict", bundle.path, tmp_path / "a.npy", "--out", out)
    assert done.code == 1
    assert "has 3 columns without names, the model takes 2 channels" in done.err
    assert "wanted: speed, current" in done.err
    ignored = limpet(
        capsys, "predict", bundle.path, tmp_path / "a.npy", "--out", out, "--ignore", "c1"
    )
    assert ignored.code == 0


def test_a_model_trained_on_numbered_columns_finds_them_by_number(
    rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    bundle = anomaly_bundle(tmp_path / "pump", channels=["c0", "c2"], look_back=LOOK_BACK)
    np.save(tmp_path / "a.npy", np.stack([rows[:, 0], np.full(60, 1e6), rows[:, 1]], axis=1))
    out = tmp_path / "scores.npy"
    done = limpet(capsys, "predict", bundle.path, tmp_path / "a.npy", "--out", out)
    assert_scores(read_scores(out), scores_of(rows))
    assert "left out: c1" in done.out


def test_a_model_without_names_takes_a_named_array_by_position(
    rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    bundle = anomaly_bundle(tmp_path / "pump", channels=["c0", "c1"], look_back=LOOK_BACK)
    np.savez(tmp_path / "a.npz", speed=rows[:, 0], current=rows[:, 1], flow=rows[:, 0])
    line = ["predict", bundle.path, tmp_path / "a.npz", "--out", tmp_path / "scores.npy", "--key"]
    done = limpet(capsys, *line, "speed,current")
    assert "have no names, columns are taken in order: speed, current" in done.err
    assert_scores(read_scores(tmp_path / "scores.npy"), scores_of(rows))
    done = limpet(capsys, *line, "speed,current,flow", "--force")
    assert "channel 'c0', 'c1' is missing" in done.err


def test_a_matlab_file_is_matched_by_the_names_of_its_arrays(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    variables = {"fs": 10.0, "current": rows[:, 1], "speed": rows[:, 0], "rpm": 1797}
    savemat(tmp_path / "a.mat", variables)
    out = tmp_path / "scores.csv"
    done = limpet(capsys, "predict", bundle.path, tmp_path / "a.mat", "--out", out)
    assert (done.code, done.err) == (0, "")
    assert "left out: rpm (one number)" in done.out
    assert_scores(read_scores(out), scores_of(rows))
    named = ["--key", "speed,current"]
    damaged = tmp_path / "b.mat"
    damaged.write_bytes((tmp_path / "a.mat").read_bytes()[:-40])
    done = limpet(capsys, "predict", bundle.path, damaged, "--out", out, "--force", *named)
    assert done.code == 1
    assert done.err.startswith(f"error: {damaged} is no whole .mat file: ")


def test_each_snapshot_of_a_folder_warms_up_anew(
    rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    bundle = anomaly_bundle(
        tmp_path / "bearing",
        channels=["horizontal", "vertical"],
        look_back=LOOK_BACK,
        rate_hz=25_600.0,
    )
    folder = tmp_path / "Bearing1_1"
    folder.mkdir()
    for number, part in enumerate(np.split(rows, 3), start=1):
        lines = [f"9,39,{10 * number},{40 * row},{x},{y}\n" for row, (x, y) in enumerate(part)]
        (folder / f"acc_{number:05}.csv").write_text("".join(lines))
    out = tmp_path / "scores.npy"
    done = limpet(capsys, "predict", bundle.path, folder, "--out", out, "--json", "-")
    (part,) = done.report["inputs"]
    assert (part["rows"], part["segments"], part["rate_hz"]) == (60, 3, 25_600)
    assert part["warnings"] == []
    wanted = [scores_of(part) for part in np.split(rows, 3)]
    assert_scores(read_scores(out), np.concatenate(wanted))


def test_an_npz_with_names_is_matched_by_them(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    names = np.array(["current", "speed"])
    np.savez(tmp_path / "a.npz", values=rows[:, ::-1], channels=names, rate_hz=10.0)
    out = tmp_path / "scores.npz"
    done = limpet(capsys, "predict", bundle.path, tmp_path / "a.npz", "--out", out)
    assert done.err == ""
    assert_scores(read_scores(out), scores_of(rows))


def test_the_array_of_an_npz_is_chosen_by_key(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    np.savez(tmp_path / "a.npz", first=rows, second=rows[::-1])
    out = tmp_path / "scores.npy"
    done = limpet(capsys, "predict", bundle.path, tmp_path / "a.npz", "--out", out)
    assert done.code == 1
    assert "say --key NAME; arrays: first" in done.err
    arguments = ("--out", out, "--key", "second", "--rate-hz", "10")
    limpet(capsys, "predict", bundle.path, tmp_path / "a.npz", *arguments)
    assert_scores(read_scores(out), scores_of(rows[::-1]))


def test_each_segment_of_a_three_dimensional_array_starts_anew(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "a.npy", rows.reshape(3, 20, 2))
    out = tmp_path / "scores.npy"
    limpet(capsys, "predict", bundle.path, tmp_path / "a.npy", "--out", out)
    assert_scores(read_scores(out), np.concatenate([scores_of(part) for part in np.split(rows, 3)]))


def test_several_inputs_are_scored_anew_each_and_follow_each_other(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    sources = [
        write_csv(tmp_path / f"{name}.csv", {"speed": part[:, 0], "current": part[:, 1]})
        for name, part in (("b", rows), ("a", rows[:30]))
    ]
    out = tmp_path / "scores.csv"
    done = limpet(capsys, "predict", bundle.path, *sources, "--out", out, "--json", "-")
    assert_scores(read_scores(out), np.concatenate([scores_of(rows), scores_of(rows[:30])]))
    assert [part["path"] for part in done.report["inputs"]] == [str(path) for path in sources]


def test_missing_values_are_states_and_every_row_still_has_its_line(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    rows[10, 0] = np.nan
    rows[19 : 19 + MAX_FILL_ROWS + 4, 1] = np.nan
    rows[35 : 35 + MAX_FILL_ROWS + 2] = np.nan
    source = write_csv(tmp_path / "a.csv", {"speed": rows[:, 0], "current": rows[:, 1]})
    out = tmp_path / "scores.csv"
    report = limpet(capsys, "predict", bundle.path, source, "--out", out, "--json", "-").report
    states = report["inputs"][0]["states"]
    assert states == {
        "scored": 60 - 2 * WARM_UP - 2 * LOOK_BACK - 2 * MAX_FILL_ROWS - 5,
        "filled": 2 * LOOK_BACK + 2 * MAX_FILL_ROWS - 1,
        "partial": 4,
        "warming_up": 2 * WARM_UP,
        "hole": 2,
    }
    scores = read_scores(out)
    assert len(scores) == 60
    assert np.isnan(scores).sum() == states["warming_up"] + states["hole"]


def test_a_recording_shorter_than_the_warm_up_has_rows_but_no_scores(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    source = write_csv(tmp_path / "a.csv", {"speed": rows[:3, 0], "current": rows[:3, 1]})
    done = limpet(capsys, "predict", bundle.path, source, "--out", tmp_path / "scores.csv")
    assert done.code == 0
    assert (tmp_path / "scores.csv").read_text() == "score\nnan\nnan\nnan\n"


def test_long_recordings_are_scored_as_one_stream(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    rows = np.random.default_rng(0).normal(size=(10_000, 2))
    np.save(tmp_path / "a.npy", rows)
    out = tmp_path / "scores.npy"
    limpet(capsys, "predict", bundle.path, tmp_path / "a.npy", "--out", out)
    assert_scores(read_scores(out), scores_of(rows))


def test_between_frames_of_bands_a_score_holds(rows: Rows, tmp_path: Path, capsys: Capture) -> None:
    steps = [HoldLast(max_rows=0), BandEnergies(frame_rows=8, hop_rows=4, bands=2)]
    bundle = anomaly_bundle(tmp_path / "pump", steps=steps, look_back=3)
    np.save(tmp_path / "a.npy", rows)
    out = tmp_path / "scores.npy"
    limpet(capsys, "predict", bundle.path, tmp_path / "a.npy", "--out", out)
    scores = read_scores(out)
    assert np.isnan(scores[:15]).all()
    for start in range(15, 60, 4):
        assert len(set(scores[start : start + 4])) == 1
    assert len(set(scores[15:])) == 12


@pytest.mark.parametrize(("rate_hz", "warns"), [(10.0, False), (11.0, False), (20.0, True)])
def test_another_rate_than_in_training_is_announced(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture, rate_hz: float, warns: bool
) -> None:
    columns = {"speed": rows[:, 0], "current": rows[:, 1]}
    source = write_csv(tmp_path / "a.csv", columns, rate_hz)
    done = limpet(capsys, "predict", bundle.path, source, "--out", tmp_path / "scores.csv")
    assert done.code == 0
    assert ("rate is 20 Hz, the model was trained at 10 Hz" in done.err) == warns


def test_the_report_has_its_documented_keys(
    bundle: Bundle, rows: Rows, tmp_path: Path, capsys: Capture
) -> None:
    source = write_csv(tmp_path / "a.csv", {"speed": rows[:, 0], "current": rows[:, 1]})
    out = tmp_path / "scores.csv"
    report = limpet(capsys, "predict", bundle.path, source, "--out", out, "--json", "-").report
    assert list(report) == ["bundle", "name", "engine", "out", "rows", "threshold", "inputs"]
    assert report["inputs"] == [
        {
            "path": str(source),
            "rows": 60,
            "segments": 1,
            "rate_hz": pytest.approx(10.0),
            "left_out": ["time (time)"],
            "warnings": [],
            "states": {"scored": 53, "filled": 0, "partial": 0, "warming_up": 7, "hole": 0},
            "anomalous": 10,
        }
    ]


def test_without_an_input_there_is_nothing_to_score(bundle: Bundle, capsys: Capture) -> None:
    done = limpet(capsys, "predict", bundle.path, "--out", "scores.csv")
    assert done.code == 2
    assert "INPUT" in done.err


def test_a_bundle_of_another_kind_says_what_this_version_predicts(
    tmp_path: Path, capsys: Capture
) -> None:
    bundle = identity_bundle(tmp_path / "identity")
    done = limpet(capsys, "predict", bundle.path, "a.csv", "--out", tmp_path / "scores.csv")
    assert done.code == 1
    assert (
        "kind 'custom'; this version predicts with anomaly, navigation and grasp bundles"
        in done.err
    )
