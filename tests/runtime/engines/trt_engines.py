"""TensorRT's engine on the GPU of this process, inputs for it, and what is right of its outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from limpet.contracts.bundle import Bundle
from limpet.runtime.engines.trt import TensorRTEngine
from limpet.runtime.plans.key import plan_key
from limpet.runtime.plans.libraries import Compiler
from limpet.runtime.plans.store import PlanStore
from tests.bundles import tiny_scorer
from tests.runtime.engines.fake_gpu import GPU, FakeDevice
from tests.runtime.engines.fake_tensorrt import (
    VERSION,
    FakeTensorRT,
    fake_compile,
    fake_library,
)

MEMORY = 0.5
NOTHING = {"device": 0, "pinned": 0, "streams": 0, "records": 0}


def opened(
    bundle: Bundle, device: FakeDevice, name: Compiler = "tensorrt"
) -> tuple[TensorRTEngine, FakeTensorRT]:
    fake_compile(bundle, name)
    plan, sidecar = PlanStore(bundle).read(plan_key(bundle, GPU, name, VERSION))
    library = fake_library(device, name)
    return TensorRTEngine(bundle, library, plan, sidecar, device), library.trt


def frames(batch: int, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(batch, rows, 2)).astype(np.float32)
    state = rng.normal(size=(batch, 2)).astype(np.float32)
    return {"samples": samples, "present": np.ones_like(samples), "state": state}


def assert_right(outputs: Any, inputs: dict[str, np.ndarray]) -> None:
    for name, wanted in tiny_scorer(inputs, memory=MEMORY).items():
        np.testing.assert_allclose(outputs[name], wanted, rtol=1e-5)
