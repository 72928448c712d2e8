"""What every engine must do; each test runs over all of them.

TensorRT has a GPU of this process here, see `fake_gpu`; on a real one it is tried by `test_on_gpu`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import helper

from limpet.contracts.bundle import GOLDEN, MODEL, Bundle, write_bundle
from limpet.contracts.errors import BundleError, EngineError
from limpet.contracts.golden import Golden, check_golden
from limpet.contracts.manifest import SCHEMA_VERSION, Manifest
from limpet.contracts.tensors import DTYPES, Tensors, TensorSpec
from limpet.runtime import engines
from limpet.runtime.engines import ENGINES, Engine
from limpet.runtime.engines.trt import TensorRTEngine
from limpet.runtime.plans.key import plan_key
from limpet.runtime.plans.store import PlanStore
from tests.bundles import (
    OPSET,
    anomaly_bundle,
    change_file,
    identity_bundle,
    onnx_bytes,
    tiny_scorer,
)
from tests.runtime.engines.fake_gpu import GPU, FakeDevice
from tests.runtime.engines.fake_tensorrt import VERSION, fake_compile, fake_library

pytestmark = pytest.mark.parametrize("engine", ENGINES)


def open_engine(bundle: Bundle, name: str, threads: int = 1) -> Engine:
    """The engine; on the fake GPU with a plan where it needs one."""
    if name not in ("tensorrt", "tensorrt-rtx"):
        return engines.open_engine(bundle, name, threads)
    fake_compile(bundle, name)  # type: ignore[arg-type]
    plan, sidecar = PlanStore(bundle).read(plan_key(bundle, GPU, name, VERSION))  # type: ignore[arg-type]
    device = FakeDevice()
    return TensorRTEngine(bundle, fake_library(device, name), plan, sidecar, device)  # type: ignore[arg-type]


ON_GPU = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")
"""Element types that TensorRT knows."""


def frames(batch: int, rows: int = 8) -> Tensors:
    """Inputs of `anomaly_bundle`: streams in the middle, with a value absent here and there."""
    rng = np.random.default_rng(batch)
    present = rng.integers(0, 2, size=(batch, rows, 2)).astype(np.float32)
    return {
        "samples": present * rng.normal(size=present.shape).astype(np.float32),
        "present": present,
        "state": rng.normal(size=(batch, 2)).astype(np.float32),
    }


def test_it_says_which_engine_and_device_it_is(engine: str, tmp_path: Path) -> None:
    opened = open_engine(identity_bundle(tmp_path / "identity"), engine)
    assert opened.name == {
        "tensorrt": "tensorrt-sm87",
        "tensorrt-rtx": "tensorrt-rtx-sm87",
    }.get(engine, "onnxruntime-cpu")


def test_it_passes_the_golden_check(engine: str, tmp_path: Path) -> None:
    bundle = anomaly_bundle(tmp_path / "pump")
    opened = open_engine(bundle, engine)
    assert check_golden(bundle.golden(), bundle.manifest, opened.run).passed


def test_it_runs_any_batch_of_any_length_one_after_the_other(engine: str, tmp_path: Path) -> None:
    opened = open_engine(anomaly_bundle(tmp_path / "pump", memory=0.5), engine)
    for batch, rows in ((1, 1), (2, 8), (1, 1), (7, 3), (1, 1024), (256, 8), (1, 2)):
        inputs = frames(batch, rows)
        outputs = opened.run(inputs)
        assert list(outputs) == ["embedding", "score", "next_state"]
        for name, wanted in tiny_scorer(inputs, memory=0.5).items():
            assert outputs[name].dtype == np.float32
            np.testing.assert_allclose(outputs[name], wanted, rtol=1e-5)


def test_the_state_that_it_returned_may_be_given_to_it_again(engine: str, tmp_path: Path) -> None:
    """Row by row as all at once, though what comes out of one run goes into the next."""
    opened = open_engine(anomaly_bundle(tmp_path / "pump", memory=0.5), engine)
    inputs = frames(3, rows=20)
    state, scores = inputs["state"], []
    for row in range(20):
        here = {name: inputs[name][:, row : row + 1] for name in ("samples", "present")}
        outputs = opened.run({**here, "state": state})
        state = outputs["next_state"]
        scores.append(outputs["score"])
    whole = tiny_scorer(inputs, memory=0.5)
    np.testing.assert_allclose(np.concatenate(scores, axis=1), whole["score"], rtol=1e-5)
    np.testing.assert_array_equal(state, whole["next_state"])


def test_what_it_returned_stays_as_it_was(engine: str, tmp_path: Path) -> None:
    """Buffers are not handed out twice."""
    opened = open_engine(identity_bundle(tmp_path / "identity"), engine)
    first_in, second_in = np.ones((2, 4), np.float32), np.zeros((2, 4), np.float32)
    first = opened.run({"x": first_in})["y"]
    opened.run({"x": second_in})
    first_in[:] = 5.0
    np.testing.assert_array_equal(first, np.ones((2, 4)))


def test_what_it_returned_may_be_changed(engine: str, tmp_path: Path) -> None:
    opened = open_engine(identity_bundle(tmp_path / "identity"), engine)
    inputs = {"x": np.ones((2, 4), np.float32)}
    opened.run(inputs)["y"][:] = 7.0
    np.testing.assert_array_equal(opened.run(inputs)["y"], np.ones((2, 4)))


def test_it_takes_memory_that_may_only_be_read(engine: str, tmp_path: Path) -> None:
    """Frames from the wire are not copied."""
    opened = open_engine(identity_bundle(tmp_path / "identity"), engine)
    x = np.frombuffer(np.arange(8, dtype="<f4").tobytes(), "<f4").reshape(2, 4)
    assert not x.flags.writeable
    np.testing.assert_array_equal(opened.run({"x": x})["y"], x)


def test_it_gives_back_what_is_no_number(engine: str, tmp_path: Path) -> None:
    opened = open_engine(identity_bundle(tmp_path / "identity"), engine)
    x = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
    np.testing.assert_array_equal(opened.run({"x": x})["y"], x)


def test_a_run_that_fails_is_typed_and_leaves_it_usable(engine: str, tmp_path: Path) -> None:
    opened = open_engine(anomaly_bundle(tmp_path / "pump"), engine)
    with pytest.raises(EngineError, match="failed"):
        opened.run({**frames(1), "samples": np.zeros((1, 8, 3), np.float32)})
    assert opened.run(frames(1))["score"].shape == (1, 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_carries_every_element_type(engine: str, tmp_path: Path, dtype: str) -> None:
    x = TensorSpec(name="x", dtype=dtype, shape=["batch", 3])
    y = TensorSpec(name="y", dtype=dtype, shape=["batch", 3])
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="typed",
        kind="custom",
        space_id="",
        inputs=[x],
        outputs=[y],
        opset=OPSET,
    )
    files = {
        MODEL: onnx_bytes([helper.make_node("Identity", ["x"], ["y"])], [x], [y]),
        GOLDEN: Golden(inputs={"x": values}, outputs={"y": values}, tolerances={}).encode(),
    }
    bundle = write_bundle(tmp_path / "typed", manifest, files)
    if engine.startswith("tensorrt") and dtype not in ON_GPU:
        with pytest.raises(BundleError, match=r"the plan has input x of no known type"):
            open_engine(bundle, engine)
        return
    returned = open_engine(bundle, engine).run({"x": values})["y"]
    assert returned.dtype == values.dtype
    np.testing.assert_array_equal(returned, values)


def test_a_model_that_is_none_is_refused_by_the_name_of_its_file(
    engine: str, tmp_path: Path
) -> None:
    if engine.startswith("tensorrt"):
        pytest.skip("reads a plan and no graph: see test_trt")
    bundle = identity_bundle(tmp_path / "identity")
    change_file(bundle, MODEL, b"no graph")
    with pytest.raises(EngineError, match=f"cannot load {bundle.model_path}") as caught:
        open_engine(bundle, engine)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ({"name": "input"}, {}, r"the graph's inputs are \['input'\], the manifest says \['x'\]"),
        ({}, {"name": "out"}, r"the graph's outputs are \['out'\], the manifest says \['y'\]"),
        ({"shape": ["batch", 5]}, {"shape": ["batch", 5]}, r"input x float32 \['batch', 5\]"),
        ({"shape": [3, 4]}, {"shape": [3, 4]}, r"input x float32 \[3, 4\]"),
        ({"shape": ["batch", 4, 1]}, {"shape": ["batch", 4, 1]}, "the graph has input x float32"),
        ({"dtype": "float16"}, {"dtype": "float16"}, "the graph has input x float16"),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_states_is_refused(
    engine: str, tmp_path: Path, x: dict[str, Any], y: dict[str, Any], message: str
) -> None:
    bundle = identity_bundle(tmp_path / "identity")
    inside, outside = (
        TensorSpec(**{"dtype": "float32", "shape": ["batch", 4], "name": name, **changes})
        for name, changes in (("x", x), ("y", y))
    )
    node = helper.make_node("Identity", [inside.name], [outside.name])
    change_file(bundle, MODEL, onnx_bytes([node], [inside], [outside]))
    if engine.startswith("tensorrt"):  # its sizes are -1 where they may change
        message = r"the plan('s (in|out)puts are \['|, the manifest says \['| has input x float)"
    with pytest.raises(BundleError, match=message) as caught:
        open_engine(bundle, engine)
    assert str(bundle.path) in caught.value.message


def test_outputs_in_another_order_are_refused(engine: str, tmp_path: Path) -> None:
    if engine.startswith("tensorrt"):
        pytest.skip("a plan has names and no order")
    bundle = anomaly_bundle(tmp_path / "pump")
    swapped = msgspec.structs.replace(bundle.manifest, outputs=bundle.manifest.outputs[::-1])
    with pytest.raises(BundleError, match="the graph's outputs are"):
        open_engine(Bundle(bundle.path, swapped), engine)


def test_threads_do_not_change_the_result(engine: str, tmp_path: Path) -> None:
    bundle = anomaly_bundle(tmp_path / "pump")
    inputs = frames(64)
    one, two = (open_engine(bundle, engine, threads).run(inputs) for threads in (1, 2))
    for name, array in one.items():
        np.testing.assert_allclose(array, two[name], rtol=1e-6)


def test_an_engine_of_a_name_like_it_is_refused_with_the_known(engine: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=f"unknown engine '{engine}x'") as caught:
        engines.open_engine(identity_bundle(tmp_path / "identity"), f"{engine}x")
    assert caught.value.hint == "known: auto, onnxruntime, tensorrt, tensorrt-rtx"
