"""Machines made of a few files, commands and a driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from limpet.runtime.diagnosis.probe import Probe

NVPMODEL = """
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
CPU_ONLINE CORE_0 1
< PM_CONFIG DEFAULT=1 >
"""
CPU, GPU = "/sys/devices/system/cpu/cpu0/cpufreq", "/sys/class/devfreq/17000000.gpu"
ORIN_NANO = {
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit\0",
    "/etc/nv_tegra_release": (
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
        "DATE: Wed Jan  8 01:49:37 UTC 2025\n"
    ),
    "/etc/nvpmodel.conf": NVPMODEL,
    "/proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8\nFeatures\t: fp asimd asimddp\n",
    f"{CPU}/scaling_min_freq": "1728000\n",
    f"{CPU}/scaling_max_freq": "1728000\n",
    f"{GPU}/min_freq": "1020000000\n",
    f"{GPU}/max_freq": "1020000000\n",
    "/usr/lib/python3.10/dist-packages/tensorrt/__init__.py": "",
}
"""A Jetson Orin Nano with JetPack 6.2, its clocks fixed."""
ORIN_COMMANDS = {
    "nvpmodel -q": "NV Power Mode: MAXN_SUPER\n2",
    "dpkg-query --show --showformat=${Version} nvidia-jetpack": "6.2+b77",
}
DESKTOP_COMMANDS = {
    "nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader": (
        "NVIDIA GeForce RTX 4070, 580.95.05, 12282 MiB"
    ),
}


def machine(
    root: Path,
    files: Mapping[str, str],
    commands: Mapping[str, str],
    *,
    capability: str | None = None,
    cuda: tuple[int, int] | None = None,
    problem: str = "",
) -> Probe:
    """A machine: files under `root`, what commands print, and what the GPU's driver says."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(command: Sequence[str]) -> str:
        return commands.get(" ".join(command), "")

    return Probe(root, run, lambda: capability, lambda: cuda, lambda module: problem)
