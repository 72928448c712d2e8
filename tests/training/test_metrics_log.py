"""JSON lines and TensorBoard events of a run, over interruptions."""

from __future__ import annotations

import json
import logging
import struct
import sys
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from limpet.training.metrics_log import metrics_log
from limpet.training.run import EVENTS


def log_steps(folder: Path, start: int, *steps: int, offset: float = 0.0) -> None:
    with metrics_log(folder, start) as log:
        for step in steps:
            log(step, {"loss": step + offset, "part/one": 2.0 * step})


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(file: Path) -> list[Event]:
    """Whole records of an event file: length, its checksum, content, its checksum."""
    content, found = file.read_bytes(), []
    while len(content) >= 12:
        (size,) = struct.unpack("<Q", content[:8])
        if len(content) < 16 + size:
            break
        found.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return found


def shown(folder: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows: a session's start makes it forget steps from the start's own on."""
    points: list[tuple[int, float]] = []
    for file in sorted((folder / "tensorboard").glob(EVENTS)):
        for event in events(file):
            if event.session_log.status == SessionLog.START:
                points = [(step, value) for step, value in points if step < event.step]
            values = {value.tag: value.simple_value for value in event.summary.value}
            if tag in values:
                points.append((event.step, values[tag]))
    return points


def test_both_logs_hold_the_same_figures(tmp_path: Path) -> None:
    log_steps(tmp_path, 0, 10, 20)
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(10, 10.0), (20, 20.0)]
    assert shown(tmp_path, "loss") == [(10, 10.0), (20, 20.0)]
    assert shown(tmp_path, "part/one") == [(10, 20.0), (20, 40.0)]


def test_steps_done_again_appear_once_with_their_new_figures(tmp_path: Path) -> None:
    log_steps(tmp_path, 0, 10, 20, 30)
    log_steps(tmp_path, 15, 20, 30, offset=0.5)
    log_steps(tmp_path, 20, 30, 40, offset=0.25)
    wanted = [(10, 10.0), (20, 20.5), (30, 30.25), (40, 40.25)]
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == wanted
    assert shown(tmp_path, "loss") == wanted


def test_what_was_logged_before_a_kill_is_in_both_files(tmp_path: Path) -> None:
    log = metrics_log(tmp_path, 0)
    log.__enter__()(10, {"loss": 1.0})
    assert len(lines(tmp_path)) == 1  # while the files are still open
    assert shown(tmp_path, "loss") == [(10, 1.0)]
    log.__exit__(None, None, None)


def test_a_record_cut_off_by_a_kill_is_no_line(tmp_path: Path) -> None:
    log_steps(tmp_path, 0, 10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')
    log_steps(tmp_path, 10, 20)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20]


def test_seconds_count_on_over_an_interruption(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "loss": 1.0, "seconds": 500.0}\n')
    log_steps(tmp_path, 10, 20)
    assert lines(tmp_path)[1]["seconds"] >= 500.0


def test_a_figure_that_is_not_finite_leaves_valid_json(tmp_path: Path) -> None:
    with metrics_log(tmp_path, 0) as log:
        log(1, {"loss": 1.0, "margin": float("nan")})
    assert lines(tmp_path)[0]["margin"] is None


def test_without_tensorboardx_there_are_json_lines_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.record_writer", None)
    with caplog.at_level(logging.WARNING):
        log_steps(tmp_path, 0, 10)
    assert "pip install 'limpet[training]'" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert len(lines(tmp_path)) == 1
