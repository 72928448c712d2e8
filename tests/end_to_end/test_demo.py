"""`limpet demo` as a stranger runs it: the whole path, and no process left behind in any case."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from limpet.runtime.client import RobotClient
from tests.grasp_bundles import grasp_bundle
from tests.navigation_bundles import policy_bundle

pytest.importorskip("open3d", reason="needs the extra `training`")
pytest.importorskip("torch", reason="needs the extra `training`")
pytest.importorskip("onnxscript", reason="needs the extra `export`")
pytest.importorskip("matplotlib", reason="needs the extra `dashboard`")

ROWS, TRAIN_ROWS = 2400, 1200
FAULTS = ((1600, 1660), (2000, 2060))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Two coupled waves with noise; in two labelled intervals the second one is displaced."""
    row = np.arange(ROWS)
    rng = np.random.default_rng(3)
    values = np.column_stack([np.sin(row / 9.0), np.cos(row / 9.0)])
    values += rng.normal(scale=0.05, size=values.shape)
    anomaly = np.zeros(ROWS, int)
    for start, stop in FAULTS:
        values[start:stop, 1] += 6.0
        anomaly[start:stop] = 1
    file = tmp_path / "waves.csv"
    lines = [f"{n / 10},{a},{b},{label}" for n, (a, b), label in zip(row, values, anomaly)]  # noqa: B905
    file.write_text("\n".join(["time,level,flow,anomaly", *lines]) + "\n")
    return file


@contextlib.contextmanager
def demo(out: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A demo in a process of its own, its output in OUT's neighbour; killed if still there."""
    command = [sys.executable, "-m", "limpet.runtime.cli", "demo", "--out", out, *arguments]
    with log_of(out).open("w") as log:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=log, stderr=subprocess.STDOUT, text=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log_of(out: Path) -> Path:
    """Where the demo's output goes."""
    return out.with_name("demo.log")


def wait_for(process: subprocess.Popen[str], out: Path, text: str, timeout_s: float) -> str:
    """The demo's output once it holds a text."""
    deadline_s = time.monotonic() + timeout_s
    while text not in (said := log_of(out).read_text()):
        assert process.poll() is None, f"the demo ended before it said {text!r}:\n{said}"
        assert time.monotonic() < deadline_s, f"the demo did not say {text!r}:\n{said}"
        time.sleep(0.05)
    return said


def children_of(out: Path) -> list[str]:
    """Command lines of processes that work in a demo's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(out) in line:
                found.append(line)
    return found


def assert_none_is_left(out: Path, timeout_s: float = 20.0) -> None:
    """No process of the demo remains; one that was just told to end gets a moment."""
    deadline_s = time.monotonic() + timeout_s
    while children_of(out) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert children_of(out) == []


def summary_of(out: Path) -> Any:
    """The demo's report."""
    return msgspec.json.decode((out / "summary.json").read_bytes())


@pytest.mark.timeout(300)
def test_a_users_recording_goes_the_whole_way_and_the_server_stays(
    tmp_path: Path, recording: Path
) -> None:
    out = tmp_path / "out"
    policy = policy_bundle(tmp_path / "policy").path
    arguments = ("--data", recording, "--train-rows", TRAIN_ROWS, "--steps", 40, "--speed", "50")
    arguments += ("--navigation", policy)
    arguments += ("--grasp", grasp_bundle(tmp_path / "grasp").path)
    with demo(out, *arguments, "--keep-serving", "--json", tmp_path / "report.json") as process:
        said = wait_for(process, out, "until Ctrl-C", 240.0)
        endpoint = said.partition("limpet alerts --from ")[2].split()[0]
        with RobotClient(endpoint) as robot:
            assert [model.name for model in robot.hello().models] == [
                "waves",
                "navigation",
                "grasp",
            ]
        process.send_signal(signal.SIGINT)
        assert process.wait(60.0) == 0
        assert_none_is_left(out)

    report = summary_of(out)
    assert report == msgspec.json.decode((tmp_path / "report.json").read_bytes())
    assert report["passed"]
    assert report["failures"] == []
    (stream,) = report["streams"]
    assert stream["rows"] == stream["acknowledged"] == ROWS - TRAIN_ROWS
    assert stream["detected"] == len(FAULTS)
    assert [(i["start_row"], i["stop_row"]) for i in stream["intervals"]] == list(FAULTS)
    drive = report["navigation"]
    assert sum(report["dropped"].values()) == report["robot"]["stale"] + sum(
        drive["stale"].values()
    )
    assert drive["followed"] > 10
    assert drive["frames"] == drive["ticks"] == sum(drive["states"].values())
    assert drive["oldest_followed_ms"] < 300.0
    assert (drive["refused"], drive["failed"], drive["unsent"]) == ({}, 0, 0)
    picking = report["picking"]
    assert picking["answered"] == picking["requests"] > 0
    assert (picking["views"], picking["failed"], picking["nothing"]) == (2, 0, "")
    assert picking["rows"] > 0
    assert report["robot"]["answered"] > 20
    assert report["robot"]["failed"] == 0

    alerts = [
        msgspec.json.decode(line) for line in (out / "alerts.jsonl").read_bytes().splitlines()
    ]
    assert [alert["sequence"] for alert in alerts] == list(range(1, report["alerts"] + 1))
    first = next(a for a in alerts if a["incident"] == stream["intervals"][0]["incident"])
    assert first["channels"][0]["name"] == "flow"
    assert len(np.load(out / "scores/waves.npy")) == ROWS - TRAIN_ROWS

    from matplotlib.image import imread

    for name in ("timeline.png", "trajectories.png", "grasps.png"):
        picture = imread(out / name)
        assert picture.shape[1] > 1000
        assert picture[..., :3].std() > 0.05


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_demo_that_is_ended_leaves_no_process(
    tmp_path: Path, recording: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    with demo(out, "--data", recording, "--steps", 100_000) as process:
        wait_for(process, out, "[1/5]", 60.0)
        deadline_s = time.monotonic() + 60.0
        while not any("train" in line for line in children_of(out) if "demo" not in line.split()):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60.0) == (130 if number != signal.SIGKILL else -signal.SIGKILL)
        assert_none_is_left(out)


@pytest.mark.timeout(120)
def test_a_process_that_fails_ends_the_demo_with_its_words(tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.random.default_rng(0).normal(size=(60, 2)))
    out = tmp_path / "out"
    with demo(out, "--data", tmp_path / "short.npy") as process:
        assert process.wait(60.0) == 1
    said = log_of(out).read_text()
    assert "train-short failed with exit code 1" in said
    assert "wanted at least 64; found 30 rows" in said
    assert_none_is_left(out)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_default_demo_ends_well_within_three_minutes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    began_s = time.monotonic()
    with demo(out) as process:
        code = process.wait(300.0)
    took_s = time.monotonic() - began_s
    assert code == 0, log_of(out).read_text()
    assert took_s < 180.0
    report = summary_of(out)
    assert report["stage_s"]["train"] < 120.0
    assert {stream["name"] for stream in report["streams"]} == {"machine", "satellite"}
    for stream in report["streams"]:
        assert stream["rows"] == stream["acknowledged"]
    machine = next(stream for stream in report["streams"] if stream["name"] == "machine")
    assert machine["detected"] >= 2
    assert machine["outside_share"] <= 0.2
    assert_none_is_left(out)
