"""What a plan is for, and the sidecar that says so."""

from __future__ import annotations

import msgspec

from limpet.contracts.bundle import MODEL, Bundle
from limpet.contracts.manifest import Precision
from limpet.runtime.plans.libraries import Compiler
from limpet.runtime.plans.profiles import Sizes

_NAMES = {
    "compute_capability": "GPU",
    "engine": "engine",
    "library_version": "TensorRT version",
    "onnx_sha256": "graph",
    "precision": "precision",
}


class PlanKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plan depends on: it runs where all of it is the same, and nowhere else.

    Attributes:
        onnx_sha256: SHA-256 of `model.onnx`.
        compute_capability: Of the GPU (`sm86`).
        engine: `tensorrt` or `tensorrt-rtx`.
        library_version: Of that library.
        precision: Of the graph.
    """

    onnx_sha256: str
    compute_capability: str
    engine: Compiler
    library_version: str
    precision: Precision

    @property
    def file_name(self) -> str:
        """Name of the plan in `engines/`."""
        parts = (self.onnx_sha256[:16], self.compute_capability, self.engine)
        return "-".join((*parts, self.library_version, self.precision)) + ".plan"

    def differences(self, other: PlanKey) -> list[str]:
        """Where another key differs: `GPU sm86, wanted sm89`."""
        mine, its = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return [
            f"{_NAMES[name]} {str(its[name])[:16]}, wanted {str(wanted)[:16]}"
            for name, wanted in mine.items()
            if its[name] != wanted
        ]


class Sidecar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Contents of a plan's `.json`.

    Attributes:
        key: What the plan is for.
        plan_sha256: SHA-256 of the plan.
        plan_bytes: Its size.
        profile: Smallest, usual and largest size of each dynamic axis.
        workspace_bytes: Most scratch memory of the GPU that it may use.
        build_s: Seconds that building took.
    """

    key: PlanKey
    plan_sha256: str
    plan_bytes: int
    profile: dict[str, Sizes]
    workspace_bytes: int
    build_s: float


def plan_key(bundle: Bundle, capability: str, engine: Compiler, version: str) -> PlanKey:
    """The key of a bundle's plan for a GPU and a library."""
    return PlanKey(
        onnx_sha256=bundle.manifest.files[MODEL],
        compute_capability=capability,
        engine=engine,
        library_version=version,
        precision=bundle.manifest.precision,
    )
