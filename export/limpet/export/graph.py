"""A PyTorch module as the bytes of `model.onnx`."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from onnxscript import opset18 as op  # torch.onnx.export needs it too: fail before the work begins
from torch import nn

from limpet.contracts.errors import ExportError
from limpet.contracts.tensors import TensorSpec

OPSET = 18
"""ONNX operator set. PyTorch's exporter writes 18 itself and reaches others only through a version
converter; TensorRT's parser knows 9 to 20 since 10.0, so the 10.3 of JetPack 6.1 takes it."""

EXAMPLE_SIZE = 3
"""Size of a dynamic axis while tracing: torch.export takes 0 and 1 for fixed sizes."""


def to_onnx(
    module: nn.Module, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> bytes:
    """Converts a module; the same module gives the same bytes.

    Args:
        module: In evaluation mode, on the CPU.
        inputs: Its positional arguments in order. A named axis becomes a dynamic one of that name.
        outputs: What it returns, in order.

    Raises:
        ExportError: PyTorch cannot convert it, or the graph is not what `inputs` and `outputs` say.
    """
    axes = {name for spec in inputs for name in spec.shape if isinstance(name, str)}
    dimensions = {name: torch.export.Dim(name) for name in sorted(axes)}
    examples = tuple(
        torch.zeros(
            [size if isinstance(size, int) else EXAMPLE_SIZE for size in spec.shape],
            dtype=getattr(torch, spec.dtype),
        )
        for spec in inputs
    )
    dynamic = tuple(
        {axis: dimensions[name] for axis, name in enumerate(spec.shape) if isinstance(name, str)}
        for spec in inputs
    )
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in inputs],
                output_names=[spec.name for spec in outputs],
                dynamic_shapes=dynamic,
                verbose=False,
                custom_translation_table={torch.ops.aten.gelu.default: _gelu},
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(
                f"PyTorch {torch.__version__} cannot convert {type(module).__name__} to ONNX: "
                f"{error}"
            ) from error
    assert program is not None  # only when it was told to write a file instead
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    _check(model, inputs, outputs)
    return bytes(model.SerializeToString(deterministic=True))


def _gelu(x: Any, approximate: str = "none") -> Any:
    """X / 2 · (1 + erf(x / √2)), multiplied in the order that ONNX Runtime makes one kernel of; or
    its approximation by tanh (Hendrycks and Gimpel 2016).
    """
    if approximate == "tanh":
        cubic = op.Add(x, op.Mul(op.Mul(op.Mul(x, x), x), 0.044715))
        part = op.Tanh(op.Mul(cubic, math.sqrt(2.0 / math.pi)))
    else:
        part = op.Erf(op.Div(x, math.sqrt(2.0)))
    return op.Mul(op.Mul(x, 0.5), op.Add(part, 1.0))


def _strip(model: onnx.ModelProto) -> None:
    """Removes the exporter's notes: they hold source lines and paths of this machine."""
    graph = model.graph
    del model.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]  # shapes in between, which every engine works out itself
    graph.name = "main"
    graph.doc_string = model.doc_string = ""
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _check(
    model: onnx.ModelProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    """Whether the graph has the tensors that were asked for, and its weights inside."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise ExportError(f"the graph uses operator sets {opsets}, wanted ONNX's {OPSET} alone")
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ExportError("the graph keeps weights outside its file")
    for what, found, wanted in (
        ("inputs", model.graph.input, inputs),
        ("outputs", model.graph.output, outputs),
    ):
        described = [_describe(value) for value in found]
        if described != [spec.describe() for spec in wanted]:
            raise ExportError(
                f"the graph has {what} {'; '.join(described)}, "
                f"wanted {'; '.join(spec.describe() for spec in wanted)}"
            )


def _describe(value: onnx.ValueInfoProto) -> str:
    """As `TensorSpec.describe`."""
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shape = [axis.dim_param or str(axis.dim_value) for axis in tensor.shape.dim]
    return f"{value.name} {dtype} [{', '.join(shape)}]"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the exporter says about itself: other packages, its own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            # Axes of several inputs that share a name, as is meant.
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
