"""`limpet train`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from limpet.contracts.errors import LimpetError, MissingExtraError
from limpet.training.commands.train import command
from limpet.training.run import RunFolder

TINY = "steps = 3\nbatch = 8\nblocks = 3\nbank_frames = 64\nwidth = 8\n"
LIMPET = [sys.executable, "-c", "from limpet.runtime.cli import main; main()"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a recording and a configuration."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.standard_normal((3000, 2)), np.arange(3000), np.zeros(3000)])
    header = "pressure,flow,counter,anomaly"
    np.savetxt(tmp_path / "pump.csv", rows, delimiter=",", header=header, comments="")
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*arguments: str, data: str = "pump.csv") -> Result:
    line = ["anomaly", "--data", data, "--out", "run", "--config", "tiny.toml", *arguments]
    return CliRunner().invoke(command, line)


def error_of(result: Result) -> LimpetError:
    assert isinstance(result.exception, LimpetError), result.output
    return result.exception


def test_training_reports_on_stdout_and_warns_on_stderr(here: Path) -> None:
    result = train("--ignore", "counter", "--train-rows", "2000", "--seed", "7")
    assert result.exit_code == 0, result.output
    assert "channels: pressure, flow at 1 Hz" in result.stdout
    assert "anomaly" in next(li for li in result.stdout.splitlines() if li.startswith("left out"))
    assert "next: limpet export run --out BUNDLE" in result.stdout
    assert "warning: no time column: taking 1 Hz" in result.stderr
    assert "3/3" in result.stderr
    record = RunFolder(here / "run").read_complete()
    assert (record.seed, record.data[0].rows) == (7, 2000)


def test_json_on_standard_output_replaces_the_text(here: Path) -> None:
    report = json.loads(train("--json", "-", "--rate-hz", "5").stdout)
    assert set(report) == {
        *("run", "channels", "left_out", "rate_hz", "fit_frames", "calibration"),
        *("metrics", "warnings", "seconds"),
    }
    assert report["rate_hz"] == 5.0
    assert report["calibration"]["false_alarm_rate"] == 0.01


def test_the_training_prefix_in_a_tsb_ad_name_is_announced_and_not_applied(here: Path) -> None:
    name = "169_Pump_id_26_Sensor_tr_2000_1st_2500.csv"
    (here / "pump.csv").rename(here / name)
    report = json.loads(train("--json", "-", data=name).stdout)
    assert report["warnings"][0] == (
        f"{name} announces a training prefix of 2000 rows, and all rows train: "
        "say --train-rows 2000"
    )
    assert RunFolder(here / "run").read().data[0].rows == 3000
    told = train("--force", data=name)
    assert told.stderr.count("warning: 169_Pump") == 1
    followed = train("--force", "--train-rows", "2000", data=name)
    assert "announces" not in followed.stderr


def test_snapshots_of_a_bearing_train_as_one_recording(here: Path, data_dir: Path) -> None:
    (here / "tiny.toml").write_text("steps = 3\nwidth = 8\n")
    folder = data_dir / "femto/raw/Learning_set/Bearing1_1"
    result = train(data=str(folder))
    assert result.exit_code == 0, result.output
    assert "channels: horizontal, vertical at 25600 Hz" in result.stdout
    (digest,) = RunFolder(here / "run").read_complete().data
    assert (digest.name, digest.rows) == ("Bearing1_1", 20_480)


def test_options_win_over_the_configuration_file(here: Path) -> None:
    result = train("--steps", "4", "--false-alarm-rate", "0.05")
    assert result.exit_code == 0, result.output
    config = RunFolder(here / "run").read().config
    assert (config["steps"], config["false_alarm_rate"], config["width"]) == (4, 0.05, 8)


def test_an_existing_run_is_refused_without_force(here: Path) -> None:
    assert train().exit_code == 0
    refused = error_of(train())
    assert refused.exit_code == 2
    assert "--force" in refused.hint
    assert train("--force").exit_code == 0


def test_the_output_is_checked_before_the_data_is_read(here: Path) -> None:
    (here / "run").write_text("a file")
    assert "is no RUN" in error_of(train(data="nowhere.csv")).message


@pytest.mark.parametrize(
    ("arguments", "message", "exit_code"),
    [
        (["--ignore", "presure"], "presure", 1),
        (["--train-rows", "1"], "too few rows to fit on", 1),
        (["--train-rows", "50"], "wanted at least 64; found 50 rows", 1),
        (["--resume"], "no run to resume", 2),
        (["--rate-hz", "-1"], "--rate-hz is -1", 2),
        (["--key", "x"], "names an array of an .npz file", 2),
        (["--config", "none.toml"], "none.toml:1: cannot be read", 1),
    ],
)
def test_errors_are_typed_and_write_no_run(
    here: Path, arguments: list[str], message: str, exit_code: int
) -> None:
    error = error_of(train(*arguments))
    assert message in str(error)
    assert error.exit_code == exit_code
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--false-alarm-rate", "1"],
        ["--false-alarm-rate", "nan"],
        ["--false-alarms-per-day", "inf"],
        ["--train-rows", "0"],
        ["--device", "tpu"],
        ["--x"],
    ],
)
def test_values_out_of_range_are_usage_errors(here: Path, arguments: list[str]) -> None:
    assert train(*arguments).exit_code == 2


def test_without_torch_the_error_is_the_line_to_type(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    error = error_of(train())
    assert isinstance(error, MissingExtraError)
    assert error.hint == "pip install 'limpet[training]'"


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner;"
        "from limpet.training.commands.train import command;"
        "assert CliRunner().invoke(command, ['anomaly', '--help']).exit_code == 0;"
        "assert CliRunner().invoke(command, ['--help']).exit_code == 0;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_terminated_run_says_how_to_go_on_and_does(here: Path) -> None:
    steps = ["--config", "tiny.toml", "--steps", "120"]
    line = [*LIMPET, "train", "anomaly", "--data", "pump.csv", "--out", "run", *steps]
    process = subprocess.Popen(
        line, stderr=subprocess.PIPE, text=True, cwd=here, env={**os.environ}
    )
    deadline = time.monotonic() + 60
    metrics = here / "run" / "metrics.jsonl"
    while not metrics.exists() or "\n" not in metrics.read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "repeat the command with --resume" in errors
    assert not RunFolder(here / "run").read().complete
    assert "--resume" in error_of(train("--steps", "120")).hint
    assert train("--steps", "120", "--resume").exit_code == 0
    assert RunFolder(here / "run").read().complete
