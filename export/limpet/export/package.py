"""`limpet export` as a function: from a RUN to a bundle."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import msgspec
import torch

from limpet.contracts.bundle import GOLDEN, MANIFEST, MODEL, check_free, write_bundle
from limpet.contracts.errors import UsageError
from limpet.contracts.golden import Check, Parity
from limpet.contracts.manifest import (
    SCHEMA_VERSION,
    AnomalyDecoding,
    Manifest,
    Precision,
    Provenance,
    SignalPreprocessing,
)
from limpet.contracts.signal_steps import features_of
from limpet.contracts.tensors import TensorSpec
from limpet.export.golden import make_golden, read_sample
from limpet.export.graph import OPSET, to_onnx
from limpet.export.parity import check_parity
from limpet.training.anomaly.model import AnomalyScorer, load_scorer
from limpet.training.run import SAMPLE, RunRecord, library_versions

EXPORTERS = ("torch", "onnx", "onnxscript", "onnxruntime")
"""Libraries whose versions the manifest names."""


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
    scorer, record = load_scorer(run)
    manifest = run_manifest(out.absolute().name, scorer, record, precision)
    golden = make_golden(scorer, manifest, read_sample(run / SAMPLE, len(_channels(record))))
    model = to_onnx(scorer, manifest.inputs, manifest.outputs)
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


def weights_digest(module: torch.nn.Module) -> str:
    """SHA-256 of a module's weights by name: equal exactly where embeddings compare."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


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


def _channels(record: RunRecord) -> list[str]:
    assert isinstance(record.preprocessing, SignalPreprocessing)  # `load_scorer` saw to it
    return record.preprocessing.channels


def run_manifest(
    name: str, scorer: AnomalyScorer, record: RunRecord, precision: Precision
) -> Manifest:
    """The manifest of a RUN's model, as `load_scorer` gave it."""
    signal = record.preprocessing
    assert isinstance(signal, SignalPreprocessing)
    features = features_of(signal.steps, len(signal.channels))

    def tensor(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=["batch", *shape], unit="1")

    exporters = library_versions(*EXPORTERS)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        kind="anomaly",
        space_id=weights_digest(scorer),
        inputs=[
            tensor("samples", "rows", features),
            tensor("present", "rows", features),
            tensor("state", scorer.state_size),
        ],
        outputs=[
            tensor("embedding", "rows", scorer.encoder.head.out_features),
            tensor("score", "rows"),
            tensor("next_state", scorer.state_size),
        ],
        preprocessing=signal,
        decoding=AnomalyDecoding(score="score", embedding="embedding", next_state="next_state"),
        calibration=record.calibration,
        precision=precision,
        opset=OPSET,
        provenance=Provenance(
            command=record.command,
            created=record.created,
            commit=record.commit,
            configuration=dict(record.config),
            data=record.data,
            metrics=record.metrics,
            versions={
                **record.versions,
                **{f"export {library}": version for library, version in exporters.items()},
            },
        ),
    )
