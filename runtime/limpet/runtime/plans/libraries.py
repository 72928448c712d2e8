"""TensorRT and TensorRT for RTX, which share an interface."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any, Literal

from limpet.contracts.errors import ImpossibleHereError, MissingExtraError, UsageError
from limpet.runtime.plans.devices import gpu_capability

Compiler = Literal["tensorrt", "tensorrt-rtx"]

_MODULES: dict[Compiler, str] = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}


@dataclass(frozen=True)
class Library:
    """A TensorRT library, loaded.

    Attributes:
        name: Which of the two.
        trt: Its module.
    """

    name: Compiler
    trt: Any

    @property
    def version(self) -> str:
        """Its version; a plan runs with no other."""
        return str(self.trt.__version__)

    def targets(self) -> dict[str, Any]:
        """GPUs that it can build for without having them, by name (`sm86`)."""
        known = getattr(self.trt, "ComputeCapability", None)
        if self.name == "tensorrt" or known is None:
            return {}
        return {
            name.lower(): value
            for name, value in known.__members__.items()
            if name.startswith("SM")
        }

    def target(self, wanted: str) -> str:
        """The compute capability that `--target` means.

        Args:
            wanted: `current`, or a compute capability in any case (`sm86`, `SM86`).

        Raises:
            UsageError: It is neither.
            ImpossibleHereError: No such GPU is here, and the library cannot build without it.
        """
        wanted = wanted.lower()
        if wanted != "current" and not re.fullmatch(r"sm\d{2,3}", wanted):
            raise UsageError(
                f"--target {wanted} is no GPU",
                "say current, or a compute capability such as sm86, sm89 or sm120",
            )
        here, known = gpu_capability(), self.targets()
        listed = self._listed()
        if wanted == "current":
            if here is None:
                raise ImpossibleHereError(
                    "compiling for the GPU of this machine: it has none, or no NVIDIA driver",
                    f"name one with --target: {listed}"
                    if known
                    else "compile on the device that will serve the bundle",
                )
            wanted = here
        if self.name == "tensorrt" and wanted != here:
            raise ImpossibleHereError(
                f"TensorRT builds only for the GPU it runs on, which is {here or 'absent'}, "
                f"not for {wanted}",
                "compile on the device that will serve the bundle, or say --engine tensorrt-rtx",
            )
        if self.name == "tensorrt-rtx" and wanted not in known:
            raise ImpossibleHereError(
                f"TensorRT for RTX {self.version} knows no {wanted}, only {listed}",
                "compile with --engine tensorrt on that device",
            )
        return wanted

    def runs_on(self) -> str:
        """The compute capability of this machine's GPU, which is to run a plan.

        Raises:
            ImpossibleHereError: There is none, or the library does not know it.
        """
        here = require_gpu(self.name)
        if self.name == "tensorrt-rtx" and here not in self.targets():
            raise ImpossibleHereError(
                f"TensorRT for RTX {self.version} does not run on {here}, only on {self._listed()}",
                "take engine tensorrt, or onnxruntime",
            )
        return here

    def _listed(self) -> str:
        return ", ".join(sorted(self.targets(), key=lambda name: int(name[2:])))


def require_gpu(
    engine: Compiler,
    hint: str = "run it on the device that will serve the bundle; here engine onnxruntime runs",
) -> str:
    """The compute capability of this machine's GPU.

    Args:
        engine: What needs it.
        hint: What to do where there is none.

    Raises:
        ImpossibleHereError: It has none.
    """
    here = gpu_capability()
    if here is None:
        raise ImpossibleHereError(
            f"{engine} runs on an NVIDIA GPU, and this machine has none, or no NVIDIA driver",
            hint,
        )
    return here


def error_log(trt: Any) -> Any:
    """A logger that keeps the library's last error as `worst`; its notes tell a user nothing."""

    class ErrorLog(trt.ILogger):  # type: ignore[misc]  # an unknown library's class
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.worst = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.worst = message

    return ErrorLog()


def usual_compiler() -> Compiler:
    """The one that compiles for this machine: TensorRT for RTX where it is installed and knows the
    GPU, or there is none; else TensorRT, which a Jetson has.
    """
    here = gpu_capability()
    for name in _MODULES:
        try:
            library = load_library(name)
        except MissingExtraError:
            continue
        if here is None or not library.targets() or here in library.targets():
            return name
    return "tensorrt-rtx"


def load_library(name: Compiler) -> Library:
    """Loads one of the two.

    Raises:
        MissingExtraError: It is not installed, or only its bindings are.
    """
    try:
        return Library(name, importlib.import_module(_MODULES[name]))
    except (ImportError, OSError) as error:
        missing = MissingExtraError("tensorrt", _MODULES[name])
        if name == "tensorrt":
            missing.hint = (
                "pip install tensorrt; on a Jetson JetPack has it: make the environment with "
                "--system-site-packages"
            )
        raise missing from error
