"""RUN folders."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.whole_files import UNFINISHED
from limpet.training.run import (
    POLICY,
    POLICY_RECORD,
    WEIGHTS,
    RunFolder,
    RunRecord,
    check_out,
    open_run,
)

RECORD = RunRecord(kind="anomaly", config={"steps": 5, "seed": 1}, seed=1)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = open_run(tmp_path / "run", RECORD, resume=False, force=False)
    assert folder.read() == RECORD


def test_a_run_without_its_end_is_interrupted_not_complete(tmp_path: Path) -> None:
    folder = open_run(tmp_path / "run", RECORD, resume=False, force=False)
    with pytest.raises(DataError, match="is not finished") as caught:
        folder.read_complete()
    assert "--resume" in caught.value.hint


def test_an_interrupted_run_is_refused_and_both_ways_on_are_named(tmp_path: Path) -> None:
    open_run(tmp_path / "run", RECORD, resume=False, force=False)
    with pytest.raises(UsageError, match="interrupted") as caught:
        check_out(tmp_path / "run", resume=False, force=False)
    assert "--resume" in caught.value.hint
    assert "--force" in caught.value.hint


def test_a_finished_run_is_neither_overwritten_nor_resumed(tmp_path: Path) -> None:
    folder = open_run(tmp_path / "run", RECORD, resume=False, force=False)
    folder.write_record(msgspec.structs.replace(RECORD, complete=True))
    for resume in (False, True):
        with pytest.raises(UsageError, match="which is finished"):
            check_out(tmp_path / "run", resume=resume, force=False)


def test_force_begins_anew_without_the_old_checkpoint(tmp_path: Path) -> None:
    folder = open_run(tmp_path / "run", RECORD, resume=False, force=False)
    folder.checkpoint.write_bytes(b"old")
    open_run(tmp_path / "run", RECORD, resume=False, force=True)
    assert not folder.checkpoint.exists()


def test_force_removes_what_a_killed_process_was_writing(tmp_path: Path) -> None:
    folder = open_run(tmp_path / "run", RECORD, resume=False, force=False)
    unfinished = folder.path / ".checkpoint.safetensors.1a2b3c4d.part"
    assert unfinished.match(UNFINISHED)
    unfinished.write_bytes(b"half")
    open_run(tmp_path / "run", RECORD, resume=False, force=True)
    assert not unfinished.exists()


def test_resuming_with_another_configuration_names_what_differs(tmp_path: Path) -> None:
    open_run(tmp_path / "run", RECORD, resume=False, force=False)
    other = msgspec.structs.replace(RECORD, config={"steps": 6, "seed": 1})
    with pytest.raises(UsageError, match=r"begun with another steps \(5, now 6\)"):
        open_run(tmp_path / "run", other, resume=True, force=False)


def test_resuming_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run to resume"):
        check_out(tmp_path / "run", resume=True, force=False)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_no_run_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is no RUN"):
        check_out(tmp_path, resume=False, force=force)


def test_force_leaves_a_run_alone_that_holds_other_files_too(tmp_path: Path) -> None:
    open_run(tmp_path / "run", RECORD, resume=False, force=False)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds more than a RUN \(notes.txt\)"):
        check_out(tmp_path / "run", resume=False, force=True)


def test_a_record_of_another_schema_version_says_both_versions(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema_version": 99, "kind": "anomaly"}')
    with pytest.raises(DataError, match="schema version 99, this limpet reads 1"):
        RunFolder(tmp_path).read()


def test_a_folder_without_a_record_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a RUN: cannot read run.json"):
        RunFolder(tmp_path).read()


def test_force_begins_anew_without_the_old_tensorboard_events(tmp_path: Path) -> None:
    events = tmp_path / "run" / "tensorboard" / "events.out.tfevents.1.host"
    open_run(tmp_path / "run", RECORD, resume=False, force=False)
    events.parent.mkdir()
    events.touch()
    open_run(tmp_path / "run", RECORD, resume=False, force=True)
    assert not events.exists()


def test_force_leaves_a_run_alone_whose_tensorboard_folder_holds_other_files(
    tmp_path: Path,
) -> None:
    notes = tmp_path / "run" / "tensorboard" / "notes.txt"
    open_run(tmp_path / "run", RECORD, resume=False, force=False)
    notes.parent.mkdir()
    notes.write_text("mine")
    with pytest.raises(UsageError, match=r"holds more than a RUN \(notes.txt\)"):
        check_out(tmp_path / "run", resume=False, force=True)


def test_force_begins_anew_without_the_policy_that_was_trained_on_the_old_model(
    tmp_path: Path,
) -> None:
    open_run(tmp_path / "run", RECORD, resume=False, force=False)
    policy = tmp_path / "run" / POLICY
    files = [
        policy / POLICY_RECORD,
        policy / WEIGHTS,
        policy / "tensorboard" / "events.out.tfevents.1.host",
    ]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    open_run(tmp_path / "run", RECORD, resume=False, force=True)
    assert not any(file.exists() for file in files)
    (policy / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"holds more than a RUN \(notes.txt\)"):
        check_out(tmp_path / "run", resume=False, force=True)
