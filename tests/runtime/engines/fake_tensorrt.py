"""A TensorRT that exists in this process only, on its fake GPU, as strict as the real one.

A plan is the ONNX graph, which ONNX Runtime computes.
"""

from __future__ import annotations

import enum
import hashlib
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
from onnx import TensorProto

from limpet.contracts.bundle import Bundle
from limpet.runtime.plans.key import Sidecar, plan_key
from limpet.runtime.plans.libraries import Compiler, Library
from limpet.runtime.plans.profiles import profile_of
from limpet.runtime.plans.store import PlanStore
from tests.runtime.engines.fake_gpu import GPU, FakeDevice

VERSION = "10.3.0"
_PLAN, _KERNELS = b"plan:", b"kernels:"


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, INT64, FP4 = range(8)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(enum.Enum):
    DEVICE, HOST = range(2)


_TYPES = {
    TensorProto.FLOAT: (DataType.FLOAT, "float32"),
    TensorProto.FLOAT16: (DataType.HALF, "float16"),
    TensorProto.INT8: (DataType.INT8, "int8"),
    TensorProto.UINT8: (DataType.UINT8, "uint8"),
    TensorProto.INT32: (DataType.INT32, "int32"),
    TensorProto.INT64: (DataType.INT64, "int64"),
    TensorProto.BOOL: (DataType.BOOL, "bool"),
}


class FakeTensorRT:
    """The library's module: those of its names that an engine uses.

    Args:
        device: The GPU that it computes on.
        name: Which of the two libraries.
    """

    __version__ = VERSION
    DataType, TensorIOMode, TensorLocation = DataType, TensorIOMode, TensorLocation

    class ILogger:
        """A base class for loggers, as the library's is."""

        ERROR, INTERNAL_ERROR, WARNING = range(3)

    def __init__(self, device: FakeDevice, name: Compiler = "tensorrt") -> None:
        self.device, self.name = device, name
        self.contexts = 0
        self.most_contexts = 99
        self.capturable = True
        self.moves_outputs_to_host = False
        self.compiled = 0
        """Kernels that were compiled while plans ran, as that for RTX does: one for each shape."""
        if name == "tensorrt-rtx":
            self.ComputeCapability = SimpleNamespace(__members__={GPU.upper(): 1})

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 (the library's name)
        """Its class `Runtime`."""
        return SimpleNamespace(
            deserialize_cuda_engine=lambda plan: self._engine(plan, logger), logger=logger
        )

    def _engine(self, plan: bytes, logger: Any) -> FakeEngine | None:
        if not plan.startswith(_PLAN):
            logger.log(self.ILogger.ERROR, "the plan is of another version")
            return None
        return FakeEngine(self, plan.removeprefix(_PLAN), logger)


class FakeEngine:
    """An `ICudaEngine`."""

    def __init__(self, library: FakeTensorRT, model: bytes, logger: Any) -> None:
        self.library, self.logger = library, logger
        graph = onnx.load_from_string(model).graph
        self.inputs = {value.name: value for value in graph.input}
        self.tensors = {**self.inputs, **{value.name: value for value in graph.output}}
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        # Of others the real parser makes no plan; none of ours are called so.
        element = self.tensors[name].type.tensor_type.elem_type
        return _TYPES[element][0] if element in _TYPES else DataType.FP4

    def get_tensor_shape(self, name: str) -> list[int]:
        dims = self.tensors[name].type.tensor_type.shape.dim
        return [-1 if dim.HasField("dim_param") else dim.dim_value for dim in dims]

    def get_tensor_location(self, name: str) -> TensorLocation:
        moved = self.library.moves_outputs_to_host and name not in self.inputs
        return TensorLocation.HOST if moved else TensorLocation.DEVICE

    def create_runtime_config(self) -> FakeRuntimeConfig:
        return FakeRuntimeConfig()

    def create_execution_context(
        self, runtime_config: FakeRuntimeConfig | None = None
    ) -> FakeContext | None:
        if self.library.contexts >= self.library.most_contexts:
            self.logger.log(self.library.ILogger.ERROR, "out of memory")
            return None
        self.library.contexts += 1
        config = runtime_config or FakeRuntimeConfig()
        return FakeContext(self, config.get_runtime_cache(), first=self.library.contexts == 1)


class FakeRuntimeCache:
    """An `IRuntimeCache`: names of shapes, which stand for kernels."""

    def __init__(self) -> None:
        self._kernels: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(_KERNELS):
            return False
        self._kernels = set(blob.removeprefix(_KERNELS).decode().split(";"))
        return True

    def serialize(self) -> memoryview:
        return memoryview(_KERNELS + ";".join(sorted(self._kernels)).encode())

    def _lacks(self, kernel: str) -> bool:
        """Whether a kernel had to be compiled; it is here now."""
        before = len(self._kernels)
        self._kernels.add(kernel)
        return len(self._kernels) > before


class FakeRuntimeConfig:
    """An `IRuntimeConfig`."""

    def __init__(self) -> None:
        self._cache = FakeRuntimeCache()

    def create_runtime_cache(self) -> FakeRuntimeCache:
        return FakeRuntimeCache()

    def get_runtime_cache(self) -> FakeRuntimeCache:
        return self._cache

    def set_runtime_cache(self, cache: FakeRuntimeCache) -> bool:
        self._cache = cache
        return True


class FakeContext:
    """An `IExecutionContext`."""

    def __init__(self, engine: FakeEngine, cache: FakeRuntimeCache, *, first: bool) -> None:
        self.engine, self._cache = engine, cache
        self.active_optimization_profile = 0 if first else -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._settled = False
        self._changes = 0
        if engine.library.name == "tensorrt-rtx":
            self.is_stream_capturable = lambda handle: engine.library.capturable

    def set_optimization_profile_async(self, index: int, handle: int) -> bool:
        self.engine.library.device.stream(handle)
        self.active_optimization_profile = index
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        self._changes += 1
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.active_optimization_profile == 0, "no profile was chosen"
        wanted = self.engine.get_tensor_shape(name)
        if len(shape) != len(wanted):
            return False
        self._shapes[name] = tuple(shape)
        self._settled = False
        self._changes += 1
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> list[int]:
        """By the names of axes, which inputs and outputs share."""
        sizes: dict[str, int] = {}
        for known, shape in self._shapes.items():
            dims = self.engine.tensors[known].type.tensor_type.shape.dim
            sizes |= {dim.dim_param: size for dim, size in zip(dims, shape, strict=True)}
        dims = self.engine.tensors[name].type.tensor_type.shape.dim
        return [sizes[dim.dim_param] if dim.dim_param else dim.dim_value for dim in dims]

    def execute_async_v3(self, handle: int) -> bool:
        library = self.engine.library
        stream = library.device.stream(handle)
        if stream.recording is not None and not self._settled:
            # After a change of sizes the first run does work that must not be recorded.
            self.engine.logger.log(library.ILogger.ERROR, "not permitted while recording")
            return False
        if self._addresses.keys() != self.engine.tensors.keys():
            self.engine.logger.log(library.ILogger.ERROR, "a tensor has no address")
            return False
        shapes = {name: tuple(self.get_tensor_shape(name)) for name in self.engine.tensors}
        changes, self._settled = self._changes, True
        if library.name == "tensorrt-rtx":
            library.compiled += self._cache._lacks(str(sorted(self._shapes.items())))

        def compute() -> None:
            assert changes == self._changes, "the context was changed after it was recorded"
            arrays = {
                name: library.device.array(
                    self._addresses[name], _TYPES[value.type.tensor_type.elem_type][1], shapes[name]
                )
                for name, value in self.engine.tensors.items()
            }
            inputs = {name: arrays[name] for name in self.engine.inputs}
            outputs = [name for name in self.engine.tensors if name not in inputs]
            values = self.engine.session.run(outputs, inputs)
            for name, value in zip(outputs, values, strict=True):
                arrays[name][...] = value

        stream.put(compute)
        return True


def fake_library(device: FakeDevice, name: Compiler = "tensorrt") -> Library:
    """The library on a fake GPU."""
    return Library(name, FakeTensorRT(device, name))


def fake_compile(
    bundle: Bundle, name: Compiler = "tensorrt", *, model: bytes = b"", **changed: str
) -> bytes:
    """Puts a plan into a bundle's `engines/`; `changed` parts of its key are another device's, and
    it computes another `model` where one is given.
    """
    key = plan_key(
        bundle,
        changed.get("compute_capability", GPU),
        name,
        changed.get("library_version", VERSION),
    )
    plan = _PLAN + (model or bundle.model_path.read_bytes())
    store = PlanStore(bundle)
    sidecar = Sidecar(
        key=key,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        profile=profile_of(bundle.manifest, {}),
        workspace_bytes=1,
        build_s=0.0,
    )
    with store.locked():
        store.write(plan, sidecar)
    return plan
