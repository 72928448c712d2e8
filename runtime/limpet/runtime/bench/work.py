"""A bundle whose model takes as long as is asked: what a real model costs, without its weights."""

from __future__ import annotations

import tempfile
import time
from importlib import resources
from pathlib import Path

import numpy as np

from limpet.contracts.bundle import GOLDEN, MODEL, Bundle, write_bundle
from limpet.contracts.errors import BundleError
from limpet.contracts.golden import Golden
from limpet.contracts.manifest import SCHEMA_VERSION, Manifest
from limpet.contracts.tensors import TensorSpec
from limpet.runtime.engines import open_engine

PLACE = 0x4C494D5045540001
"""What stands in `work.onnx` where the number of its steps belongs."""
TRIAL_STEPS = 200
TRIALS = 15


def write_work_bundle(path: Path, name: str, steps: int) -> Bundle:
    """Writes a model that gives `y` = `x` (batch, size) after so many steps of work.

    `work.onnx` beside this file is written by `tests.runtime.bench.work_model`.
    """
    template = resources.files(__package__).joinpath("work.onnx").read_bytes()
    place = PLACE.to_bytes(8, "little")
    if template.count(place) != 1:
        raise BundleError("work.onnx has no place for the number of steps")
    specs = [TensorSpec(name=n, dtype="float32", shape=["batch", "size"]) for n in ("x", "y")]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        kind="custom",
        space_id=f"work-{steps}",
        inputs=specs[:1],
        outputs=specs[1:],
        opset=17,
    )
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    golden = Golden(inputs={"x": x}, outputs={"y": x}, tolerances={"y": 0.0})
    model = template.replace(place, steps.to_bytes(8, "little"))
    return write_bundle(path, manifest, {MODEL: model, GOLDEN: golden.encode()})


def steps_for(milliseconds: float) -> int:
    """How many steps take about so long on this machine, one thread, nobody else at work."""
    with tempfile.TemporaryDirectory(prefix="limpet-bench-") as folder:
        engine = open_engine(write_work_bundle(Path(folder) / "trial", "trial", TRIAL_STEPS))
        x = np.zeros((1, 4), np.float32)
        took = []
        for _ in range(TRIALS):
            start_s = time.perf_counter()
            engine.run({"x": x})
            took.append(time.perf_counter() - start_s)
    return max(1, round(milliseconds / 1e3 / (sorted(took)[TRIALS // 2] / TRIAL_STEPS)))
