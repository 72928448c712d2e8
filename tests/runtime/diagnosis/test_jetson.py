"""A Jetson's board, JetPack, power mode and clocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.runtime.commands.doctor import diagnose
from limpet.runtime.diagnosis.finding import Finding
from limpet.runtime.diagnosis.graphics import look_at_gpu
from limpet.runtime.diagnosis.jetson import is_jetson, look_at_jetson
from tests.runtime.diagnosis.machines import CPU, GPU, ORIN_COMMANDS, ORIN_NANO, machine


def looked_at(
    root: Path, files: dict[str, str] | None = None, commands: dict[str, str] | None = None
) -> dict[str, Finding]:
    probe = machine(
        root, {**ORIN_NANO, **(files or {})}, ORIN_COMMANDS if commands is None else commands
    )
    assert is_jetson(probe)
    return {finding.name: finding for finding in look_at_jetson(probe)}


def test_a_board_as_it_should_be_needs_nothing(tmp_path: Path) -> None:
    found = looked_at(tmp_path)
    assert {name: one.found for name, one in found.items()} == {
        "board": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit",
        "l4t": "Jetson Linux 36.4.3, JetPack 6",
        "jetpack": "6.2+b77",
        "power": "mode MAXN_SUPER",
        "clocks": "fixed, or nothing here tells",
    }
    assert all(one.status == "ok" and not one.mend for one in found.values())


@pytest.mark.parametrize(
    ("release", "found", "status"),
    [
        ("# R35 (release), REVISION: 6.1, GCID: 1", "Jetson Linux 35.6.1, JetPack 5", "warning"),
        ("# R36 (release), REVISION: 3.0, GCID: 1", "Jetson Linux 36.3.0, JetPack 6", "warning"),
        ("# R36 (release), REVISION: 4.0, GCID: 1", "Jetson Linux 36.4.0, JetPack 6", "ok"),
        ("# R38 (release), REVISION: 2.0, GCID: 1", "Jetson Linux 38.2.0, JetPack 7", "ok"),
        ("# R40 (release), REVISION: 1, GCID: 1", "Jetson Linux 40.1", "ok"),
        ("", "which Jetson Linux this is, is unknown", "warning"),
    ],
)
def test_jetson_linux_older_than_jetpack_6_1_is_told(
    tmp_path: Path, release: str, found: str, status: str
) -> None:
    finding = looked_at(tmp_path, {"/etc/nv_tegra_release": release})["l4t"]
    assert (finding.found, finding.status) == (found, status)


def test_a_board_without_jetpacks_packages_comes_with_their_command(tmp_path: Path) -> None:
    files = {name: text for name, text in ORIN_NANO.items() if "tensorrt" not in name}
    probe = machine(tmp_path, files, {})
    (finding,) = [one for one in look_at_jetson(probe) if one.name == "jetpack"]
    assert finding.status == "absent"
    assert finding.mend == "sudo apt update && sudo apt install nvidia-jetpack"


def test_a_power_mode_below_the_largest_comes_with_the_command(tmp_path: Path) -> None:
    commands = {**ORIN_COMMANDS, "nvpmodel -q": "NV Power Mode: 15W\n0"}
    finding = looked_at(tmp_path, commands=commands)["power"]
    assert finding.status == "warning"
    assert finding.found == "mode 15W limits clocks and cores"
    assert finding.mend.startswith("sudo nvpmodel -m 2  (MAXN_SUPER")


def test_a_power_mode_that_nothing_tells_is_no_mode(tmp_path: Path) -> None:
    finding = looked_at(tmp_path, commands={})["power"]
    assert (finding.status, finding.mend) == ("warning", "look at: sudo nvpmodel -q")


@pytest.mark.parametrize("clock", [f"{CPU}/scaling_min_freq", f"{GPU}/min_freq"])
def test_clocks_that_follow_the_load_are_told(tmp_path: Path, clock: str) -> None:
    finding = looked_at(tmp_path, {clock: "306000000\n"})["clocks"]
    assert finding.status == "warning"
    assert finding.found.startswith("1 follow the load")
    assert finding.mend == "sudo jetson_clocks"


def test_its_gpu_is_the_drivers_word(tmp_path: Path) -> None:
    probe = machine(tmp_path, ORIN_NANO, {}, capability="sm87", cuda=(12, 6))
    finding = look_at_gpu(probe)
    assert finding.found == "a Jetson's, compute capability sm87, driver for CUDA 12.6"
    finding = look_at_gpu(machine(tmp_path, ORIN_NANO, {}))
    assert (finding.status, "--runtime nvidia" in finding.mend) == ("warning", True)


def test_the_whole_report_has_its_group(tmp_path: Path) -> None:
    probe = machine(tmp_path, ORIN_NANO, ORIN_COMMANDS, capability="sm87", cuda=(12, 6))
    report = diagnose(probe, tmp_path)
    groups = list(dict.fromkeys(finding.group for finding in report.findings))
    assert groups == [
        *("machine", "jetson", "dependencies", "extras", "engines", "sockets", "state"),
    ]
    assert report.ok


def test_another_machine_is_no_jetson(tmp_path: Path) -> None:
    assert not is_jetson(machine(tmp_path, {"/proc/device-tree/model": "Raspberry Pi 5\0"}, {}))
