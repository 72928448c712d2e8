"""ONNX Runtime on the CPU: the engine that every machine has."""

from __future__ import annotations

import onnxruntime

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import BundleError, EngineError
from limpet.contracts.tensors import Tensors, TensorSpec

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(bool)": "bool"}


class OnnxRuntimeEngine:
    """One ONNX Runtime session on the CPU execution provider.

    Args:
        bundle: The bundle to load.
        threads: Threads inside one operator; operators run one after another.

    Raises:
        EngineError: ONNX Runtime cannot load the model.
        BundleError: The graph's inputs or outputs are not those that the manifest states.
    """

    name = "onnxruntime-cpu"

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors only: warnings of the optimiser tell users nothing
        # Spinning between calls would burn the core that the next request needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.model_path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library's own types are not one family
            raise EngineError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {bundle.model_path}: {error}",
                "export the model again, or install a newer onnxruntime",
            ) from error
        _check_graph(bundle, self._session.get_inputs(), bundle.manifest.inputs, "inputs")
        _check_graph(bundle, self._session.get_outputs(), bundle.manifest.outputs, "outputs")
        self._outputs = [spec.name for spec in bundle.manifest.outputs]

    def run(self, inputs: Tensors) -> Tensors:
        """See `Engine.run`."""
        try:
            values = self._session.run(self._outputs, inputs)
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error
        return dict(zip(self._outputs, values))  # noqa: B905 (`run` gives as many as it is asked for)


def _check_graph(
    bundle: Bundle, found: list[onnxruntime.NodeArg], wanted: list[TensorSpec], what: str
) -> None:
    """Whether names, dtypes, ranks and fixed sizes of the graph are the manifest's."""
    graph = {node.name: node for node in found}
    if list(graph) != [spec.name for spec in wanted]:
        raise BundleError(
            f"{bundle.path}: the graph's {what} are {list(graph)}, "
            f"the manifest says {[spec.name for spec in wanted]}",
            "export the model again",
        )
    for spec in wanted:
        node = graph[spec.name]
        dtype = _DTYPES.get(node.type, node.type.removeprefix("tensor(").removesuffix(")"))
        shape = node.shape
        fits = len(shape) == len(spec.shape) and all(
            not isinstance(size, int) or size == want
            for size, want in zip(shape, spec.shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            raise BundleError(
                f"{bundle.path}: the graph has {what[:-1]} {spec.name} {dtype} {shape}, "
                f"the manifest says {spec.describe()}",
                "export the model again",
            )
