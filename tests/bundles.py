"""Small real bundles, made without training, and ways to change one after it was written.

`identity_bundle` gives its input back; it measures what everything around a model costs.
`anomaly_bundle` scores a frame by the mean magnitude of its values, so a test can say what the
score of each row must be. With `memory` above 0 it adds that share of the frame before, which its
state carries, so that a state that is lost, or kept where a stream begins anew, changes scores.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from limpet.contracts.bundle import GOLDEN, MANIFEST, MODEL, Bundle, write_bundle
from limpet.contracts.errors import LimpetError
from limpet.contracts.golden import Golden
from limpet.contracts.manifest import (
    SCHEMA_VERSION,
    AnomalyDecoding,
    Calibration,
    Manifest,
    SignalPreprocessing,
    encode_manifest,
)
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signal_steps import (
    Clip,
    HoldLast,
    LookBack,
    SignalStep,
    Standardize,
    features_of,
)
from limpet.contracts.tensors import Tensors, TensorSpec

OPSET = 18
MAX_FILL_ROWS = 3
"""Longest run of missing rows that `anomaly_bundle` fills."""
CLIP = 50.0
"""Largest magnitude of a prepared value in `anomaly_bundle`."""


def onnx_bytes(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    constants: Mapping[str, NDArray[Any]] | None = None,
) -> bytes:
    """A graph as the bytes of `model.onnx`."""

    def value(spec: TensorSpec) -> onnx.ValueInfoProto:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        return helper.make_tensor_value_info(spec.name, element, spec.shape)

    initializers = [
        numpy_helper.from_array(array, name) for name, array in (constants or {}).items()
    ]
    graph = helper.make_graph(
        nodes, "tiny", [*map(value, inputs)], [*map(value, outputs)], initializers
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def identity_bundle(
    path: Path, *, shape: Sequence[int | str] = ("batch", 4), name: str = "identity"
) -> Bundle:
    """A `custom` bundle with one float32 input `x` and one output `y` equal to it."""
    x = TensorSpec(name="x", dtype="float32", shape=list(shape))
    y = msgspec.structs.replace(x, name="y")
    sizes = [size if isinstance(size, int) else 3 for size in shape]
    golden = np.random.default_rng(0).normal(size=sizes).astype(np.float32)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        kind="custom",
        space_id="identity",
        inputs=[x],
        outputs=[y],
        opset=OPSET,
    )
    return write_bundle(
        path,
        manifest,
        {
            MODEL: onnx_bytes([helper.make_node("Identity", ["x"], ["y"])], [x], [y]),
            GOLDEN: Golden(inputs={"x": golden}, outputs={"y": golden}, tolerances={}).encode(),
        },
    )


def anomaly_manifest(
    *,
    channels: Sequence[str] = ("speed", "current"),
    look_back: int = 8,
    rate_hz: float = 10.0,
    threshold: float = 3.0,
    steps: Sequence[SignalStep] | None = None,
    name: str = "tiny-anomaly",
) -> Manifest:
    """The manifest of `anomaly_bundle`; its chain leaves finite values as they are up to `CLIP`."""
    c = len(channels)
    if steps is None:
        steps = [
            HoldLast(max_rows=MAX_FILL_ROWS),
            Standardize(mean=[0.0] * c, scale=[1.0] * c),
            Clip(limit=CLIP),
        ]
    whole = [*steps, LookBack(frames=look_back)]
    f = features_of(whole, c)

    def tensor(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=["batch", *shape])

    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        kind="anomaly",
        space_id="tiny",
        inputs=[tensor("samples", "rows", f), tensor("present", "rows", f), tensor("state", f)],
        outputs=[tensor("embedding", "rows", f), tensor("score", "rows"), tensor("next_state", f)],
        preprocessing=SignalPreprocessing(channels=list(channels), rate_hz=rate_hz, steps=whole),
        decoding=AnomalyDecoding(),
        calibration=Calibration(
            threshold=threshold,
            release_threshold=0.8 * threshold,
            false_alarm_rate=0.01,
            held_out_rows=1000,
        ),
        opset=OPSET,
    )


def tiny_scorer(inputs: Tensors, memory: float = 0.0) -> dict[str, NDArray[np.float32]]:
    """What the graph of `anomaly_bundle` computes, in NumPy."""
    samples = inputs["samples"]
    before = np.concatenate([inputs["state"][:, None], samples[:, :-1]], axis=1)
    now, then = (np.abs(x).mean(axis=2, dtype=np.float32) for x in (samples, before))
    score = now + np.float32(memory) * then
    return {"embedding": samples, "score": score, "next_state": samples[:, -1]}


def anomaly_golden(manifest: Manifest, rows: int = 200, memory: float = 0.0) -> Golden:
    """Golden data of `anomaly_bundle`: noise, a hole, a filled gap and a burst."""
    run = functools.partial(tiny_scorer, memory=memory)
    rng = np.random.default_rng(7)
    signal = manifest.signal()
    c, f = len(signal.channels), features_of(signal.steps, len(signal.channels))
    values = rng.normal(size=(rows, c))
    values[rows // 4] = np.nan
    values[rows // 2 : rows // 2 + 2 * MAX_FILL_ROWS] = np.nan
    values[-rows // 4 :] *= 8.0
    samples = rng.normal(size=(5, 12, f)).astype(np.float32)
    inputs = {
        "samples": samples,
        "present": np.ones_like(samples),
        "state": rng.normal(size=(5, f)).astype(np.float32),
    }
    return Golden(
        inputs=inputs,
        outputs=run(inputs),
        tolerances={
            "score": 1e-5,
            "embedding cosine": 0.9999,
            "next_state": 1e-5,
            "signal score": 1e-5,
        },
        signal_rows=values,
        signal_scores=SignalScorer(manifest, run).push(values).scores,
    )


def anomaly_bundle(path: Path, *, memory: float = 0.0, **options: Any) -> Bundle:
    """An `anomaly` bundle; `options` are those of `anomaly_manifest`."""
    manifest = anomaly_manifest(**options)
    nodes = [
        # Takes an input that does not matter, since a graph has to use what it declares.
        helper.make_node("Mul", ["present", "zero"], ["no_present"]),
        helper.make_node("Add", ["samples", "no_present"], ["embedding"]),
        helper.make_node("Unsqueeze", ["state", "rows"], ["state_row"]),
        helper.make_node("Concat", ["state_row", "samples"], ["from_before"], axis=1),
        helper.make_node("Slice", ["from_before", "start", "end", "rows"], ["before"]),
        *(
            node
            for source, mean in (("embedding", "now"), ("before", "then"))
            for node in (
                helper.make_node("Abs", [source], [f"{source}_magnitude"]),
                helper.make_node(
                    "ReduceMean", [f"{source}_magnitude", "features"], [mean], keepdims=0
                ),
            )
        ),
        helper.make_node("Mul", ["then", "memory"], ["remembered"]),
        helper.make_node("Add", ["now", "remembered"], ["score"]),
        helper.make_node("Gather", ["samples", "last"], ["next_state"], axis=1),
    ]
    constants = {
        "last": np.array(-1, np.int64),
        "start": np.array([0], np.int64),
        "end": np.array([-1], np.int64),
        "rows": np.array([1], np.int64),
        "features": np.array([2], np.int64),
        "memory": np.array(memory, np.float32),
        "zero": np.array(0.0, np.float32),
    }
    return write_bundle(
        path,
        manifest,
        {
            MODEL: onnx_bytes(nodes, manifest.inputs, manifest.outputs, constants),
            GOLDEN: anomaly_golden(manifest, memory=memory).encode(),
        },
    )


def change_file(bundle: Bundle, name: str, content: bytes) -> None:
    """Replaces a file of a bundle, with digest and seal, as somebody with intent would."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = hashlib.sha256(content).hexdigest()

    (bundle.path / name).write_bytes(content)
    change_manifest(bundle, change)


def change_manifest(bundle: Bundle, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest of a bundle in place and seals it anew.

    Args:
        bundle: Whose manifest.
        change: Takes the manifest as plain JSON data. What it leaves need not be a valid
            manifest; then it is written without a seal.
    """
    file = bundle.path / MANIFEST
    data = msgspec.json.decode(file.read_bytes())
    change(data)
    try:
        raw = encode_manifest(msgspec.convert(data, Manifest))
    except (msgspec.ValidationError, LimpetError):
        raw = msgspec.json.encode(data)
    file.write_bytes(raw)
