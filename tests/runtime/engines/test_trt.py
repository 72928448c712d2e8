"""TensorRT's engine on a GPU of this process: what is copied, recorded, kept and given back."""

from __future__ import annotations

import errno
import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import helper

from limpet.contracts.bundle import GOLDEN, MODEL, Bundle, write_bundle
from limpet.contracts.errors import EngineError
from limpet.contracts.golden import Golden, check_golden
from limpet.runtime.engines import kernel_cache
from limpet.runtime.engines.trt import MOST_RECORDED, REPEATS, TensorRTEngine
from limpet.runtime.plans.key import plan_key
from limpet.runtime.plans.libraries import Compiler
from limpet.runtime.plans.store import PlanStore
from tests.bundles import anomaly_bundle, identity_bundle, onnx_bytes, tiny_scorer
from tests.runtime.engines import fake_tensorrt
from tests.runtime.engines.fake_gpu import GPU, FakeDevice
from tests.runtime.engines.fake_tensorrt import (
    VERSION,
    FakeTensorRT,
    fake_compile,
    fake_library,
)

MEMORY = 0.5
NOTHING = {"device": 0, "pinned": 0, "streams": 0, "records": 0}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return anomaly_bundle(tmp_path / "pump", memory=MEMORY)


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


def test_all_memory_is_allocated_before_the_first_run(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    tensors = len(bundle.manifest.inputs) + len(bundle.manifest.outputs)
    assert device.held == {"device": tensors, "pinned": tensors, "streams": 1, "records": 0}
    before = device.calls["allocate"], device.calls["allocate_pinned"]
    for rows in (1, 5, 1024):
        engine.run(frames(1, rows))
    assert (device.calls["allocate"], device.calls["allocate_pinned"]) == before


def test_a_run_copies_each_tensor_once_and_waits_once(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    device.calls.clear()
    engine.run(frames(2, 3))
    assert device.calls == {"to_device": 3, "to_host": 3, "wait": 1}


def test_where_memory_is_shared_nothing_is_copied(bundle: Bundle) -> None:
    device = FakeDevice(shares_memory=True)
    engine, _ = opened(bundle, device)
    assert device.held["device"] == 0
    device.calls.clear()
    for _ in range(REPEATS + 2):
        inputs = frames(2, 3)
        assert_right(engine.run(inputs), inputs)
    assert not {"to_device", "to_host"} & set(device.calls)
    assert device.calls["replay"] > 0


@pytest.mark.parametrize("shares_memory", [False, True])
def test_sizes_that_repeat_are_recorded_and_replayed_with_new_values(
    bundle: Bundle, shares_memory: bool
) -> None:
    device = FakeDevice(shares_memory=shares_memory)
    engine, library = opened(bundle, device)
    for turn in range(REPEATS + 4):
        inputs = frames(2, 3, seed=turn)
        assert_right(engine.run(inputs), inputs)
    assert device.calls["begin_recording"] == device.calls["end_recording"] == 1
    assert device.calls["replay"] == 4
    assert library.contexts == 2


def test_other_sizes_between_do_not_disturb_what_was_recorded(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    for turn in range(REPEATS + 3):
        for size in ((2, 3), (1, 7 + turn), (1, 1)):
            inputs = frames(*size, seed=turn)
            assert_right(engine.run(inputs), inputs)
    assert device.held["records"] == 2


def test_only_so_many_sizes_get_a_context_of_their_own(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, library = opened(bundle, device)
    for rows in range(1, MOST_RECORDED + 4):
        for _ in range(REPEATS + 1):
            engine.run(frames(1, rows))
    assert library.contexts == MOST_RECORDED + 1
    assert device.held["records"] == MOST_RECORDED


def test_fixed_sizes_are_recorded_without_another_context(tmp_path: Path) -> None:
    bundle = fixed_bundle(tmp_path / "fixed")
    device = FakeDevice()
    engine, library = opened(bundle, device)
    for value in range(REPEATS + 2):
        x = np.full((1, 4), value, np.float32)
        np.testing.assert_array_equal(engine.run({"x": x})["y"], x)
    assert library.contexts == 1
    assert device.calls["replay"] == 3


def fixed_bundle(path: Path) -> Bundle:
    """An identity whose batch is 1."""
    manifest = identity_bundle(path.parent / "any").manifest
    x, y = (
        msgspec.structs.replace(spec, shape=[1, 4])
        for spec in (*manifest.inputs, *manifest.outputs)
    )
    model = onnx_bytes([helper.make_node("Identity", ["x"], ["y"])], [x], [y])
    ones = np.ones((1, 4), np.float32)
    golden = Golden(inputs={"x": ones}, outputs={"y": ones}, tolerances={})
    manifest = msgspec.structs.replace(manifest, inputs=[x], outputs=[y])
    return write_bundle(path, manifest, {MODEL: model, GOLDEN: golden.encode()})


def test_a_plan_that_cannot_be_recorded_runs_all_the_same_and_says_so_once(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    for turn in range(REPEATS + 4):
        device.failing = {"end_recording": "cudaErrorStreamCaptureUnsupported"}
        inputs = frames(2, 3, seed=turn)
        assert_right(engine.run(inputs), inputs)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "without a CUDA graph" in record.message
    assert "cudaErrorStreamCaptureUnsupported" in record.message
    assert device.held["records"] == 0


def test_a_library_that_is_not_ready_to_be_recorded_is_asked_again(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, library = opened(bundle, device, "tensorrt-rtx")
    library.capturable = False
    for _ in range(REPEATS + 2):
        engine.run(frames(1, 2))
    assert device.calls["begin_recording"] == 0
    library.capturable = True
    engine.run(frames(1, 2))
    assert device.calls["replay"] == 1


def test_several_threads_get_their_own_results(bundle: Bundle) -> None:
    engine, _ = opened(bundle, FakeDevice())

    def run(seed: int) -> bool:
        inputs = frames(1 + seed % 3, 4, seed)
        assert_right(engine.run(inputs), inputs)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(64)))


def test_streams_keep_their_state_on_the_device(bundle: Bundle) -> None:
    """As with the state outside, in whatever company each stream's frames come."""
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    states = [engine.new_state() for _ in range(3)]
    outside = np.zeros((3, 2), np.float32)
    rng = np.random.default_rng(1)
    for turn in range(12):
        some = rng.permutation(3)[: 1 + turn % 3]
        inputs = frames(len(some), 4, seed=turn)
        if turn == 7:  # a stream begins anew
            states[some[0]].clear()
            outside[some[0]] = 0.0
        inputs["state"] = outside[some]
        wanted = tiny_scorer(inputs, memory=MEMORY)
        del inputs["state"]
        device.calls.clear()
        found = engine.run_kept(inputs, [states[index] for index in some])
        outside[some] = wanted["next_state"]
        assert list(found) == ["embedding", "score"]
        np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-5)
        assert device.calls["to_device"] <= 2
        assert device.calls["to_host"] <= 2
    assert device.held["records"] > 0


def test_more_streams_than_a_plan_takes_at_once_run_in_parts(bundle: Bundle) -> None:
    engine, _ = opened(bundle, FakeDevice())
    states = [engine.new_state() for _ in range(100)]
    inputs = frames(100, 2)
    inputs["state"][:] = 0.0
    first = tiny_scorer(inputs, memory=MEMORY)
    second = tiny_scorer({**inputs, "state": first["next_state"]}, memory=MEMORY)
    without = {name: inputs[name] for name in ("samples", "present")}
    for wanted in (first, second):
        found = engine.run_kept(without, states)
        np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-5)


def test_a_state_goes_with_its_stream(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    before = device.held["device"]
    state = engine.new_state()
    assert device.held["device"] == before + 1
    del state
    gc.collect()
    assert device.held["device"] == before


def test_a_model_without_a_state_keeps_none(tmp_path: Path) -> None:
    engine, _ = opened(identity_bundle(tmp_path / "identity"), FakeDevice())
    with pytest.raises(EngineError, match="keeps no state"):
        engine.new_state()


def test_what_it_holds_is_given_back_when_it_is_closed_and_only_once(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    for _ in range(REPEATS + 2):
        engine.run(frames(1, 2))
    assert device.held["records"] == 1
    engine.close()
    engine.close()
    assert device.held == NOTHING
    with pytest.raises(EngineError, match="it was closed"):
        engine.run(frames(1, 2))


def test_what_it_holds_is_given_back_when_nobody_has_it_any_more(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    engine.run(frames(1, 2))
    del engine
    gc.collect()
    assert device.held == NOTHING


@pytest.mark.parametrize("step", ["allocate", "allocate_pinned"])
def test_memory_that_does_not_suffice_is_typed_and_nothing_stays_allocated(
    bundle: Bundle, step: str
) -> None:
    device = FakeDevice()
    device.failing = {step: "cudaErrorMemoryAllocation"}
    with pytest.raises(EngineError, match="cudaErrorMemoryAllocation"):
        opened(bundle, device)
    gc.collect()
    assert device.held == NOTHING


@pytest.mark.parametrize("step", ["to_device", "to_host", "wait"])
def test_a_gpu_that_fails_once_is_typed_and_leaves_it_usable(bundle: Bundle, step: str) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    device.failing = {step: "cudaErrorIllegalAddress"}
    with pytest.raises(EngineError, match=f"CUDA: {step}: cudaErrorIllegalAddress"):
        engine.run(frames(1, 2))
    inputs = frames(1, 2, seed=5)
    assert_right(engine.run(inputs), inputs)


def test_a_context_that_finds_no_memory_says_what_to_do(bundle: Bundle) -> None:
    device = FakeDevice()
    fake_compile(bundle)
    plan, sidecar = PlanStore(bundle).read(plan_key(bundle, GPU, "tensorrt", VERSION))
    library = fake_library(device)
    library.trt.most_contexts = 0
    with pytest.raises(EngineError, match="no memory for another context: out of memory") as caught:
        TensorRTEngine(bundle, library, plan, sidecar, device)
    assert caught.value.hint.endswith("--engine tensorrt --axis …")
    gc.collect()
    assert device.held == NOTHING


def test_without_memory_for_more_contexts_it_goes_on_with_one(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    device = FakeDevice()
    engine, library = opened(bundle, device)
    library.most_contexts = 1
    for turn in range(REPEATS + 3):
        inputs = frames(2, 3, seed=turn)
        assert_right(engine.run(inputs), inputs)
    (record,) = caplog.records
    assert "has no memory for another context: out of memory" in record.message


def test_states_of_another_number_than_rows_are_refused(bundle: Bundle) -> None:
    engine, _ = opened(bundle, FakeDevice())
    inputs = frames(2, 3)
    del inputs["state"]
    with pytest.raises(EngineError, match="2 rows, 1 states"):
        engine.run_kept(inputs, [engine.new_state()])


def test_a_plan_that_the_library_cannot_load_comes_with_the_command(bundle: Bundle) -> None:
    device = FakeDevice()
    fake_compile(bundle)
    _, sidecar = PlanStore(bundle).read(plan_key(bundle, GPU, "tensorrt", VERSION))
    with pytest.raises(EngineError, match=r"cannot load the plan .*: the plan is") as no:
        TensorRTEngine(bundle, fake_library(device), b"other", sidecar, device)
    assert no.value.hint.endswith(f"limpet compile {bundle.path} --engine tensorrt --force")
    assert device.held == NOTHING


def test_a_plan_that_wants_a_tensor_on_the_host_is_refused(bundle: Bundle) -> None:
    device = FakeDevice()
    plan = fake_compile(bundle)
    _, sidecar = PlanStore(bundle).read(plan_key(bundle, GPU, "tensorrt", VERSION))
    library = fake_library(device)
    library.trt.moves_outputs_to_host = True
    with pytest.raises(EngineError, match="wants embedding in the host's memory"):
        TensorRTEngine(bundle, library, plan, sidecar, device)


def test_sizes_beyond_the_plans_come_with_the_command_that_widens_it(bundle: Bundle) -> None:
    engine, _ = opened(bundle, FakeDevice())
    with pytest.raises(EngineError, match="rows 2000, the plan is for 1 to 1024") as caught:
        engine.run(frames(1, 2000))
    assert caught.value.hint.endswith("--axis rows=1:16:2000")
    inputs = frames(1, 2)
    assert_right(engine.run(inputs), inputs)


def test_kernels_that_were_compiled_are_there_at_the_next_start(bundle: Bundle) -> None:
    engine, library = opened(bundle, FakeDevice(), "tensorrt-rtx")
    for _ in range(REPEATS + 2):
        engine.run(frames(1, 2))
    assert library.compiled == 1
    (file,) = (bundle.path / "engines").glob("*.kernels")  # before it is closed: it may be killed
    assert file.with_suffix(".plan").exists()
    engine.run(frames(1, 5))
    engine.close()
    later, library = opened(bundle, FakeDevice(), "tensorrt-rtx")
    for rows in (2, 5):
        inputs = frames(1, rows)
        assert_right(later.run(inputs), inputs)
    assert library.compiled == 0


def test_kernels_are_written_in_one_step_and_only_when_there_are_new_ones(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(kernel_cache, "write_whole", lambda path, content: written.append(content))
    engine, _ = opened(bundle, FakeDevice(), "tensorrt-rtx")
    for _ in range(REPEATS + 5):
        engine.run(frames(1, 2))
    engine.close()
    assert len(written) == 1


@pytest.mark.parametrize("content", [b"", b"of another driver"])
def test_kernels_of_something_else_are_compiled_anew_and_replaced(
    bundle: Bundle, content: bytes
) -> None:
    engine, _ = opened(bundle, FakeDevice(), "tensorrt-rtx")
    engine.run(frames(1, 2))
    (file,) = (bundle.path / "engines").glob("*.kernels")
    right = file.read_bytes()
    file.write_bytes(content)
    later, library = opened(bundle, FakeDevice(), "tensorrt-rtx")
    later.run(frames(1, 2))
    assert library.compiled == 1
    assert file.read_bytes() == right


def test_without_a_place_for_kernels_it_runs_and_says_so(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(kernel_cache, "write_whole", refuse)
    engine, _ = opened(bundle, FakeDevice(), "tensorrt-rtx")
    inputs = frames(1, 2)
    assert_right(engine.run(inputs), inputs)
    assert "compiled again at the next start: Read-only file system" in caplog.text


def test_full_tensorrt_keeps_no_kernels(bundle: Bundle) -> None:
    """Its plans hold them."""
    engine, _ = opened(bundle, FakeDevice(), "tensorrt")
    engine.run(frames(1, 2))
    engine.close()
    assert not list((bundle.path / "engines").glob("*.kernels"))


def test_the_golden_check_holds_on_it(bundle: Bundle) -> None:
    engine, _ = opened(bundle, FakeDevice(shares_memory=True))
    assert check_golden(bundle.golden(), bundle.manifest, engine.run).passed


def test_the_fake_has_no_name_that_the_real_library_lacks() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'limpet[tensorrt]'")
    for fake, real in (
        (fake_tensorrt.FakeEngine, trt.ICudaEngine),
        (fake_tensorrt.FakeContext, trt.IExecutionContext),
        (fake_tensorrt.FakeRuntimeConfig, trt.IRuntimeConfig),
        (fake_tensorrt.FakeRuntimeCache, trt.IRuntimeCache),
    ):
        public = {name for name in vars(fake) if not name.startswith("_")}
        assert public <= set(dir(real))
    assert {one.name for one in fake_tensorrt.DataType} <= set(trt.DataType.__members__)
    assert {one.name for one in fake_tensorrt.TensorIOMode} == set(trt.TensorIOMode.__members__)
    assert {one.name for one in fake_tensorrt.TensorLocation} == set(trt.TensorLocation.__members__)
    assert hasattr(trt.IExecutionContext, "is_stream_capturable")
    assert hasattr(trt.Runtime, "deserialize_cuda_engine")
