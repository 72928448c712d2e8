"""CUDA's runtime as a device: what is called how, and what its error codes become."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from limpet.contracts.errors import EngineError, MissingExtraError
from limpet.runtime.engines import nvidia
from limpet.runtime.engines.device import Device
from limpet.runtime.engines.nvidia import NvidiaDevice, load_runtime
from limpet.runtime.plans.devices import gpu_capability
from tests.runtime.engines.fake_gpu import FakeDevice


class Code(enum.IntEnum):
    cudaSuccess = 0  # noqa: N815 (CUDA's names)
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInsufficientDriver = 35  # noqa: N815


class FakeRuntime:
    """Functions that return what CUDA's do: a tuple that begins with a code.

    Args:
        integrated: Whether the GPU shares the host's memory.
        failing: Code of a function, by name.
    """

    cudaError_t = Code  # noqa: N815
    cudaHostAllocMapped = 2  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread")  # noqa: N815
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrIntegrated=18, cudaDevAttrCanMapHostMemory=19)  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out", cudaMemcpyDeviceToDevice="inside"
    )

    def __init__(self, *, integrated: bool = False, **failing: Code) -> None:
        self.failing = failing
        self.called: list[tuple[Any, ...]] = []
        self.answers = {
            "cudaDeviceGetAttribute": int(integrated),
            "cudaDriverGetVersion": 12060,
            "cudaMalloc": 0x1000,
            "cudaHostAlloc": 0x2000,
            "cudaHostGetDevicePointer": 0x3000,
            "cudaStreamCreateWithFlags": "stream",
            "cudaStreamEndCapture": "graph",
            "cudaGraphInstantiate": "executable",
        }

    def cudaGetErrorName(self, code: Code) -> tuple[Code, bytes]:  # noqa: N802
        return Code.cudaSuccess, code.name.encode()

    def cudaGetErrorString(self, code: Code) -> tuple[Code, bytes]:  # noqa: N802
        return Code.cudaSuccess, b"so it is"

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def function(*arguments: Any) -> tuple[Any, ...]:
            self.called.append((name, *arguments))
            if name in self.failing:
                return self.failing[name], None
            answer = self.answers.get(name)
            return (Code.cudaSuccess,) if answer is None else (Code.cudaSuccess, answer)

        return function


def test_every_call_goes_to_cuda_with_its_arguments_in_order() -> None:
    runtime = FakeRuntime()
    device = NvidiaDevice(runtime)
    assert not device.shares_memory
    runtime.called.clear()
    assert device.allocate(8) == 0x1000
    assert device.allocate_pinned(8) == 0x2000
    stream = device.open_stream()
    device.to_device(0x1000, 0x2000, 8, stream)
    device.within(0x1008, 0x1000, 8, stream)
    device.clear(0x1000, 8, stream)
    device.begin_recording(stream)
    device.to_host(0x2000, 0x1000, 8, stream)
    recorded = device.end_recording(stream)
    device.replay(recorded, stream)
    device.wait(stream)
    device.forget(recorded)
    device.close_stream(stream)
    device.free(0x1000)
    device.free_pinned(0x2000)
    assert runtime.called == [
        ("cudaMalloc", 8),
        ("cudaHostAlloc", 8, 0),
        ("cudaStreamCreateWithFlags", 1),
        ("cudaMemcpyAsync", 0x1000, 0x2000, 8, "in", "stream"),
        ("cudaMemcpyAsync", 0x1008, 0x1000, 8, "inside", "stream"),
        ("cudaMemsetAsync", 0x1000, 0, 8, "stream"),
        ("cudaStreamBeginCapture", "stream", "thread"),
        ("cudaMemcpyAsync", 0x2000, 0x1000, 8, "out", "stream"),
        ("cudaStreamEndCapture", "stream"),
        ("cudaGraphInstantiate", "graph", 0),
        ("cudaGraphDestroy", "graph"),
        ("cudaGraphLaunch", "executable", "stream"),
        ("cudaStreamSynchronize", "stream"),
        ("cudaGraphExecDestroy", "executable"),
        ("cudaStreamDestroy", "stream"),
        ("cudaFree", 0x1000),
        ("cudaFreeHost", 0x2000),
    ]


def test_a_jetson_maps_pinned_memory_for_its_gpu() -> None:
    runtime = FakeRuntime(integrated=True)
    device = NvidiaDevice(runtime)
    assert device.shares_memory
    assert device.mapped(device.allocate_pinned(8)) == 0x3000
    assert runtime.called[-2:] == [
        ("cudaHostAlloc", 8, 2),
        ("cudaHostGetDevicePointer", 0x2000, 0),
    ]


def test_a_code_becomes_an_error_with_cudas_name_for_it() -> None:
    device = NvidiaDevice(FakeRuntime(cudaMalloc=Code.cudaErrorMemoryAllocation))
    with pytest.raises(EngineError) as caught:
        device.allocate(1 << 40)
    assert caught.value.message == "CUDA: cudaMalloc: cudaErrorMemoryAllocation, so it is"
    assert "smaller sizes" in caught.value.hint


def test_a_driver_that_is_too_old_comes_with_the_line_that_mends_it() -> None:
    with pytest.raises(EngineError, match="cudaErrorInsufficientDriver") as caught:
        NvidiaDevice(FakeRuntime(cudaSetDevice=Code.cudaErrorInsufficientDriver))
    assert caught.value.hint == "the driver knows CUDA 12: pip install 'cuda-python==12.*'"


def test_a_graph_that_cannot_be_instantiated_is_given_back() -> None:
    runtime = FakeRuntime(cudaGraphInstantiate=Code.cudaErrorMemoryAllocation)
    device = NvidiaDevice(runtime)
    with pytest.raises(EngineError, match="cudaGraphInstantiate"):
        device.end_recording("stream")
    assert runtime.called[-1] == ("cudaGraphDestroy", "graph")


def test_cuda_python_that_is_not_here_comes_with_its_pip_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nvidia, "_MODULE", "cuda.bindings.no_such")
    with pytest.raises(MissingExtraError) as caught:
        load_runtime()
    assert caught.value.hint == "pip install 'limpet[tensorrt]'"


def test_the_fake_gpu_is_a_device() -> None:
    for device in (NvidiaDevice, FakeDevice):
        for name, method in vars(Device).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                wanted = list(inspect.signature(method).parameters)
                assert list(inspect.signature(getattr(device, name)).parameters) == wanted


def test_cuda_python_has_every_function_and_takes_these_arguments() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="pip install 'limpet[tensorrt]'")
    stand_in = FakeRuntime(integrated=True)
    device = NvidiaDevice(stand_in)
    device.free(device.allocate(8))
    pinned = device.allocate_pinned(8)
    device.mapped(pinned)
    device.free_pinned(pinned)
    for call in (device.to_device, device.to_host, device.within):
        call(1, 2, 3, "stream")
    device.clear(1, 2, "stream")
    device.wait(device.open_stream())
    device.begin_recording("stream")
    device.replay(device.end_recording("stream"), "stream")
    device.forget("executable")
    device.close_stream("stream")
    for name, *arguments in stand_in.called:
        declared = (getattr(runtime, name).__doc__ or "").split("\n")[0]
        takes = declared.partition("(")[2].partition(")")[0].split(",")
        assert len(takes) == len(arguments), declared
    for name in ("cudaHostAllocMapped", "cudaStreamNonBlocking"):
        assert getattr(runtime, name) == getattr(FakeRuntime, name)


def test_cuda_python_without_a_gpu_is_a_typed_error() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="pip install 'limpet[tensorrt]'")
    if gpu_capability() is not None:
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineError, match=r"CUDA: cudaSetDevice: cudaError\w+, ") as caught:
        NvidiaDevice(runtime)
    assert caught.value.hint
