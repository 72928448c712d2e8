"""Bring your own encoder: a PyTorch module or an ONNX file as a bundle of kind `custom`."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
from torch import nn

from limpet.contracts.array_files import DAMAGE
from limpet.contracts.errors import DataError, ExportError, LimpetError, TensorError, UsageError
from limpet.contracts.golden import Golden
from limpet.contracts.manifest import SCHEMA_VERSION, Manifest
from limpet.contracts.tensors import Array, Tensors, TensorSpec, check_tensors
from limpet.export.graph import OPSET, to_onnx
from limpet.export.precision.convert import Exact
from limpet.export.provenance import weights_digest
from limpet.export.runs import torch_run

GOLDEN_BATCH = 4
OTHER_SIZE = 3
"""Size of the batch, and of any other dynamic axis, where golden inputs are drawn."""
RELATIVE = 1e-4
"""Largest difference of an output, as a part of its largest magnitude, at least of 1."""


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Contents of a SPEC.toml.

    Attributes:
        inputs: The model's inputs, in order; the first axis of each tensor is the batch.
        outputs: Its outputs, in order.
        golden_inputs: An npz of inputs to prove the bundle with, beside the SPEC. Where there is
            none they are drawn: from a tensor's range, or normally distributed.
        tolerances: Largest difference by output, or smallest cosine by `OUTPUT cosine`, of the
            float32 bundle.
    """

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    golden_inputs: str = ""
    tolerances: dict[str, float] = {}


def read_spec(path: Path) -> Spec:
    """Reads a SPEC.toml.

    Raises:
        UsageError: It cannot be read, or something in it is missing, unknown or wrong.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Spec)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, TensorError) as error:
        raise UsageError(
            f"{path} is no specification: {error}",
            "wanted [[inputs]] and [[outputs]], each with name, dtype and shape",
        ) from error


def from_module(target: str, spec_file: Path, name: str) -> Exact:
    """A module that a function returns, as a float32 model.

    Args:
        target: `package:function`; the current folder is searched too.
        spec_file: Its SPEC.toml.
        name: The model's name.

    Raises:
        UsageError: There is no such function, it returns no module, or one that does not take
            what the specification says.
        ExportError: PyTorch cannot convert it.
    """
    spec = read_spec(spec_file)
    package, _, function = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = getattr(importlib.import_module(package), function)()
    except Exception as error:  # a user's own code may raise anything
        raise UsageError(
            f"--module {target} gives no model: {type(error).__name__}: {error}",
            "say package:function, a function without arguments that returns a torch.nn.Module",
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(module, nn.Module):
        raise UsageError(f"{target} returned a {type(module).__name__}, wanted a torch.nn.Module")
    module = module.cpu().eval()
    manifest = _manifest(name, spec, weights_digest(module), OPSET)
    inputs = _golden_inputs(spec, spec_file.parent)
    try:
        outputs = torch_run(module, manifest)(inputs)
    except Exception as error:  # as above, of its `forward`
        raise UsageError(
            f"--module {target} fails on inputs as {spec_file} describes them "
            f"({'; '.join(one.describe() for one in spec.inputs)}): "
            f"{type(error).__name__}: {error}",
            "let [[inputs]] be in the order and of the dtypes and shapes that its forward takes",
        ) from error
    golden = _golden(spec, manifest, inputs, outputs)
    return Exact(to_onnx(module, spec.inputs, spec.outputs), manifest, golden)


def from_onnx(path: Path, spec_file: Path | None, name: str) -> Exact:
    """An ONNX file as a float32 model. Its golden outputs are those of the graph as it is written,
    without any optimisation.

    Args:
        path: The file; weights beside it are taken in.
        spec_file: A SPEC.toml, where units, ranges or golden inputs are to be said.
        name: The model's name.

    Raises:
        ExportError: It is no ONNX graph that ONNX Runtime can run.
        UsageError: The specification does not fit.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        raw = bytes(model.SerializeToString(deterministic=True))
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # neither library's own types are one family
        raise ExportError(f"{path} is no ONNX model that can be run: {error}") from error
    spec = _described(model) if spec_file is None else read_spec(spec_file)
    found = [one.name for one in (*model.graph.input, *model.graph.output)]
    wanted = [one.name for one in (*spec.inputs, *spec.outputs)]
    if found != wanted:
        raise UsageError(f"{path} has tensors {found}, {spec_file} says {wanted}")
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    manifest = _manifest(name, spec, hashlib.sha256(raw).hexdigest(), opset)
    inputs = _golden_inputs(spec, (spec_file or path).parent)
    names = [one.name for one in spec.outputs]
    outputs = dict(zip(names, session.run(names, dict(inputs)), strict=True))
    return Exact(raw, manifest, _golden(spec, manifest, inputs, outputs))


def _described(model: onnx.ModelProto) -> Spec:
    """What a graph says of its tensors."""

    def spec(value: onnx.ValueInfoProto) -> TensorSpec:
        tensor = value.type.tensor_type
        shape = [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        return TensorSpec(name=value.name, dtype=dtype, shape=shape)

    graph = model.graph
    try:
        return Spec(inputs=[*map(spec, graph.input)], outputs=[*map(spec, graph.output)])
    except (LimpetError, KeyError) as error:
        raise ExportError(f"the graph has tensors that no bundle has: {error}") from error


def _manifest(name: str, spec: Spec, digest: str, opset: int) -> Manifest:
    batches = {one.shape[0] if one.shape else 1 for one in (*spec.inputs, *spec.outputs)}
    if len(batches) != 1 or not isinstance(next(iter(batches)), str):
        tensors = "; ".join(one.describe() for one in (*spec.inputs, *spec.outputs))
        raise UsageError(
            f"the first axes of {tensors} are not one dynamic axis",
            'the server makes batches: let each shape begin with "batch"',
        )
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        kind="custom",
        space_id=digest,
        inputs=spec.inputs,
        outputs=spec.outputs,
        opset=opset,
    )


def _golden_inputs(spec: Spec, folder: Path) -> Tensors:
    """Those that were given, else drawn ones: the same each time."""
    if not spec.golden_inputs:
        rng = np.random.default_rng(0)
        return {one.name: _draw(one, rng) for one in spec.inputs}
    path = folder / spec.golden_inputs
    try:
        with path.open("rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))
        check_tensors(spec.inputs, arrays, f"{path}")
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except TensorError as error:
        raise DataError(error.message, error.hint) from error
    return arrays


def _draw(spec: TensorSpec, rng: np.random.Generator) -> Array:
    axes = [size if isinstance(size, int) else OTHER_SIZE for size in spec.shape[1:]]
    shape, dtype = [GOLDEN_BATCH, *axes], np.dtype(spec.dtype)
    if dtype.kind == "f":
        if spec.range is None:
            return rng.normal(size=shape).astype(dtype)
        return rng.uniform(*spec.range, shape).astype(dtype)
    low, high = spec.range or (0, 1)
    return rng.integers(int(low), int(high), shape, endpoint=True).astype(dtype)


def _golden(
    spec: Spec, manifest: Manifest, inputs: Tensors, outputs: Mapping[str, Array]
) -> Golden:
    try:
        check_tensors(manifest.outputs, outputs, "what the model gives")
    except TensorError as error:
        raise UsageError(error.message, error.hint) from error
    tolerances = dict(spec.tolerances)
    for name, array in outputs.items():
        if not {name, f"{name} cosine"} & tolerances.keys():
            largest = float(np.abs(array.astype(np.float64)).max(initial=1.0))
            tolerances[name] = RELATIVE * largest
    return Golden(inputs=inputs, outputs=outputs, tolerances=tolerances)
