"""A plan's inputs and outputs beside those of the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import BundleError, EngineError
from limpet.contracts.tensors import TensorSpec

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def shape_of(spec: TensorSpec, axes: Mapping[str, int]) -> tuple[int, ...]:
    """A tensor's shape where its dynamic axes have these sizes.

    Raises:
        EngineError: The size of one of its axes is not among them.
    """
    try:
        return tuple(axes[size] if isinstance(size, str) else size for size in spec.shape)
    except KeyError as error:
        raise EngineError(
            f"{spec.describe()}: no input has an axis {error}, so nobody knows its size before "
            "the model has run",
            "serve it with onnxruntime",
        ) from error


def check_plan(bundle: Bundle, engine: Any, trt: Any, command: str) -> None:
    """Whether a plan's inputs and outputs are the manifest's, and on the GPU.

    Args:
        bundle: The bundle.
        engine: The library's engine.
        trt: The library's module.
        command: What builds the plan.

    Raises:
        BundleError: They are not.
        EngineError: The plan wants one of them in the host's memory.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for what, mode, specs in (
        ("inputs", trt.TensorIOMode.INPUT, bundle.manifest.inputs),
        ("outputs", trt.TensorIOMode.OUTPUT, bundle.manifest.outputs),
    ):
        found = {name for name in names if engine.get_tensor_mode(name) == mode}
        if found != {spec.name for spec in specs}:
            raise BundleError(
                f"{bundle.path}: the plan's {what} are {sorted(found)}, "
                f"the manifest says {sorted(spec.name for spec in specs)}",
                f"build it anew with: {command} --force",
            )
        for spec in specs:
            dtype = _DTYPES.get(engine.get_tensor_dtype(spec.name).name, "of no known type")
            shape = tuple(engine.get_tensor_shape(spec.name))
            wanted = tuple(-1 if isinstance(size, str) else size for size in spec.shape)
            fits = len(shape) == len(wanted) and all(
                size in (-1, want) for size, want in zip(shape, wanted, strict=True)
            )
            if dtype != spec.dtype or not fits:
                raise BundleError(
                    f"{bundle.path}: the plan has {what[:-1]} {spec.name} {dtype} {list(shape)}, "
                    f"the manifest says {spec.describe()}",
                    "serve it with onnxruntime",
                )
            if engine.get_tensor_location(spec.name) != trt.TensorLocation.DEVICE:
                raise EngineError(
                    f"{bundle.path}: the plan wants {spec.name} in the host's memory",
                    "serve it with onnxruntime",
                )
