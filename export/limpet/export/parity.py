"""Whether ONNX Runtime computes from the graph what PyTorch computed from the module."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import onnxruntime

from limpet.contracts.golden import Check, Golden, Parity, Run, check_golden
from limpet.contracts.grasps import GraspDecoding
from limpet.contracts.manifest import Manifest
from limpet.contracts.tensors import Tensors, check_tensors

BATCH_SIZES = (1, 2)
"""Sizes at which the golden inputs are run besides all at once."""
UNIT_WITHIN = 1e-3
"""How far an embedding's length may be from 1."""


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

    Of a model that finds grasps there is no batch; one view alone has to give what its manifest
    says, too.

    Args:
        model: The graph.
        manifest: Its manifest; the first axis of each input and output is the batch.
        golden: What PyTorch computed.
    """
    run = onnx_run(model, manifest)
    checks = list(check_golden(golden, manifest, run).checks)
    if isinstance(manifest.decoding, GraspDecoding):
        return Parity([*checks, _check_one_view(run, manifest, golden, manifest.decoding)])
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


def _check_one_view(run: Run, manifest: Manifest, golden: Golden, decoding: GraspDecoding) -> Check:
    """Whether the first view alone gives outputs of the right shapes, and numbers all of them.

    Raises:
        TensorError: Shapes are not the manifest's.
    """
    outputs = run({name: array[:1] for name, array in golden.inputs.items()})
    check_tensors(manifest.outputs, outputs, "the graph's outputs for one view")
    finite = all(np.isfinite(array).all() for array in outputs.values())
    length = float(np.linalg.norm(outputs[decoding.embedding])) if finite else float("nan")
    off = abs(length - 1.0)
    return Check("one view: embedding's length", off, UNIT_WITHIN, off <= UNIT_WITHIN)
