"""What a manifest says of a model's weights and where they come from."""

from __future__ import annotations

import hashlib

import torch

from limpet.contracts.manifest import Provenance
from limpet.training.run import RunRecord, library_versions

EXPORTERS = ("torch", "onnx", "onnxscript", "onnxruntime")
"""Libraries whose versions the manifest names."""


def weights_digest(module: torch.nn.Module) -> str:
    """SHA-256 of a module's weights by name: equal exactly where embeddings compare."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def provenance_of(record: RunRecord) -> Provenance:
    """A RUN's provenance, with the versions of the libraries that export it."""
    exporters = library_versions(*EXPORTERS)
    return Provenance(
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
    )
