"""What pip installed, and the system libraries that it cannot."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from limpet.runtime import extras
from limpet.runtime.diagnosis.finding import Finding
from limpet.runtime.diagnosis.probe import Probe

OPEN3D = ("open3d", "open3d-cpu")
APT = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libX11.so.6": "libx11-6",
    "libgomp.so.1": "libgomp1",
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libudev.so.1": "libudev1",
    "libidn2.so.0": "libidn2-0",
    "libc++.so.1": "libc++1",
    "libc++abi.so.1": "libc++abi1",
}
"""Debian's and Ubuntu's package of each library that Open3D's wheel expects of the system."""


def look_at_dependencies(probe: Probe) -> Iterator[Finding]:
    """What the robot part cannot do without."""
    for name, versions in extras.requirements()[""].items():
        version = extras.installed_version(name)
        mend = f"pip install '{name}{versions}'"
        if version is None:
            yield Finding("dependencies", name, "failed", "not installed", mend)
        elif not extras.satisfies(version, versions):
            yield Finding("dependencies", name, "failed", f"{version}, wanted {versions}", mend)
        elif problem := probe.problem(extras.module_of(name)):
            mend = f"pip install --force-reinstall '{name}{versions}'"
            yield Finding("dependencies", name, "failed", f"{version}: {problem}", mend)
        else:
            yield Finding("dependencies", name, "ok", version)


def look_at_extras(probe: Probe) -> Iterator[Finding]:
    """What commands beyond the robot part need."""
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
            continue
        found = ", ".join(f"{name} {version}" for name, version in versions.items())
        lacking = _lacking(probe) if set(OPEN3D) & set(wanted) else []
        if lacking:
            packages = sorted({APT.get(library, library) for library in lacking})
            found = f"Open3D lacks {', '.join(lacking)} of the system"
            mend = f"sudo apt install {' '.join(packages)}"
            yield Finding("extras", extra, "warning", found, mend)
        else:
            yield Finding("extras", extra, "ok", found)


def _lacking(probe: Probe) -> list[str]:
    """Libraries that Open3D's own would not find, without loading them, which takes seconds."""
    spec = importlib.util.find_spec("open3d")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent
    lacking: list[str] = []
    for library in sorted((*folder.glob("libOpen3D.so*"), *folder.glob("cpu/*.so"))):
        for line in probe.run(["ldd", str(library)]).splitlines():
            name, _, where = line.strip().partition(" => ")
            if where.startswith("not found") and name not in lacking:
                lacking.append(name)
    return lacking
