"""Plans on a real GPU; see the README for what has been run so far."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import MissingExtraError
from limpet.contracts.golden import check_golden
from limpet.runtime.engines.nvidia import NvidiaDevice, load_runtime
from limpet.runtime.engines.trt import REPEATS, TensorRTEngine, open_tensorrt
from limpet.runtime.plans.compiling import compile_bundle
from limpet.runtime.plans.devices import gpu_capability
from limpet.runtime.plans.libraries import Compiler, load_library
from tests.bundles import anomaly_bundle, tiny_scorer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.tensorrt,
    pytest.mark.skipif(gpu_capability() is None, reason="no NVIDIA GPU here"),
]
REFERENCE = Path(__file__).resolve().parents[3] / "robot_configs" / "bundles"


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def library(request: pytest.FixtureRequest) -> Compiler:
    name: Compiler = request.param
    try:
        loaded = load_library(name)
        load_runtime()
    except MissingExtraError as missing:
        pytest.skip(f"{missing.message}: {missing.hint}")
    if name == "tensorrt-rtx" and gpu_capability() not in loaded.targets():
        pytest.skip(f"TensorRT for RTX does not know {gpu_capability()}")
    return name


def opened(bundle: Bundle, name: Compiler) -> TensorRTEngine:
    compile_bundle(bundle, engine=name, target="current", axes={}, report=lambda _: None)
    return open_tensorrt(bundle, name)


@pytest.mark.parametrize("kind", sorted(path.name for path in REFERENCE.iterdir()))
def test_a_reference_bundle_passes_its_golden_check(
    library: Compiler, kind: str, tmp_path: Path
) -> None:
    (tmp_path / kind).mkdir()
    for file in (REFERENCE / kind).iterdir():
        if file.is_file():
            (tmp_path / kind / file.name).write_bytes(file.read_bytes())
    bundle = read_bundle(tmp_path / kind)
    engine = opened(bundle, library)
    for _ in range(REPEATS + 2):  # recorded, too
        assert check_golden(bundle.golden(), bundle.manifest, engine.run).passed


def test_streams_keep_their_state_on_the_gpu(library: Compiler, tmp_path: Path) -> None:
    engine = opened(anomaly_bundle(tmp_path / "pump", memory=0.5), library)
    states = [engine.new_state() for _ in range(70)]
    outside = np.zeros((70, 2), np.float32)
    rng = np.random.default_rng(0)
    for turn in range(REPEATS + 3):
        samples = rng.normal(size=(70, 4, 2)).astype(np.float32)
        present = np.ones_like(samples)
        if turn == 2:
            states[3].clear()
            outside[3] = 0.0
        inputs = {"samples": samples, "present": present}
        wanted = tiny_scorer({**inputs, "state": outside}, memory=0.5)
        outside = wanted["next_state"]
        found = engine.run_kept(inputs, states)
        np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-3)


def test_memory_and_streams_are_what_cuda_gives(library: Compiler) -> None:
    device = NvidiaDevice(load_runtime())
    stream = device.open_stream()
    memory = device.allocate(1 << 20)
    device.clear(memory, 1 << 20, stream)
    device.wait(stream)
    device.free(memory)
    device.close_stream(stream)


def test_kernels_compiled_on_the_gpu_are_taken_at_the_next_start(
    library: Compiler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if library != "tensorrt-rtx":
        pytest.skip("plans of full TensorRT hold their kernels")
    bundle = anomaly_bundle(tmp_path / "pump", memory=0.5)
    engine = opened(bundle, library)
    assert check_golden(bundle.golden(), bundle.manifest, engine.run).passed
    engine.close()
    (file,) = (bundle.path / "engines").glob("*.kernels")
    kept = file.read_bytes()
    with caplog.at_level("INFO"):
        engine = open_tensorrt(bundle, library)
    assert "compiled anew" not in caplog.text
    assert check_golden(bundle.golden(), bundle.manifest, engine.run).passed
    engine.close()
    assert file.read_bytes() == kept
