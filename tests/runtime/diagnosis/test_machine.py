"""Processors, clocks, GPUs, engines and system libraries, on machines that tests made."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from limpet.contracts.errors import MissingExtraError
from limpet.runtime import extras
from limpet.runtime.diagnosis import engines, packages
from limpet.runtime.diagnosis.engines import look_at_engines
from limpet.runtime.diagnosis.finding import Finding
from limpet.runtime.diagnosis.graphics import look_at_gpu
from limpet.runtime.diagnosis.host import look_at_clock, look_at_host, look_at_priority
from limpet.runtime.diagnosis.packages import look_at_extras
from limpet.runtime.diagnosis.probe import Probe
from limpet.runtime.plans.libraries import Library
from tests.runtime.diagnosis.machines import DESKTOP_COMMANDS, ORIN_NANO, machine


def named(findings: object, name: str) -> Finding:
    (finding,) = [one for one in findings if one.name == name]  # type: ignore[attr-defined]
    assert isinstance(finding, Finding)
    return finding


@pytest.mark.parametrize(
    ("cpuinfo", "status", "found"),
    [
        ("flags : fpu avx2 avx512_vnni amx_int8", "ok", "products of bytes: AVX512-VNNI, AMX"),
        ("Features : fp asimd asimddp i8mm", "ok", "products of bytes: dot product, I8MM"),
        ("flags : fpu sse4_2 avx2", "absent", "no instructions for products of bytes"),
    ],
)
def test_instructions_for_int8_are_told(
    tmp_path: Path, cpuinfo: str, status: str, found: str
) -> None:
    finding = named(look_at_host(machine(tmp_path, {"/proc/cpuinfo": cpuinfo}, {})), "int8")
    assert (finding.status, finding.found) == (status, found)


def test_a_processor_of_unknown_flags_claims_nothing(tmp_path: Path) -> None:
    findings = list(look_at_host(machine(tmp_path, {}, {})))
    assert "int8" not in [one.name for one in findings]
    assert named(findings, "processor").found


@pytest.mark.parametrize("permitted", [True, False])
def test_whether_a_server_may_be_realtime_is_tried(
    monkeypatch: pytest.MonkeyPatch, permitted: bool
) -> None:
    def schedule(*_: object) -> None:
        if not permitted:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", schedule)
    finding = look_at_priority()
    assert finding.status == ("ok" if permitted else "absent")
    assert ("LimitRTPRIO" in finding.mend) is not permitted


@pytest.mark.parametrize(
    ("answer", "status", "mend"),
    [("yes", "ok", ""), ("no", "warning", "sudo timedatectl set-ntp true"), ("", "ok", "")],
)
def test_a_clock_that_is_not_synchronised_comes_with_the_command(
    tmp_path: Path, answer: str, status: str, mend: str
) -> None:
    command = "timedatectl show --property=NTPSynchronized --value"
    finding = look_at_clock(machine(tmp_path, {}, {command: answer}))
    assert (finding.status, finding.mend) == (status, mend)


def test_a_desktops_gpu_is_told_with_driver_and_cuda(tmp_path: Path) -> None:
    probe = machine(tmp_path, {}, DESKTOP_COMMANDS, capability="sm89", cuda=(13, 0))
    finding = look_at_gpu(probe)
    assert finding.status == "ok"
    assert finding.found == (
        "NVIDIA GeForce RTX 4070, 580.95.05, 12282 MiB, compute capability sm89, "
        "driver for CUDA 13.0"
    )


@pytest.mark.parametrize("commands", [DESKTOP_COMMANDS, {}])
def test_a_gpu_that_cuda_does_not_find_is_no_gpu(tmp_path: Path, commands: dict[str, str]) -> None:
    finding = look_at_gpu(machine(tmp_path, {"/dev/nvidia0": ""}, commands))
    assert finding.status == "warning"
    assert "CUDA does not find it" in finding.found
    assert "libcuda.so.1" in finding.mend


def library(version: str, *targets: str) -> SimpleNamespace:
    known = SimpleNamespace(__members__={target.upper(): 1 for target in targets})
    return SimpleNamespace(__version__=version, ComputeCapability=known)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has both TensorRT libraries."""
    found = {
        "tensorrt": library("10.3.0"),
        "tensorrt-rtx": library("1.7.1", "sm86", "sm120"),
    }
    monkeypatch.setattr(engines, "load_library", lambda name: Library(name, found[name]))


@pytest.fixture
def neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has none."""

    def load(name: str) -> Library:
        raise MissingExtraError("tensorrt", name)

    monkeypatch.setattr(engines, "load_library", load)


@pytest.mark.parametrize(
    ("capability", "full", "rtx"),
    [
        (None, "10.3.0, and no GPU to run on", "1.7.1, compiles only, for sm86, sm120"),
        ("sm86", "10.3.0, runs plans on sm86", "1.7.1, runs plans on sm86"),
        ("sm87", "10.3.0, runs plans on sm87", "1.7.1 knows no sm87"),
    ],
)
@pytest.mark.usefixtures("both")
def test_what_runs_is_the_gpus_and_the_librarys(
    tmp_path: Path, capability: str | None, full: str, rtx: str
) -> None:
    findings = list(look_at_engines(machine(tmp_path, {}, {}, capability=capability)))
    assert named(findings, "tensorrt").found == full
    assert named(findings, "tensorrt-rtx").found == rtx
    assert named(findings, "onnxruntime").status == "ok"


@pytest.mark.usefixtures("neither")
def test_a_jetsons_own_tensorrt_is_seen_from_the_right_environment(tmp_path: Path) -> None:
    probe = machine(tmp_path, ORIN_NANO, {}, capability="sm87", cuda=(12, 6))
    finding = named(look_at_engines(probe), "tensorrt")
    assert finding.status == "warning"
    assert finding.mend == "make it anew: python3 -m venv --system-site-packages .venv"
    assert named(look_at_engines(probe), "tensorrt-rtx").found == "not for Jetsons"


@pytest.mark.usefixtures("neither")
def test_a_gpu_without_libraries_comes_with_their_pip_line(tmp_path: Path) -> None:
    findings = list(look_at_engines(machine(tmp_path, {}, {}, capability="sm89")))
    for name in ("tensorrt", "tensorrt-rtx"):
        assert named(findings, name).mend == "pip install 'limpet[tensorrt]'"


@pytest.mark.parametrize(
    ("version", "cuda", "problem", "status", "mend"),
    [
        ("12.9.4", (12, 6), "", "ok", ""),
        ("13.5.0", (12, 6), "", "warning", "pip install 'cuda-python==12.*'"),
        (None, (12, 6), "", "absent", "pip install 'cuda-python==12.*'"),
        (None, (13, 0), "", "absent", "pip install 'cuda-python==13.*'"),
        ("12.9.4", (13, 0), "libcudart.so: gone", "warning", "pip install 'cuda-python==13.*'"),
    ],
)
@pytest.mark.usefixtures("both")
def test_cuda_python_has_to_fit_the_driver(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
    cuda: tuple[int, int],
    problem: str,
    status: str,
    mend: str,
) -> None:
    monkeypatch.setattr(extras, "installed_version", lambda name: version)
    probe = machine(tmp_path, {}, {}, capability="sm87", cuda=cuda, problem=problem)
    finding = named(look_at_engines(probe), "cuda-python")
    assert (finding.status, finding.mend) == (status, mend)


def test_system_libraries_that_open3d_lacks_come_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = tmp_path / "open3d" / "__init__.py"
    origin.parent.mkdir()
    own = origin.parent / "libOpen3D.so.0.20"
    own.touch()
    monkeypatch.setattr(
        packages.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(origin))
    )
    told = (
        "\tlinux-vdso.so.1 (0x7fff)\n\tlibGL.so.1 => not found\n"
        "\tlibm.so.6 => /lib/libm.so.6 (0x7f)\n\tlibusb-1.0.so.0 => not found"
    )
    finding = named(look_at_extras(machine(tmp_path, {}, {f"ldd {own}": told})), "training")
    assert finding.status == "warning"
    assert finding.found == "Open3D lacks libGL.so.1, libusb-1.0.so.0 of the system"
    assert finding.mend == "sudo apt install libgl1 libusb-1.0-0"
    assert named(look_at_extras(machine(tmp_path, {}, {})), "training").status == "ok"


def test_commands_that_fail_or_are_not_here_say_nothing() -> None:
    probe = Probe()
    assert probe.run(["true"]) == ""
    assert probe.run(["false"]) == ""
    assert probe.run(["no-such-command-anywhere"]) == ""
    assert probe.run(["echo", "here"]) == "here"
    assert probe.problem("no_such_module") == "No module named 'no_such_module'"
    assert probe.problem("json") == ""
