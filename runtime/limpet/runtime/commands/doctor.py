"""`limpet doctor`: what this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import click
import msgspec

from limpet.contracts.reports import format_table, write_json
from limpet.runtime import extras
from limpet.runtime.commands import json_option
from limpet.runtime.machine import processor_name

TIMESYNC_FLAG = Path("/run/systemd/timesync/synchronized")
FSYNC_RUNS = 20
SLOW_FSYNC_MS = 50.0
"""Median above which waiting for the alert log shows in a stream's latency."""
LITTLE_DISK_GB = 1.0

Status = Literal["ok", "absent", "warning", "failed"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        group: `machine`, `dependencies`, `extras`, `engines`, `sockets` or `state`.
        name: What.
        status: `absent` is optional and not here; `warning` works, with a drawback; `failed`
            keeps a robot from running.
        found: What there is.
        mend: The command, or what to do; empty where nothing needs to be done.
    """

    group: str
    name: str
    status: Status
    found: str
    mend: str = ""


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet doctor --json` writes.

    Attributes:
        ok: Whether the robot part can run here.
        version: limpet's.
        findings: Everything that was looked at.
    """

    ok: bool
    version: str
    findings: list[Finding]


@click.command("doctor")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Folder whose disk would hold the alert log  [default: here].",
)
@json_option
def command(state_dir: Path, json_file: Path | None) -> None:
    """Show what this machine has, what it lacks, and the command that mends it.

    Exits with 1 when something keeps the robot part from running here.

    --json writes: ok, version, and findings, a list of {group, name, status, found, mend}; status
    is ok, absent (optional), warning or failed.
    """
    findings = [
        *_machine(), *_dependencies(), *_extras(), *_engines(), *_sockets(), *_state(state_dir),
    ]  # fmt: skip
    report = DoctorReport(
        ok=all(finding.status != "failed" for finding in findings),
        version=extras.installed_version("limpet") or "",
        findings=findings,
    )
    if not write_json(json_file, report):
        click.echo(_describe(report))
    if not report.ok:
        raise click.exceptions.Exit(1)


def _machine() -> Iterator[Finding]:
    python = f"{platform.python_version()}, {sys.executable}"
    yield Finding("machine", "python", "ok", python)
    system = f"{platform.platform(terse=True)}, {platform.machine()}"
    if platform.system() == "Linux":
        yield Finding("machine", "system", "ok", system)
    else:
        yield Finding("machine", "system", "warning", system, "limpet is tested on Linux only")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("machine", "processor", "ok", f"{cores} cores, {processor_name()}")
    if memory := _memory():
        yield Finding("machine", "memory", "ok", memory)
    yield _gpu()
    yield _clock()


def _memory() -> str:
    lines = _read(Path("/proc/meminfo")).splitlines()
    kilobytes = {line.partition(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    if not {"MemTotal", "MemAvailable"} <= set(kilobytes):
        return ""
    total, free = (int(kilobytes[name]) / 2**20 for name in ("MemTotal", "MemAvailable"))
    return f"{total:.1f} GiB, {free:.1f} GiB available"


def _gpu() -> Finding:
    """A Jetson says what it is in its device tree; elsewhere NVIDIA's driver has a command."""
    model = _read(Path("/proc/device-tree/model")).strip("\0\n ")
    release = _read(Path("/etc/nv_tegra_release")).partition("\n")[0]
    if release or "Jetson" in model:
        return Finding("machine", "gpu", "ok", ", ".join(filter(None, [model, release])))
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if names := _output(query):
        return Finding("machine", "gpu", "ok", "; ".join(names.splitlines()))
    if any(Path("/dev").glob("nvidia[0-9]*")):
        mend = "look at what nvidia-smi says, and install the NVIDIA driver's tools"
        return Finding("machine", "gpu", "warning", "a device, but nvidia-smi does not run", mend)
    return Finding("machine", "gpu", "absent", "none; ONNX Runtime serves on the CPU")


def _clock() -> Finding:
    """Ages hold without it (clients measure their offset); wall-clock times of alerts do not."""
    mend = "sudo timedatectl set-ntp true"
    if TIMESYNC_FLAG.exists():
        return Finding("machine", "clock", "ok", "synchronised")
    answer = _output(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if answer == "yes":
        return Finding("machine", "clock", "ok", "synchronised")
    if answer == "no":
        return Finding("machine", "clock", "warning", "not synchronised", mend)
    return Finding("machine", "clock", "ok", "nothing here tells whether it is synchronised")


def _dependencies() -> Iterator[Finding]:
    for name, versions in extras.requirements()[""].items():
        version = extras.installed_version(name)
        mend = f"pip install '{name}{versions}'"
        if version is None:
            yield Finding("dependencies", name, "failed", "not installed", mend)
        elif not extras.satisfies(version, versions):
            yield Finding("dependencies", name, "failed", f"{version}, wanted {versions}", mend)
        elif problem := _import_problem(extras.module_of(name)):
            mend = f"pip install --force-reinstall '{name}{versions}'"
            yield Finding("dependencies", name, "failed", f"{version}: {problem}", mend)
        else:
            yield Finding("dependencies", name, "ok", version)


def _extras() -> Iterator[Finding]:
    for extra, wanted in extras.requirements().items():
        if not extra:
            continue
        versions = {name: extras.installed_version(name) for name in wanted}
        missing = [
            f"{name}{wanted[name]}" + (f" (found {version})" if version else "")
            for name, version in versions.items()
            if version is None or not extras.satisfies(version, wanted[name])
        ]
        if missing:
            mend = f"pip install 'limpet[{extra}]'"
            yield Finding("extras", extra, "absent", f"lacks {', '.join(missing)}", mend)
        else:
            found = ", ".join(f"{name} {version}" for name, version in versions.items())
            yield Finding("extras", extra, "ok", found)


def _engines() -> Iterator[Finding]:
    try:
        import onnxruntime
    except (ImportError, OSError):
        return  # told among the dependencies
    providers = onnxruntime.get_available_providers()
    yield Finding("engines", "onnxruntime", "ok", ", ".join(providers))


def _sockets() -> Iterator[Finding]:
    try:
        import zmq
    except (ImportError, OSError):
        return
    with tempfile.TemporaryDirectory(prefix="limpet-") as folder, zmq.Context() as context:
        for name, endpoint in (("tcp", "tcp://127.0.0.1:*"), ("ipc", f"ipc://{folder}/socket")):
            try:
                with context.socket(zmq.ROUTER) as socket:
                    socket.bind(endpoint)
            except zmq.ZMQError as error:
                mend = "allow loopback connections" if name == "tcp" else "use tcp:// endpoints"
                status: Status = "failed" if name == "tcp" else "warning"
                yield Finding("sockets", name, status, f"{endpoint}: {error}", mend)
            else:
                yield Finding("sockets", name, "ok", f"binds {endpoint.partition('://')[0]}://")


def _state(folder: Path) -> Iterator[Finding]:
    folder = folder.absolute()
    folder = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    try:
        free_gb = shutil.disk_usage(folder).free / 1e9
        fsync_ms = _fsync_ms(folder)
    except OSError as error:
        mend = "choose a folder that can be written: state_dir in the configuration"
        yield Finding("state", "disk", "failed", f"{folder}: {error.strerror}", mend)
        return
    disk = f"{free_gb:.1f} GB free at {folder}"
    if free_gb < LITTLE_DISK_GB:
        yield Finding("state", "disk", "warning", disk, "free some space for the alert log")
    else:
        yield Finding("state", "disk", "ok", disk)
    fsync = f"{fsync_ms:.2g} ms (median of {FSYNC_RUNS})"
    if fsync_ms > SLOW_FSYNC_MS:
        mend = "put state_dir on a faster disk: every alert waits for this"
        yield Finding("state", "fsync", "warning", fsync, mend)
    else:
        yield Finding("state", "fsync", "ok", fsync)


def _fsync_ms(folder: Path) -> float:
    """Median time of one durable 4 KiB write."""
    times_s = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(FSYNC_RUNS):
            start_s = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - start_s)
    return sorted(times_s)[FSYNC_RUNS // 2] * 1e3


def _import_problem(module: str) -> str:
    """Why a module cannot be imported (a library of another system, say), empty if it can."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:
        return str(error).partition("\n")[0]
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _output(command: list[str]) -> str:
    """What a command prints, empty where it is not here or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _describe(report: DoctorReport) -> str:
    rows = []
    group = ""
    for finding in report.findings:
        shown = finding.group if finding.group != group else ""
        group = finding.group
        rows.append([shown, finding.name, finding.status, finding.found])
    mends = [f"  {f.name}: {f.mend}" for f in report.findings if f.mend]
    lines = [f"limpet {report.version}", "", format_table(rows[0], rows[1:])]
    if mends:
        lines += ["", "To mend or add:", *mends]
    lines += [
        "",
        "The robot part can run here." if report.ok else "The robot part CANNOT run here.",
    ]
    return "\n".join(lines)
