"""What machine a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def describe_machine() -> dict[str, str | int]:
    """Processor, cores, system and the versions of what serves."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count() or 0,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{name: version(name) for name in ("limpet", "onnxruntime", "pyzmq", "numpy")},
    }


def processor_name() -> str:
    """The name that Linux knows, else the architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
