"""`limpet export` as a function: from a RUN to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from limpet.contracts.bundle import GOLDEN, MANIFEST, MODEL, check_free, write_bundle
from limpet.contracts.errors import UsageError
from limpet.contracts.golden import Check, Parity
from limpet.contracts.manifest import Precision
from limpet.export.graph import OPSET, to_onnx
from limpet.export.parity import check_parity
from limpet.export.runs import open_any_run


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an export came to; the keys of `limpet export --json`.

    Attributes:
        bundle: The bundle that was written; empty when parity failed and nothing was.
        name: The model's name.
        space_id: Digest of its weights.
        precision: Number format of the graph.
        opset: ONNX operator set.
        model_bytes: Size of `model.onnx`.
        passed: Whether ONNX Runtime computes what PyTorch computed.
        checks: Each comparison.
    """

    bundle: str
    name: str
    space_id: str
    precision: Precision
    opset: int
    model_bytes: int
    passed: bool
    checks: list[Check]

    @property
    def parity(self) -> Parity:
        """The comparison of ONNX Runtime with PyTorch."""
        return Parity(self.checks)


def export_run(
    run: Path, out: Path, *, precision: Literal["fp32"] = "fp32", force: bool = False
) -> ExportReport:
    """Converts a RUN's model, proves the graph against PyTorch, and only then writes the bundle.

    Args:
        run: The RUN folder.
        out: The bundle; its last part is the model's name.
        precision: Number format of the graph.
        force: Replace a bundle that is there already.

    Raises:
        UsageError: `run` is something that this version does not export, or `out` exists.
        DataError: `run` is no finished RUN.
        ExportError: PyTorch cannot convert the model.
    """
    _check_source(run)
    check_free(out, force=force)
    opened = open_any_run(run)
    manifest = opened.manifest(out.absolute().name, precision)
    golden = opened.golden(manifest)
    model = to_onnx(opened.module, manifest.inputs, manifest.outputs)
    parity = check_parity(model, manifest, golden)
    if parity.passed:
        write_bundle(out, manifest, {MODEL: model, GOLDEN: golden.encode()}, force=force)
    return ExportReport(
        bundle=str(out) if parity.passed else "",
        name=manifest.name,
        space_id=manifest.space_id,
        precision=precision,
        opset=OPSET,
        model_bytes=len(model),
        passed=parity.passed,
        checks=parity.checks,
    )


def _check_source(run: Path) -> None:
    """Refuses what other versions export.

    Raises:
        UsageError: A bundle or an ONNX file.
    """
    if (run / MANIFEST).is_file():
        found = "a bundle already; re-exporting one at another precision"
    elif run.suffix.lower() == ".onnx":
        found = "an ONNX file; packing one"
    else:
        return
    raise UsageError(
        f"{run} is {found} is not in this version", "give the RUN that `limpet train` wrote"
    )
