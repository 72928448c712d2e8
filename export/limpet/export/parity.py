"""Whether ONNX Runtime computes from the graph what PyTorch computed from the module."""

from __future__ import annotations

import dataclasses

import msgspec
import onnxruntime

from limpet.contracts.golden import Golden, Parity, Run, check_golden
from limpet.contracts.manifest import Manifest
from limpet.contracts.tensors import Tensors

BATCH_SIZES = (1, 2)
"""Sizes at which the golden inputs are run besides all at once."""


def onnx_run(model: bytes, manifest: Manifest, threads: int = 0) -> Run:
    """Runs a graph with ONNX Runtime on the CPU; 0 threads are as many as it likes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in manifest.outputs]

    def run(inputs: Tensors) -> Tensors:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def check_parity(model: bytes, manifest: Manifest, golden: Golden) -> Parity:
    """Runs the golden data through the graph, the inputs at several batch sizes.

    Args:
        model: The graph.
        manifest: Its manifest; the first axis of each input and output is the batch.
        golden: What PyTorch computed.
    """
    run = onnx_run(model, manifest)
    checks = list(check_golden(golden, manifest, run).checks)
    for size in BATCH_SIZES:
        part = dataclasses.replace(
            golden,
            inputs={name: array[:size] for name, array in golden.inputs.items()},
            outputs={name: array[:size] for name, array in golden.outputs.items()},
            signal_rows=None,
            signal_scores=None,
            images=None,
        )
        for check in check_golden(part, manifest, run).checks:
            checks.append(msgspec.structs.replace(check, name=f"batch {size}: {check.name}"))
    return Parity(checks)
