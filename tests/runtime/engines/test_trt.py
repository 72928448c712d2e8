"""TensorRT's engine on a GPU of this process: what is copied, refused and given back."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import EngineError
from limpet.contracts.golden import check_golden
from limpet.runtime.engines.trt import REPEATS, TensorRTEngine
from limpet.runtime.plans.key import plan_key
from limpet.runtime.plans.store import PlanStore
from tests.runtime.engines.fake_gpu import GPU, FakeDevice
from tests.runtime.engines.fake_tensorrt import (
    VERSION,
    fake_compile,
    fake_library,
)
from tests.runtime.engines.trt_engines import NOTHING, assert_right, frames, opened


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


def test_several_threads_get_their_own_results(bundle: Bundle) -> None:
    engine, _ = opened(bundle, FakeDevice())

    def run(seed: int) -> bool:
        inputs = frames(1 + seed % 3, 4, seed)
        assert_right(engine.run(inputs), inputs)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(64)))


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


def test_the_golden_check_holds_on_it(bundle: Bundle) -> None:
    engine, _ = opened(bundle, FakeDevice(shares_memory=True))
    assert check_golden(bundle.golden(), bundle.manifest, engine.run).passed
