"""A Jetson: which board, which JetPack, and whether it may run at full speed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from limpet.runtime.diagnosis.finding import Finding
from limpet.runtime.diagnosis.probe import Probe

JETPACKS = {"35": "5", "36": "6", "38": "7"}
"""JetPack by the first number of Jetson Linux (L4T)."""
OLDEST = (36, 4)
"""Jetson Linux of JetPack 6.1, the first with TensorRT 10.3."""


def is_jetson(probe: Probe) -> bool:
    """By its device tree, or the file that Jetson Linux leaves."""
    return "Jetson" in _model(probe) or bool(probe.read("/etc/nv_tegra_release"))


def look_at_jetson(probe: Probe) -> Iterator[Finding]:
    """Board, Jetson Linux, power mode and clocks."""
    yield Finding("jetson", "board", "ok", _model(probe) or "unknown")
    yield _release(probe)
    yield _jetpack(probe)
    yield _power(probe)
    yield _clocks(probe)


def _model(probe: Probe) -> str:
    return probe.read("/proc/device-tree/model")


def _release(probe: Probe) -> Finding:
    text = probe.read("/etc/nv_tegra_release")
    found = re.search(r"R(\d+) \(release\), REVISION: (\d+)((?:\.\d+)*)", text)
    if found is None:
        mend = "look at /etc/nv_tegra_release: this may be a container without it"
        return Finding("jetson", "l4t", "warning", "which Jetson Linux this is, is unknown", mend)
    version = f"{found[1]}.{found[2]}{found[3]}"
    jetpack = JETPACKS.get(found[1])
    name = f"Jetson Linux {version}" + (f", JetPack {jetpack}" if jetpack else "")
    if (int(found[1]), int(found[2])) < OLDEST:
        mend = "flash JetPack 6.1 or later: before, there is no TensorRT 10.3"
        return Finding("jetson", "l4t", "warning", name, mend)
    return Finding("jetson", "l4t", "ok", name)


def _jetpack(probe: Probe) -> Finding:
    """The meta package that brings CUDA and TensorRT; a freshly flashed board may lack it."""
    query = ["dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack"]
    if version := probe.run(query):
        return Finding("jetson", "jetpack", "ok", version)
    if probe.find("/usr/lib/python3*/dist-packages/tensorrt"):
        return Finding("jetson", "jetpack", "ok", "its TensorRT is here, nvidia-jetpack is not")
    mend = "sudo apt update && sudo apt install nvidia-jetpack"
    return Finding("jetson", "jetpack", "absent", "no CUDA and TensorRT: ONNX Runtime only", mend)


def _power(probe: Probe) -> Finding:
    answer = re.search(r"NV Power Mode:\s*(\S+)", probe.run(["nvpmodel", "-q"]))
    if answer is None:
        return Finding("jetson", "power", "warning", "unknown", "look at: sudo nvpmodel -q")
    modes = {
        name: number
        for number, name in re.findall(
            r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>",
            probe.read("/etc/nvpmodel.conf"),
            re.MULTILINE,
        )
    }
    full = [name for name in modes if name.startswith("MAXN")]
    if answer[1].startswith("MAXN") or not full:
        return Finding("jetson", "power", "ok", f"mode {answer[1]}")
    best = max(full, key=len)  # MAXN_SUPER, where a board has it beside MAXN
    mend = f"sudo nvpmodel -m {modes[best]}  ({best}: as fast as it gets, if power and heat allow)"
    return Finding("jetson", "power", "warning", f"mode {answer[1]} limits clocks and cores", mend)


def _clocks(probe: Probe) -> Finding:
    """`jetson_clocks` raises the least frequency of each clock to its largest."""
    loose = []
    for folder, least, most in (
        ("/sys/devices/system/cpu/cpu[0-9]*/cpufreq", "scaling_min_freq", "scaling_max_freq"),
        ("/sys/class/devfreq/*gpu*", "min_freq", "max_freq"),
        ("/sys/class/devfreq/*ga10b*", "min_freq", "max_freq"),
        ("/sys/class/devfreq/*gb10b*", "min_freq", "max_freq"),
    ):
        for clock in probe.find(folder):
            low, high = probe.read(f"{clock}/{least}"), probe.read(f"{clock}/{most}")
            if low and low != high:
                loose.append(clock)
    if not loose:
        return Finding("jetson", "clocks", "ok", "fixed, or nothing here tells")
    found = f"{len(loose)} follow the load, so the first requests after a pause take longer"
    return Finding("jetson", "clocks", "warning", found, "sudo jetson_clocks")
