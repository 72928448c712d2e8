"""`limpet evaluate anomaly`: a RUN and its bundle, figures, documented keys, errors.

Dimension legend: n rows, c channels (speed and current).
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.bundle import Bundle
from limpet.export.commands import evaluate
from limpet.export.package import export_run
from tests.bundles import anomaly_bundle, identity_bundle
from tests.command_line import limpet

Capture = pytest.CaptureFixture[str]
ROWS, LOOK_BACK = 400, 8


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Scores a row by its mean magnitude; anomalous from 3."""
    return anomaly_bundle(tmp_path / "pump", look_back=LOOK_BACK)


def write(path: Path, *intervals: tuple[int, int], size: float = 9.0, **columns: object) -> Path:
    """An npz of small noise, with values of that size where labelled."""
    rng = np.random.default_rng(len(path.stem))
    values = rng.normal(0, 0.2, (ROWS, 2))
    label = np.zeros(ROWS, int)
    for start, stop in intervals:
        values[start:stop], label[start:stop] = size, 1
    names = np.array(["speed", "current"])
    np.savez(path, values=values, channels=names, rate_hz=10.0, anomaly=label, **columns)  # type: ignore[arg-type]
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two faults, one of them half as strong as the threshold, and a recording without any."""
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "a.npz", (200, 240))
    write(folder / "bb.npz", (100, 120), size=1.5)
    write(folder / "normal.npz")
    return folder


def test_the_figures_are_those_of_the_scores(bundle: Bundle, data: Path, capsys: Capture) -> None:
    done = limpet(capsys, "evaluate", "anomaly", bundle.path, "--data", data, "--json", "-")
    assert (done.code, done.err) == (0, "")
    report = done.report
    assert (report["source"], report["name"]) == ("bundle", "tiny-anomaly")
    assert report["ranked_files"] == 2
    names = ("auroc", "average_precision", "vus_pr", "vus_roc")
    assert report["mean"] == dict.fromkeys(names, pytest.approx(1.0))
    assert report["pooled"] == {"auroc": 1.0, "average_precision": 1.0}
    rows = report["rows"]
    assert (rows["rows"], rows["anomalous"], rows["flagged"]) == (3 * ROWS, 60, 40)
    assert (rows["precision"], rows["recall"], rows["f1"]) == (1.0, 40 / 60, 0.8)
    assert (rows["false_alarm_rate"], rows["missed_alarm_rate"]) == (0.0, pytest.approx(1 / 3))
    assert report["events"] == {
        "labelled": 2,
        "detected": 1,
        "incidents": 1,
        "outside": 0,
        "delay_rows": report["open_after_rows"] - 1,
        "delay_s": pytest.approx((report["open_after_rows"] - 1) / 10),
        "alert_share_of_normal": 0.0,
    }
    assert report["false_alarms"] == {
        "declared_rate": 0.01,
        "observed_rate": 0.0,
        "normal_rows": 1140,
        "expected_rows": pytest.approx(11.4),
        "observed_rows": 0,
        "declared_per_day": None,
        "observed_per_day": 0.0,
        "normal_days": pytest.approx(1140 / 10 / 86_400),
    }
    assert [file["unscored_rows"] for file in report["files"]] == [LOOK_BACK - 1] * 3


def test_what_a_recording_without_faults_leaves_undefined_is_null(
    bundle: Bundle, data: Path, capsys: Capture
) -> None:
    normal = data / "normal.npz"
    done = limpet(capsys, "evaluate", "anomaly", bundle.path, "--data", normal, "--json", "-")
    assert done.code == 0
    assert done.report["ranked_files"] == 0
    assert set(done.report["mean"].values()) == {None}
    assert done.report["rows"]["recall"] is None
    assert done.report["events"]["delay_rows"] is None


def test_the_report_has_its_documented_keys(bundle: Bundle, data: Path, capsys: Capture) -> None:
    report = limpet(
        capsys, "evaluate", "anomaly", bundle.path, "--data", data, "--json", "-"
    ).report
    assert list(report) == [
        *("model", "source", "name", "engine", "data", "from_row", "threshold"),
        *("release_threshold", "open_after_rows", "close_after_rows", "ranked_files", "mean"),
        *("pooled", "rows", "events", "false_alarms", "files"),
    ]
    assert list(report["files"][0]) == [
        *("path", "unscored_rows", "window_rows", "ranking", "rows", "events", "left_out"),
        "warnings",
    ]
    help_text = inspect.getdoc(evaluate.anomaly.callback) or ""
    for part in (report, *(report[n] for n in ("mean", "rows", "events", "false_alarms"))):
        for key in (*part, *report["files"][0]):
            assert key in help_text, key


def test_the_table_has_a_line_for_each_file_and_the_figures_of_all(
    bundle: Bundle, data: Path, capsys: Capture
) -> None:
    done = limpet(capsys, "evaluate", "anomaly", bundle.path, "--data", data)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "tiny-anomaly (bundle) by onnxruntime-cpu, threshold 3"
    table = {line.split("  ")[0]: line for line in lines[1:7]}
    assert table["a.npz"].endswith("1.000  0.000  0.000  1/1")
    assert table["bb.npz"].endswith("0.000  0.000  1.000  0/1")
    assert table["normal.npz"].split()[1:] == ["400", "0", *["–"] * 5, "0.000", "–", "0/0"]
    assert "mean of 2" in table
    assert table["pooled"].split()[1:5] == ["1200", "60", "1.000", "1.000"]
    assert "false alarms: 1.00% of normal rows declared, 0.00% observed (0 of 1140" in done.out
    assert "1 of 2 found, reported after 2 rows (0.2 s) in the median" in done.out
    assert done.out.splitlines()[-1] == "left out: anomaly (label)"


def test_only_rows_from_the_first_that_counts_are_measured(
    bundle: Bundle, data: Path, capsys: Capture
) -> None:
    done = limpet(
        capsys, "evaluate", "anomaly", bundle.path, "--data", data, "--from-row", 150, "--json", "-"
    )  # fmt: skip
    assert done.report["rows"]["rows"] == 3 * (ROWS - 150)
    assert done.report["rows"]["anomalous"] == 40
    assert [file["unscored_rows"] for file in done.report["files"]] == [0, 0, 0]


def test_a_label_of_another_name_and_columns_to_ignore_are_named(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    rows = np.zeros((60, 4))
    rows[40:, :3] = 9.0
    file = tmp_path / "a.csv"
    np.savetxt(file, rows, delimiter=",", header="speed,current,fault,other", comments="")
    line = ["evaluate", "anomaly", bundle.path, "--data", file, "--rate-hz", 10]
    refused = limpet(capsys, *line)
    assert refused.code == 1
    assert f"{file} has no labels to evaluate against" in refused.err
    assert "--label NAME" in refused.err
    done = limpet(capsys, *line, "--label", "fault", "--ignore", "other", "--json", "-")
    assert done.report["rows"]["f1"] == 1.0
    assert done.report["files"][0]["left_out"] == ["fault (label)", "other (ignored)"]


def test_oddities_of_a_recording_are_warnings(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    rows = np.zeros((60, 3))
    rows[40:] = 9.0
    file = tmp_path / "a.csv"
    np.savetxt(file, rows, delimiter=",", header="speed,current,label", comments="")
    done = limpet(capsys, "evaluate", "anomaly", bundle.path, "--data", file)
    assert f"warning: {file}: no time column: taking 1 Hz" in done.err
    assert "the model was trained at 10 Hz" in done.err


def test_a_run_and_its_bundle_get_the_same_figures(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = write(tmp_path / "a.npz", (200, 240))
    assert export_run(run, tmp_path / "pump").passed
    reports = [
        limpet(capsys, "evaluate", "anomaly", model, "--data", data, "--json", "-").report
        for model in (run, tmp_path / "pump")
    ]
    assert [report["engine"] for report in reports] == ["pytorch-cpu", "onnxruntime-cpu"]
    assert [report["source"] for report in reports] == ["run", "bundle"]
    for name in ("mean", "pooled", "rows", "events"):
        assert reports[0][name] == pytest.approx(reports[1][name], abs=1e-3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nothing", "nothing is neither a RUN (run.json) nor a bundle (manifest.json)"),
        ("identity", "identity holds a model of kind 'custom', wanted 'anomaly'\n  a model of"),
    ],
)
def test_what_is_no_anomaly_model_is_refused(
    data: Path, tmp_path: Path, capsys: Capture, model: str, message: str
) -> None:
    identity_bundle(tmp_path / "identity")
    done = limpet(capsys, "evaluate", "anomaly", tmp_path / model, "--data", data)
    assert done.code == 1
    assert message in done.err


def test_a_bundle_is_evaluated_without_any_training_library(bundle: Bundle, data: Path) -> None:
    program = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from limpet.export.evaluate_anomaly import evaluate_anomaly\n"
        f"evaluate_anomaly(Path({str(bundle.path)!r}), Path({str(data)!r}))\n"
        "print(json.dumps([n for n in ('torch', 'onnx', 'safetensors') if n in sys.modules]))"
    )
    fresh = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert fresh.returncode == 0, fresh.stderr
    assert json.loads(fresh.stdout) == []
