"""Writes `limpet/runtime/bench/work.onnx`, whose runs take as long as is asked of them.

    python -m tests.runtime.bench.work_model

`y` is `x`; beside that a loop multiplies 64 x 64 matrices, one for each item of the batch, as often
as an initializer says, in whose place `limpet.runtime.bench.work` writes a number of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from limpet.runtime.bench import work

FILE = Path(work.__file__).with_suffix(".onnx")
SIZE = 64


def make() -> onnx.ModelProto:
    """The model."""
    matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))[0]
    weights = numpy_helper.from_array(matrix.astype(np.float32), "w")
    start = numpy_helper.from_array(np.eye(SIZE, dtype=np.float32)[:1], "start")
    sizes = numpy_helper.from_array(np.array([SIZE, SIZE]), "sizes")
    steps = helper.make_tensor(
        "steps", TensorProto.INT64, [], work.PLACE.to_bytes(8, "little"), raw=True
    )
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", SIZE, SIZE]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch", SIZE, SIZE]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["x"], ["items"], start=0, end=1),
            helper.make_node("Concat", ["items", "sizes"], ["all_sizes"], axis=0),
            helper.make_node("Expand", ["start", "all_sizes"], ["h0"]),
            helper.make_node("Loop", ["steps", "", "h0"], ["h_end"], body=body),
            helper.make_node("ReduceMax", ["h_end"], ["top"], keepdims=0),
            helper.make_node("Mul", ["top", "nothing"], ["bias"]),
            helper.make_node("Add", ["x", "bias"], ["y"]),
        ],
        "work",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "size"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "size"])],
        [weights, start, sizes, steps, numpy_helper.from_array(np.float32(0.0), "nothing")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    FILE.write_bytes(make().SerializeToString())
