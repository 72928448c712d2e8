"""Writes `limpet/runtime/bench/stream.onnx`, which scores a row by its mean magnitude.

python -m tests.runtime.bench.stream_model
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from limpet.runtime.bench import stream_bundle

FILE = Path(stream_bundle.__file__).with_name("stream.onnx")


def make() -> onnx.ModelProto:
    """The model."""
    c = len(stream_bundle.CHANNELS)

    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["samples", "present"], ["embedding"]),
            helper.make_node("Abs", ["embedding"], ["magnitude"]),
            helper.make_node("ReduceMean", ["magnitude"], ["score"], axes=[2], keepdims=0),
            helper.make_node("Gather", ["embedding", "last"], ["newest"], axis=1),
            helper.make_node("Add", ["newest", "state"], ["next_state"]),
        ],
        "stream",
        [value("samples", "rows", c), value("present", "rows", c), value("state", c)],
        [value("embedding", "rows", c), value("score", "rows"), value("next_state", c)],
        [numpy_helper.from_array(np.array(-1, np.int64), "last")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    FILE.write_bytes(make().SerializeToString())
