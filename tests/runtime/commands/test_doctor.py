"""`limpet doctor`: what is here, what is not, and the command that mends it."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from limpet.runtime import extras
from limpet.runtime.diagnosis import serving
from limpet.runtime.diagnosis.packages import look_at_dependencies
from limpet.runtime.diagnosis.probe import Probe
from tests.command_line import limpet

Capture = pytest.CaptureFixture[str]
Finding = dict[str, str]


def findings(capsys: Capture, *arguments: object) -> dict[tuple[str, str], Finding]:
    report = limpet(capsys, "doctor", *arguments, "--json", "-").report
    return {(finding["group"], finding["name"]): finding for finding in report["findings"]}


def test_a_machine_that_runs_these_tests_can_run_a_robot(capsys: Capture) -> None:
    done = limpet(capsys, "doctor")
    assert done.code == 0
    assert done.out.endswith("The robot part can run here.\n")
    assert done.err == ""


def test_the_report_has_its_documented_keys(capsys: Capture, tmp_path: Path) -> None:
    done = limpet(capsys, "doctor", "--state-dir", tmp_path, "--json", "-")
    assert list(done.report) == ["ok", "version", "findings"]
    assert done.report["ok"] is True
    for finding in done.report["findings"]:
        assert list(finding) == ["group", "name", "status", "found", "mend"]
        assert finding["status"] in ("ok", "absent", "warning", "failed")


def test_everything_a_robot_needs_is_looked_at(capsys: Capture, tmp_path: Path) -> None:
    found = findings(capsys, "--state-dir", tmp_path)
    groups = [group for group, _ in found]
    assert list(dict.fromkeys(groups)) == [
        *("machine", "dependencies", "extras", "engines", "sockets", "state"),
    ]
    for name in ("python", "system", "processor", "gpu", "clock", "realtime"):
        assert ("machine", name) in found
    assert {("sockets", "tcp"), ("sockets", "ipc"), ("state", "disk"), ("state", "fsync")} <= set(
        found
    )
    for distribution in ("numpy", "msgspec", "pyzmq", "onnxruntime", "click"):
        version = extras.installed_version(distribution)
        assert found["dependencies", distribution]["found"] == version
    assert "CPUExecutionProvider" in found["engines", "onnxruntime"]["found"]


def test_an_extra_that_is_not_installed_comes_with_its_pip_line(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = extras.installed_version
    monkeypatch.setattr(
        extras, "installed_version", lambda name: None if name == "matplotlib" else real(name)
    )
    finding = findings(capsys)["extras", "dashboard"]
    assert finding["status"] == "absent"
    assert finding["found"].startswith("lacks matplotlib")
    assert finding["mend"] == "pip install 'limpet[dashboard]'"
    done = limpet(capsys, "doctor")
    assert done.code == 0
    assert "  dashboard: pip install 'limpet[dashboard]'" in done.out


@pytest.mark.parametrize(("version", "found"), [(None, "not installed"), ("0.1", "0.1, wanted >=")])
def test_a_base_dependency_that_is_missing_or_old_fails(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, version: str | None, found: str
) -> None:
    real = extras.installed_version
    monkeypatch.setattr(
        extras, "installed_version", lambda name: version if name == "pyzmq" else real(name)
    )
    finding = findings(capsys)["dependencies", "pyzmq"]
    assert finding["status"] == "failed"
    assert finding["found"].startswith(found)
    assert finding["mend"].startswith("pip install 'pyzmq>=")
    done = limpet(capsys, "doctor")
    assert done.code == 1
    assert "The robot part CANNOT run here." in done.out


def test_a_dependency_that_is_here_but_does_not_load_fails() -> None:
    """As a wheel of another system: installed, and its library does not open."""
    probe = Probe(problem=lambda module: "libc.so.6: too old" if module == "zmq" else "")
    (finding,) = [one for one in look_at_dependencies(probe) if one.name == "pyzmq"]
    assert finding.status == "failed"
    assert finding.found.endswith("libc.so.6: too old")
    assert "--force-reinstall" in finding.mend


def test_a_loopback_that_cannot_be_bound_fails(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: zmq.Socket[bytes], endpoint: str) -> None:
        raise zmq.ZMQError(13)

    monkeypatch.setattr(zmq.Socket, "bind", refuse)
    found = findings(capsys)
    assert found["sockets", "tcp"]["status"] == "failed"
    assert found["sockets", "ipc"]["status"] == "warning"
    assert found["sockets", "ipc"]["mend"] == "use tcp:// endpoints"


def test_a_state_folder_yet_to_be_made_is_judged_by_the_disk_it_will_be_on(
    capsys: Capture, tmp_path: Path
) -> None:
    found = findings(capsys, "--state-dir", tmp_path / "not" / "yet")
    assert found["state", "disk"]["found"].endswith(f"GB free at {tmp_path}")
    assert not (tmp_path / "not").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_state_folder_that_cannot_be_written_fails(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> float:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(serving, "measure_fsync_ms", refuse)
    finding = findings(capsys, "--state-dir", tmp_path)["state", "disk"]
    assert finding["status"] == "failed"
    assert "Read-only file system" in finding["found"]


@pytest.mark.parametrize(("fsync_ms", "status"), [(4.0, "ok"), (120.0, "warning")])
def test_a_disk_that_is_slow_to_sync_is_announced(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync_ms: float, status: str
) -> None:
    monkeypatch.setattr(serving, "measure_fsync_ms", lambda folder: fsync_ms)
    assert findings(capsys, "--state-dir", tmp_path)["state", "fsync"]["status"] == status


@pytest.mark.parametrize(
    ("version", "specifier", "satisfied"),
    [
        ("2.9.0", ">=2.9", True),
        ("2.13.0+cpu", ">=2.9", True),
        ("2.8.1", ">=2.9", False),
        ("0.17.6", ">=0.17,<0.18", True),
        ("0.18", ">=0.17,<0.18", False),
        ("27.0.0b1", ">=26.0", True),
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_by_their_numbers(
    version: str, specifier: str, satisfied: bool
) -> None:
    assert extras.satisfies(version, specifier) is satisfied
