"""An NVIDIA GPU, by CUDA's runtime as `cuda-python` gives it (`cuda.bindings.runtime`, 12.6 on).

Each of its functions returns a tuple that begins with an error code.
"""

from __future__ import annotations

import importlib
from typing import Any

from limpet.contracts.errors import EngineError, MissingExtraError

_MODULE = "cuda.bindings.runtime"
_FIRST = 0
"""The GPU that is used: a robot has one, and CUDA_VISIBLE_DEVICES chooses among several."""


def load_runtime() -> Any:
    """CUDA's runtime.

    Raises:
        MissingExtraError: cuda-python is not installed, or does not load.
    """
    try:
        return importlib.import_module(_MODULE)
    except (ImportError, OSError) as error:
        raise MissingExtraError("tensorrt", _MODULE) from error


class NvidiaDevice:
    """The first GPU; see `Device`.

    Args:
        runtime: What `load_runtime` gave.

    Raises:
        EngineError: There is none, or its driver is too old for this runtime.
    """

    def __init__(self, runtime: Any) -> None:
        self._cuda = runtime
        self._do("cudaSetDevice", _FIRST)
        attributes, copies = runtime.cudaDeviceAttr, runtime.cudaMemcpyKind
        self.shares_memory = all(
            self._do("cudaDeviceGetAttribute", attribute, _FIRST)
            for attribute in (
                attributes.cudaDevAttrIntegrated,
                attributes.cudaDevAttrCanMapHostMemory,
            )
        )
        self._in = copies.cudaMemcpyHostToDevice
        self._out = copies.cudaMemcpyDeviceToHost
        self._inside = copies.cudaMemcpyDeviceToDevice

    def allocate(self, size: int) -> int:
        """See `Device`."""
        return int(self._do("cudaMalloc", size))

    def free(self, address: int) -> None:
        """See `Device`."""
        self._do("cudaFree", address)

    def allocate_pinned(self, size: int) -> int:
        """See `Device`."""
        mapped = self._cuda.cudaHostAllocMapped if self.shares_memory else 0
        return int(self._do("cudaHostAlloc", size, mapped))

    def free_pinned(self, address: int) -> None:
        """See `Device`."""
        self._do("cudaFreeHost", address)

    def mapped(self, pinned: int) -> int:
        """See `Device`."""
        return int(self._do("cudaHostGetDevicePointer", pinned, 0))

    def open_stream(self) -> Any:
        """See `Device`."""
        return self._do("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)

    def close_stream(self, stream: Any) -> None:
        """See `Device`."""
        self._do("cudaStreamDestroy", stream)

    def to_device(self, target: int, pinned: int, size: int, stream: Any) -> None:
        """See `Device`."""
        self._do("cudaMemcpyAsync", target, pinned, size, self._in, stream)

    def to_host(self, pinned: int, source: int, size: int, stream: Any) -> None:
        """See `Device`."""
        self._do("cudaMemcpyAsync", pinned, source, size, self._out, stream)

    def within(self, target: int, source: int, size: int, stream: Any) -> None:
        """See `Device`."""
        self._do("cudaMemcpyAsync", target, source, size, self._inside, stream)

    def clear(self, target: int, size: int, stream: Any) -> None:
        """See `Device`."""
        self._do("cudaMemsetAsync", target, 0, size, stream)

    def wait(self, stream: Any) -> None:
        """See `Device`."""
        self._do("cudaStreamSynchronize", stream)

    def begin_recording(self, stream: Any) -> None:
        """See `Device`; what other threads do to other streams meanwhile does no harm."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do("cudaStreamBeginCapture", stream, mode)

    def end_recording(self, stream: Any) -> Any:
        """See `Device`."""
        graph = self._do("cudaStreamEndCapture", stream)
        try:
            return self._do("cudaGraphInstantiate", graph, 0)
        finally:
            self._do("cudaGraphDestroy", graph)

    def replay(self, recorded: Any, stream: Any) -> None:
        """See `Device`."""
        self._do("cudaGraphLaunch", recorded, stream)

    def forget(self, recorded: Any) -> None:
        """See `Device`."""
        self._do("cudaGraphExecDestroy", recorded)

    def _do(self, function: str, *arguments: Any) -> Any:
        """Calls CUDA; its error codes become errors."""
        code, *values = getattr(self._cuda, function)(*arguments)
        if code != self._cuda.cudaError_t.cudaSuccess:
            raise self._error(function, code)
        return values[0] if values else None

    def _error(self, function: str, code: Any) -> EngineError:
        cuda = self._cuda
        name, text = (
            answer.decode() if isinstance(answer, bytes) else str(answer)
            for answer in (cuda.cudaGetErrorName(code)[1], cuda.cudaGetErrorString(code)[1])
        )
        hints = {
            "cudaErrorInsufficientDriver": self._older(),
            "cudaErrorMemoryAllocation": "compile it for smaller sizes: limpet compile --axis …",
            "cudaErrorNoDevice": "serve with engine onnxruntime",
        }
        return EngineError(f"CUDA: {function}: {name}, {text}", hints.get(name, ""))

    def _older(self) -> str:
        """The line that installs a runtime which the driver knows."""
        _, version = self._cuda.cudaDriverGetVersion()
        if not version:
            return "install NVIDIA's driver"
        major = version // 1000
        return f"the driver knows CUDA {major}: pip install 'cuda-python=={major}.*'"
