"""Float16 in the graph: chosen nodes compute in it, the rest and all inputs and outputs do not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operations that take the time, and for which devices have half-precision units."""
MOVERS = frozenset(
    {
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operations that round nothing: they keep the type of what they move."""
SENSITIVE = frozenset(
    {
        "BatchNormalization",
        "Erf",
        "Exp",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "Pow",
        "Reciprocal",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
        "Sqrt",
        "TopK",
    }
)
"""Norms, sums, exponentials and choices of neighbours: how large they grow depends on inputs that
no golden data holds, so they stay float32 whatever is measured."""
_FLOAT16 = "tensor(float16)"
_OPAQUE = frozenset({"Cast", "CastLike", "Constant", "ConstantOfShape", "QuantizeLinear"})
"""Operations whose types are not those of what flows through them."""


class FloatGraph:
    """A float32 graph with its tensors' types, to be converted as often as a search asks.

    Args:
        model: The graph. Its nodes get names where they have none.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        for index, node in enumerate(self.model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
        graph = onnx.shape_inference.infer_shapes(self.model, strict_mode=True).graph
        values = [*graph.input, *graph.output, *graph.value_info]
        self._floats = {
            value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self._weights = {
            weight.name: weight
            for weight in graph.initializer
            if weight.data_type == TensorProto.FLOAT
        }
        self._opset = next(entry.version for entry in model.opset_import if not entry.domain)

    @property
    def nodes(self) -> Collection[NodeProto]:
        """All nodes, in order of computation."""
        return list(self.model.graph.node)

    def candidates(self) -> list[str]:
        """Names of the nodes that round and for which ONNX knows float16, in order."""
        return [
            node.name
            for node in self.nodes
            if node.op_type not in MOVERS | SENSITIVE
            and any(self._halved(node, outputs=True))
            and not self._out_of_range(node)
        ]

    def worthwhile(self, chosen: Collection[str]) -> set[str]:
        """The chosen nodes without those that only casts would surround.

        Nodes that move values join where all that they move is float16 already. Then connected
        parts without a product go: their casts would cost more than they save.
        """
        half = set(chosen)
        made_half: set[str] = set()
        for node in self.nodes:
            moved = [name for name in node.input if name in self._floats]
            if node.op_type in MOVERS and moved and made_half.issuperset(moved):
                half.add(node.name)
            if node.name in half:
                made_half.update(name for name in node.output if name in self._floats)
        parts: dict[str, str] = {}  # tensor → representative, union-find

        def root(name: str) -> str:
            while parts.setdefault(name, name) != name:
                name = parts[name]
            return name

        inside = [node for node in self.nodes if node.name in half]
        for node in inside:
            joined = [*(name for name in node.input if name in made_half), *node.output]
            for name in joined[1:]:
                parts[root(name)] = root(joined[0])
        useful = {root(node.output[0]) for node in inside if node.op_type in PRODUCTS}
        return {node.name for node in inside if root(node.output[0]) in useful}

    def halved(self, chosen: Collection[str], *, rounded: bool = False) -> onnx.ModelProto:
        """The graph with the chosen nodes in float16.

        Args:
            chosen: Names of nodes.
            rounded: Compute each of them in float32 between float16 tensors. ONNX Runtime has few
                float16 kernels for the CPU and keeps what lies between two of the others in
                float32, so only this shows what rounding does on a device that has them.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        halves: dict[str, str] = {}  # float32 tensor → its float16 twin
        nodes: list[NodeProto] = []
        consumers = self._consumers()

        def half_of(name: str) -> str:
            if name in halves:
                return halves[name]
            halves[name] = f"{name}.half"
            if name in self._weights:
                array = numpy_helper.to_array(self._weights[name])
                weight = array.astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(weight, halves[name]))
            else:
                nodes.append(_cast(name, halves[name], TensorProto.FLOAT16))
            return halves[name]

        kept = {value.name for value in graph.output}
        for node in graph.node:
            if node.name not in chosen:
                nodes.append(node)
                continue
            before, after = [], []
            for index, takes in enumerate(self._halved(node, outputs=False)):
                if takes:
                    half = node.input[index] = half_of(node.input[index])
                    if rounded:
                        node.input[index] = f"{half}.{node.name}.{index}"
                        before.append(_cast(half, node.input[index], TensorProto.FLOAT))
            for index, gives in enumerate(self._halved(node, outputs=True)):
                if gives:
                    name = node.output[index]
                    half = node.output[index] = halves[name] = f"{name}.half"
                    if rounded:
                        node.output[index] = f"{name}.exact"
                        after.append(_cast(node.output[index], half, TensorProto.FLOAT16))
                    if name in kept or consumers[name] - set(chosen):
                        after.append(_cast(half, name, TensorProto.FLOAT))
            nodes += [*before, node, *after]
        del graph.node[:]
        graph.node.extend(nodes)
        used = {name for node in graph.node for name in node.input}
        weights = [weight for weight in graph.initializer if weight.name in used]
        del graph.initializer[:]
        graph.initializer.extend(weights)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _out_of_range(self, node: NodeProto) -> bool:
        """Whether a weight would become infinite, or a number that keeps from dividing by 0 zero.

        Single numbers only: a weight among many may vanish without harm, which is measured.
        """
        for name in node.input:
            if name in self._weights:
                array = np.abs(numpy_helper.to_array(self._weights[name]))
                limits = np.finfo(np.float16)
                if array.max(initial=0.0) > limits.max:
                    return True
                if array.size == 1 and 0.0 < array.min() < limits.tiny:
                    return True
        return False

    def _consumers(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for node in self.nodes:
            for name in node.input:
                found[name].add(node.name)
        return found

    def _halved(self, node: NodeProto, *, outputs: bool) -> Iterator[bool]:
        """For each input or output of a node whether it would be float16."""
        schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        types = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
        opaque = node.op_type in _OPAQUE or any(
            attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
            for attribute in node.attribute
        )
        formal = schema.outputs if outputs else schema.inputs
        known = self._floats | self._weights.keys()
        for index, name in enumerate(node.output if outputs else node.input):
            parameter = formal[min(index, len(formal) - 1)]  # the last one may be variadic
            yield not opaque and name in known and _FLOAT16 in types.get(parameter.type_str, [])


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast {source} to {target}", to=to)
