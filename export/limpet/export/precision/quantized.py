"""INT8 in the graph: Q/DQ pairs around products, as TensorRT and ONNX Runtime both read them."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import (
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    create_calibrator,
)

from limpet.contracts.tensors import Array, Tensors
from limpet.export.precision.half import PRODUCTS, FloatGraph


class QuantizableGraph:
    """A float32 graph with the range of every product's inputs.

    Args:
        graph: The graph.
        data: Inputs on real data. What depends on an input that they lack has no ranges, and so
            stays float32: the policy, where they are images.
    """

    def __init__(self, graph: FloatGraph, data: Sequence[Tensors]) -> None:
        self._model = graph.model
        self._unknown = {value.name for value in graph.model.graph.input} - data[0].keys()
        with tempfile.TemporaryDirectory(prefix="limpet-") as folder:
            file = Path(folder) / "model.onnx"
            onnx.save(self._model, file)
            calibrator = create_calibrator(
                str(file),
                sorted(PRODUCTS),
                str(Path(folder) / "augmented.onnx"),
                CalibrationMethod.MinMax,
                extra_options={"symmetric": True},
            )
            calibrator.collect_data(_Reader([{**self._zeros(call), **call} for call in data]))
            self._ranges = calibrator.compute_data()

    def candidates(self) -> list[str]:
        """Names of the products with a constant weight and known ranges, in order of computation.

        ONNX Runtime cannot run a product of stacked matrices whose weights have a scale a channel.
        """
        weights = {weight.name: weight for weight in self._model.graph.initializer}
        unknown = set(self._unknown)
        for node in self._model.graph.node:
            if unknown.intersection(node.input):
                unknown.update(node.output)
        return [
            node.name
            for node in self._model.graph.node
            if node.op_type in PRODUCTS
            and unknown.isdisjoint(node.input)
            and node.input[1] in weights
            and (node.op_type != "MatMul" or len(weights[node.input[1]].dims) == 2)
        ]

    def quantized(self, chosen: Collection[str]) -> onnx.ModelProto:
        """The graph with Q/DQ pairs at the inputs of the chosen products.

        Symmetric, weights by output channel and a float32 bias: TensorRT's parser takes no other.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        quantizer = QDQQuantizer(
            model,
            True,  # per channel
            False,  # the whole range of 8 bits
            QuantType.QInt8,
            QuantType.QInt8,
            self._ranges,
            sorted(chosen),
            [],
            sorted(PRODUCTS),
            {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "AddQDQPairToWeight": True,
                "OpTypesToExcludeOutputQuantization": sorted(PRODUCTS),
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        result: onnx.ModelProto = quantizer.model.model
        used = {node.domain for node in result.graph.node}
        opsets = [entry for entry in result.opset_import if entry.domain in used]
        del result.opset_import[:]
        result.opset_import.extend(opsets)
        result.producer_name, result.producer_version = (
            self._model.producer_name,
            self._model.producer_version,
        )
        onnx.checker.check_model(result, full_check=True)
        return result

    def _zeros(self, call: Tensors) -> dict[str, Array]:
        """Inputs that nothing is known of, for as many rows as the others have."""
        rows = len(next(iter(call.values())))
        found: dict[str, Array] = {}
        for value in self._model.graph.input:
            if value.name in self._unknown:
                kind = value.type.tensor_type
                sizes = [dim.dim_value or rows for dim in kind.shape.dim]
                found[value.name] = np.zeros(sizes, helper.tensor_dtype_to_np_dtype(kind.elem_type))
        return found


class _Reader:
    """Hands inputs to the calibrator one after another."""

    def __init__(self, data: Sequence[Tensors]) -> None:
        self._data: Iterator[Tensors] = iter(data)

    def get_next(self) -> dict[str, object] | None:
        inputs = next(self._data, None)
        return None if inputs is None else dict(inputs)

    def __len__(self) -> int:
        return 0
