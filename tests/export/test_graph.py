"""Modules become graphs with named axes, weights inside, and nothing of this machine."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from limpet.contracts.errors import ExportError
from limpet.contracts.tensors import TensorSpec
from limpet.export.graph import OPSET, to_onnx

X = TensorSpec(name="x", dtype="float32", shape=["batch", 4])
Y = TensorSpec(name="y", dtype="float32", shape=["batch", 2])


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).eval()


@pytest.fixture(scope="module")
def graph(module: nn.Module) -> bytes:
    return to_onnx(module, [X], [Y])


def test_a_graph_computes_what_the_module_computes_at_any_batch(
    module: nn.Module, graph: bytes
) -> None:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5, 300):
        x = np.random.default_rng(batch).normal(size=(batch, 4)).astype(np.float32)
        with torch.no_grad():
            wanted = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(session.run(["y"], {"x": x})[0], wanted, atol=1e-6)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_both_kinds_of_gelu_are_written(approximate: str) -> None:
    both = msgspec.structs.replace(Y, shape=["batch", 4])
    module = nn.GELU(approximate=approximate).eval()
    session = onnxruntime.InferenceSession(
        to_onnx(module, [X], [both]), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).normal(size=(50, 4), scale=3.0).astype(np.float32)
    wanted = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.run(["y"], {"x": x})[0], wanted, atol=1e-6)


def test_onnx_runtime_makes_one_kernel_of_a_gelu(graph: bytes, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine alone
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    kernels = {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}
    assert any("Gelu" in kernel for kernel in kernels)
    assert "Erf" not in kernels


def test_axes_have_their_names_and_sizes(graph: bytes) -> None:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [(node.name, node.shape) for node in session.get_inputs()] == [("x", ["batch", 4])]
    assert [(node.name, node.shape) for node in session.get_outputs()] == [("y", ["batch", 2])]


def test_the_operator_set_is_one_that_tensorrt_10_parses(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert OPSET <= 20
    assert model.ir_version <= 10


def test_nothing_in_the_file_tells_where_it_was_made(graph: bytes) -> None:
    for trace in (b".py", b"pkg.torch", str(Path.home()).encode(), str(Path.cwd()).encode()):
        assert trace not in graph


def test_the_same_module_gives_the_same_bytes(module: nn.Module, graph: bytes) -> None:
    assert to_onnx(module, [X], [Y]) == graph


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ({}, {"shape": ["batch", 3]}),
        ({}, {"dtype": "float64"}),
        ({}, {"shape": ["batch"]}),
        ({}, {"shape": ["rows", 2]}),
    ],
)
def test_a_graph_that_is_not_what_was_asked_for_is_refused(
    module: nn.Module, x: dict[str, Any], y: dict[str, Any]
) -> None:
    wanted = TensorSpec(**{"name": "y", "dtype": "float32", "shape": ["batch", 2], **y})
    with pytest.raises(ExportError, match=r"the graph has outputs y float32 \[batch, 2\], wanted"):
        to_onnx(module, [X], [wanted])


def test_a_module_that_cannot_be_converted_is_named() -> None:
    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2] if x.sum() > 0 else -x[:, :2]

    with pytest.raises(ExportError, match="cannot convert Undecided to ONNX"):
        to_onnx(Undecided().eval(), [X], [Y])


def test_converting_says_nothing_and_leaves_loggers_as_they_were(
    module: nn.Module, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_onnx(module, [X], [Y])
    assert logger.level == before
    assert capfd.readouterr() == ("", "")
