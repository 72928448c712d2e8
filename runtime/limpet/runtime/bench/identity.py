"""A bundle whose model gives back what it gets: what remains of a request is the serving."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from limpet.contracts.bundle import GOLDEN, MODEL, Bundle, write_bundle
from limpet.contracts.golden import Golden
from limpet.contracts.manifest import SCHEMA_VERSION, Manifest
from limpet.contracts.tensors import TensorSpec


def write_identity_bundle(path: Path) -> Bundle:
    """Writes it; `identity.onnx` beside this file is one Identity node, opset 17."""
    specs = [TensorSpec(name=n, dtype="float32", shape=["batch", "size"]) for n in ("x", "y")]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="identity",
        kind="custom",
        space_id="identity",
        inputs=specs[:1],
        outputs=specs[1:],
        opset=17,
    )
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    golden = Golden(inputs={"x": x}, outputs={"y": x}, tolerances={"y": 0.0})
    model = resources.files(__package__).joinpath("identity.onnx").read_bytes()
    return write_bundle(path, manifest, {MODEL: model, GOLDEN: golden.encode()})
