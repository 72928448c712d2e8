"""Python, system, processor, memory and clock."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator

from limpet.runtime.diagnosis.finding import Finding
from limpet.runtime.diagnosis.probe import Probe
from limpet.runtime.placement import may_be_realtime

INT8_FLAGS = {
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "amx_int8": "AMX",
    "asimddp": "dot product",
    "i8mm": "I8MM",
}
"""Flags in /proc/cpuinfo of instructions that multiply and add bytes, x86 and Arm: ONNX Runtime's
kernels use them, and without one int8 is hardly faster than float32."""


def look_at_host(probe: Probe) -> Iterator[Finding]:
    """What the robot part stands on."""
    python = f"{platform.python_version()}, {sys.executable}"
    yield Finding("machine", "python", "ok", python)
    system = f"{platform.platform(terse=True)}, {platform.machine()}"
    if platform.system() == "Linux":
        yield Finding("machine", "system", "ok", system)
    else:
        yield Finding("machine", "system", "warning", system, "limpet is tested on Linux only")
    yield from _processor(probe)
    if memory := _memory(probe):
        yield Finding("machine", "memory", "ok", memory)


def look_at_clock(probe: Probe) -> Finding:
    """Ages hold without it (clients measure their offset); wall-clock times of alerts do not."""
    if probe.has("/run/systemd/timesync/synchronized"):
        return Finding("machine", "clock", "ok", "synchronised")
    answer = probe.run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if answer == "yes":
        return Finding("machine", "clock", "ok", "synchronised")
    if answer == "no":
        mend = "sudo timedatectl set-ntp true"
        return Finding("machine", "clock", "warning", "not synchronised", mend)
    return Finding("machine", "clock", "ok", "nothing here tells whether it is synchronised")


def look_at_priority() -> Finding:
    """Whether `realtime_priority` of a server's configuration would be permitted."""
    if may_be_realtime():
        return Finding("machine", "realtime", "ok", "SCHED_FIFO is permitted")
    return Finding(
        "machine", "realtime", "absent", "SCHED_FIFO is not permitted: no realtime_priority",
        "ulimit -r 10 as root, LimitRTPRIO=10 in a systemd unit, or the capability CAP_SYS_NICE",
    )  # fmt: skip


def _processor(probe: Probe) -> Iterator[Finding]:
    values: dict[str, str] = {}
    for line in probe.read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip().lower(), value.strip())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = values.get("model name") or platform.machine()
    yield Finding("machine", "processor", "ok", f"{cores} cores, {name}")
    flags = f"{values.get('flags', '')} {values.get('features', '')}".split()
    if int8 := [text for flag, text in INT8_FLAGS.items() if flag in flags]:
        yield Finding("machine", "int8", "ok", f"products of bytes: {', '.join(int8)}")
    elif flags:
        found = "no instructions for products of bytes"
        mend = "serve fp32 on the CPU; int8 bundles run, but hardly faster"
        yield Finding("machine", "int8", "absent", found, mend)


def _memory(probe: Probe) -> str:
    lines = probe.read("/proc/meminfo").splitlines()
    kilobytes = {line.partition(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    if not {"MemTotal", "MemAvailable"} <= set(kilobytes):
        return ""
    total, free = (int(kilobytes[name]) / 2**20 for name in ("MemTotal", "MemAvailable"))
    return f"{total:.1f} GiB, {free:.1f} GiB available"
