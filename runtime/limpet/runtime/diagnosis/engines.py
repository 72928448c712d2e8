"""What runs a model here: ONNX Runtime, and TensorRT where there is a GPU."""

from __future__ import annotations

from collections.abc import Iterator

from limpet.contracts.errors import LimpetError, MissingExtraError
from limpet.runtime import extras
from limpet.runtime.diagnosis.finding import Finding
from limpet.runtime.diagnosis.jetson import is_jetson
from limpet.runtime.diagnosis.probe import Probe
from limpet.runtime.plans.libraries import Compiler, load_library

ENGINES: tuple[Compiler, ...] = ("tensorrt", "tensorrt-rtx")


def look_at_engines(probe: Probe) -> Iterator[Finding]:
    """Each engine: whether it runs, compiles only, or is not here."""
    try:
        import onnxruntime
    except (ImportError, OSError):
        pass  # told among the dependencies
    else:
        providers = ", ".join(onnxruntime.get_available_providers())
        yield Finding("engines", "onnxruntime", "ok", providers)
    for name in ENGINES:
        yield _tensorrt(probe, name)
    if probe.capability() is not None:
        yield _cuda_python(probe)


def _tensorrt(probe: Probe, name: Compiler) -> Finding:
    here = probe.capability()
    try:
        library = load_library(name)
    except MissingExtraError as missing:
        return _missing(probe, name, missing)
    except LimpetError as error:
        return Finding("engines", name, "warning", error.message, error.hint)
    known = library.targets()
    if here is None:
        if not known:
            return Finding("engines", name, "absent", f"{library.version}, and no GPU to run on")
        targets = ", ".join(sorted(known, key=lambda target: int(target[2:])))
        return Finding("engines", name, "ok", f"{library.version}, compiles only, for {targets}")
    if known and here not in known:
        mend = "take engine tensorrt, or onnxruntime"
        return Finding("engines", name, "warning", f"{library.version} knows no {here}", mend)
    return Finding("engines", name, "ok", f"{library.version}, runs plans on {here}")


def _missing(probe: Probe, name: Compiler, missing: MissingExtraError) -> Finding:
    """Not installed; a Jetson has TensorRT outside of the environment."""
    if name == "tensorrt" and is_jetson(probe):
        if probe.find("/usr/lib/python3*/dist-packages/tensorrt"):
            found = "the system has it, this environment does not see it"
            mend = "make it anew: python3 -m venv --system-site-packages .venv"
            return Finding("engines", name, "warning", found, mend)
        mend = "sudo apt install python3-libnvinfer"
        return Finding("engines", name, "absent", "not installed", mend)
    if name == "tensorrt-rtx" and is_jetson(probe):
        return Finding("engines", name, "absent", "not for Jetsons")
    if probe.capability() is None and name == "tensorrt":
        return Finding("engines", name, "absent", "not installed, and no GPU to run on")
    return Finding("engines", name, "absent", "not installed", missing.hint)


def _cuda_python(probe: Probe) -> Finding:
    """Newer than the driver it fails, so it has to be chosen by the driver."""
    cuda, version = probe.cuda(), extras.installed_version("cuda-bindings")
    major = cuda[0] if cuda else 12
    mend = f"pip install 'cuda-python=={major}.*'"
    if version is None:
        return Finding("engines", "cuda-python", "absent", "not installed: no plan can run", mend)
    if cuda is not None and int(version.partition(".")[0]) > major:
        found = f"{version} is newer than the driver, which knows CUDA {cuda[0]}.{cuda[1]}"
        return Finding("engines", "cuda-python", "warning", found, mend)
    if problem := probe.problem("cuda.bindings.runtime"):
        return Finding("engines", "cuda-python", "warning", f"{version}: {problem}", mend)
    return Finding("engines", "cuda-python", "ok", version)
