"""A RUN or a bundle as something that computes: PyTorch runs the one, ONNX Runtime the other.

For a bundle nothing beyond the bare install is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from limpet.contracts.bundle import MANIFEST, read_bundle
from limpet.contracts.errors import DataError
from limpet.contracts.golden import Run
from limpet.contracts.manifest import Kind, Manifest
from limpet.training.run import RECORD

Source = Literal["run", "bundle"]


@dataclass(frozen=True)
class OpenModel:
    """A model, ready to run.

    Attributes:
        manifest: The bundle's; of a RUN, what its bundle would have.
        run: Computes outputs of inputs, on the CPU.
        source: Which of the two it is.
        engine: What computes.
    """

    manifest: Manifest
    run: Run
    source: Source
    engine: str


def open_model(path: Path, kind: Kind) -> OpenModel:
    """Opens a RUN or a bundle.

    Raises:
        DataError: Neither of the two, an unfinished RUN, or a model of another kind.
        BundleError: The bundle is damaged.
    """
    opened = _open(path, kind)
    if opened.manifest.kind != kind:
        raise DataError(
            f"{path} holds a model of kind {opened.manifest.kind!r}, wanted {kind!r}",
            "a model of one's own has no figures of this kind: measure it in its own terms"
            if opened.manifest.kind == "custom"
            else f"measure it with: limpet evaluate {opened.manifest.kind}",
        )
    return opened


def _open(path: Path, kind: Kind) -> OpenModel:
    if (path / MANIFEST).is_file():
        from limpet.export.parity import onnx_run

        bundle = read_bundle(path)
        run = onnx_run(bundle.model_path.read_bytes(), bundle.manifest)
        return OpenModel(bundle.manifest, run, "bundle", "onnxruntime-cpu")
    if not (path / RECORD).is_file():
        raise DataError(
            f"{path} is neither a RUN ({RECORD}) nor a bundle ({MANIFEST})",
            f"make a RUN with: limpet train {kind} --data PATH --out RUN",
        )
    from limpet.export.runs import open_any_run, torch_run

    opened = open_any_run(path)
    manifest = opened.manifest(path.absolute().name, "fp32")
    return OpenModel(manifest, torch_run(opened.module, manifest), "run", "pytorch-cpu")
