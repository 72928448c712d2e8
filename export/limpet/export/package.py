"""`limpet export` as a function: from a RUN, or a float32 bundle, to a bundle."""

from __future__ import annotations

from pathlib import Path

import msgspec

from limpet.contracts.bundle import (
    GOLDEN,
    MANIFEST,
    MODEL,
    check_free,
    read_bundle,
    write_bundle,
)
from limpet.contracts.errors import UsageError
from limpet.contracts.golden import Check, Parity
from limpet.contracts.manifest import Precision
from limpet.export.custom import from_module, from_onnx
from limpet.export.graph import to_onnx
from limpet.export.parity import check_parity
from limpet.export.precision.calibration import check_wanted
from limpet.export.precision.convert import Exact, converted
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
    run: Path | None,
    out: Path,
    *,
    module: str | None = None,
    spec: Path | None = None,
    precision: Precision = "fp32",
    calibration: Path | None = None,
    force: bool = False,
) -> ExportReport:
    """Converts a model, proves the graph against PyTorch, and only then writes the bundle.

    Args:
        run: The RUN folder, a float32 bundle or an ONNX file; None for a module.
        module: `package:function` that returns a PyTorch module; `spec` describes it.
        spec: A SPEC.toml (`limpet.export.custom.Spec`).
        out: The bundle; its last part is the model's name.
        precision: Number format of the graph.
        calibration: Real data for INT8: recordings, images or an npz of inputs.
        force: Replace a bundle that is there already.

    Raises:
        UsageError: Not one of `run` and `module`, `out` exists, or INT8 lacks its data.
        DataError: `run` is no finished RUN, or the data cannot be used.
        BundleError: The bundle to export is damaged.
        ExportError: PyTorch cannot convert the model, or it cannot have this precision.
    """
    check_free(out, force=force)
    if calibration is not None and precision != "int8":
        raise UsageError(f"{precision} needs no calibration", "leave out --calibration")
    name = out.absolute().name
    exact = converted(
        _exact(run, module, spec, name, precision, calibration), precision, calibration
    )
    manifest, golden = exact.manifest, exact.golden
    parity = check_parity(exact.model, manifest, golden)
    if parity.passed:
        write_bundle(out, manifest, {MODEL: exact.model, GOLDEN: golden.encode()}, force=force)
    return ExportReport(
        bundle=str(out) if parity.passed else "",
        name=manifest.name,
        space_id=manifest.space_id,
        precision=precision,
        opset=manifest.opset,
        model_bytes=len(exact.model),
        passed=parity.passed,
        checks=parity.checks,
    )


def _exact(
    run: Path | None,
    module: str | None,
    spec: Path | None,
    name: str,
    precision: Precision,
    calibration: Path | None,
) -> Exact:
    """The float32 model that was named, whatever it is."""
    if module is not None and run is None:
        if spec is None:
            raise UsageError("--module needs its --spec", "see `limpet export --help`")
        return from_module(module, spec, name)
    if run is None or module is not None:
        raise UsageError("nothing or two things to export", "give a RUN, a bundle, or --module")
    if run.suffix.lower() == ".onnx":
        return from_onnx(run, spec, name)
    if spec is not None:
        raise UsageError(f"{run} describes itself", "leave out --spec")
    if (run / MANIFEST).is_file():
        return _of_bundle(run, name)
    return _of_run(run, name, precision, calibration)


def _of_run(run: Path, name: str, precision: Precision, calibration: Path | None) -> Exact:
    opened = open_any_run(run)
    manifest = opened.manifest(name, "fp32")
    if precision == "int8":  # now: PyTorch's exporter takes its time
        check_wanted(manifest, calibration)
    golden = opened.golden(manifest)
    return Exact(to_onnx(opened.module, manifest.inputs, manifest.outputs), manifest, golden)


def _of_bundle(path: Path, name: str) -> Exact:
    bundle = read_bundle(path)
    if bundle.manifest.precision != "fp32":
        raise UsageError(
            f"{path} is {bundle.manifest.precision} already", "export the fp32 bundle or the RUN"
        )
    manifest = msgspec.structs.replace(bundle.manifest, name=name)
    return Exact(bundle.model_path.read_bytes(), manifest, bundle.golden())
