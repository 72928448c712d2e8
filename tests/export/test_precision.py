"""Precision in the graph: what may be lowered is measured, and the rest stays float32."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import DataError, ExportError, UsageError
from limpet.contracts.golden import PREPARED_POINTS, check_golden
from limpet.contracts.grasp_agreement import GRASP_SCORE, LOST_GRASPS
from limpet.contracts.grasps import GraspDecoding
from limpet.contracts.tensors import TensorSpec
from limpet.export.package import export_run
from limpet.export.parity import onnx_run
from limpet.export.precision import tolerances
from limpet.export.precision.choice import HEADROOM, Measure, choose
from limpet.export.precision.convert import Exact, converted
from limpet.export.precision.half import FloatGraph
from limpet.export.precision.tolerances import TOLERANCES, Tolerances
from tests.bundles import onnx_bytes
from tests.command_line import limpet

Capture = pytest.CaptureFixture[str]
REPOSITORY = Path(__file__).resolve().parents[2]
REFERENCE = REPOSITORY / "robot_configs" / "bundles" / "anomaly"
RECORDING = (
    REPOSITORY / "runtime" / "limpet" / "runtime" / "demo" / "recordings"
    / "machine_temperature.csv"
)  # fmt: skip


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "pump"
    assert export_run(run, out).passed
    return read_bundle(out)


def exact(bundle: Bundle) -> Exact:
    return Exact(bundle.model_path.read_bytes(), bundle.manifest, bundle.golden())


def types_of(bundle: Bundle) -> set[int]:
    return {w.data_type for w in onnx.load(bundle.model_path).graph.initializer}


def tiny(*nodes: onnx.NodeProto, **constants: np.ndarray) -> FloatGraph:
    """A graph from x [batch, 4] to y [batch, 4]."""
    x = TensorSpec(name="x", dtype="float32", shape=["batch", 4])
    y = msgspec.structs.replace(x, name="y")
    return FloatGraph(onnx.load_from_string(onnx_bytes(nodes, [x], [y], constants)))


def test_an_fp16_bundle_computes_in_float16_and_still_takes_and_gives_float32(
    bundle: Bundle, tmp_path: Path
) -> None:
    assert export_run(bundle.path, tmp_path / "half", precision="fp16").passed
    half = read_bundle(tmp_path / "half")
    assert half.manifest.precision == "fp16"
    assert half.manifest.space_id == bundle.manifest.space_id
    assert half.manifest.inputs == bundle.manifest.inputs
    assert TensorProto.FLOAT16 in types_of(half)
    assert half.model_path.stat().st_size < bundle.model_path.stat().st_size
    notes = half.manifest.provenance.configuration["export"]
    assert isinstance(notes, dict)
    operations = {n.name: n.op_type for n in onnx.load(half.model_path).graph.node}
    lowered = {operations[name] for name in notes["lowered"]}
    assert lowered & {"Conv", "Gemm", "MatMul"}
    assert "TopK" not in lowered
    assert "TopK" in {operations[name] for name in notes["kept"]}


def test_a_run_is_exported_at_a_precision_as_its_bundle_is(
    run: Path, bundle: Bundle, tmp_path: Path
) -> None:
    export_run(run, tmp_path / "pump", precision="fp16")
    from_bundle = converted(exact(bundle), "fp16", None)
    assert (tmp_path / "pump" / "model.onnx").read_bytes() == from_bundle.model


def test_a_bundle_of_a_lower_precision_is_not_lowered_again(bundle: Bundle, tmp_path: Path) -> None:
    export_run(bundle.path, tmp_path / "half", precision="fp16")
    with pytest.raises(UsageError, match="is fp16 already"):
        export_run(tmp_path / "half", tmp_path / "again", precision="fp16")


def test_int8_has_quantised_weights_and_float_biases(tmp_path: Path) -> None:
    out = tmp_path / "small"
    assert export_run(REFERENCE, out, precision="int8", calibration=RECORDING).passed
    graph = onnx.load(out / "model.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") > 0
    assert TensorProto.INT32 not in {w.data_type for w in graph.initializer}  # a quantised bias
    zeros = [w for w in graph.initializer if w.data_type == TensorProto.INT8]
    assert not any(onnx.numpy_helper.to_array(zero).any() for zero in zeros)  # symmetric
    notes = read_bundle(out).manifest.provenance.configuration["export"]
    assert isinstance(notes, dict)
    assert notes["calibration"]["name"] == RECORDING.name


def test_int8_without_data_is_refused_and_writes_nothing(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    done = limpet(capsys, "export", bundle.path, "--out", tmp_path / "small", "--precision", "int8")
    assert done.code == 2
    assert "takes its ranges from real data, and none was given" in done.err
    assert "--calibration PATH: a recording" in done.err
    assert not (tmp_path / "small").exists()


def test_calibration_without_int8_is_a_usage_error(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fp16 needs no calibration"):
        export_run(bundle.path, tmp_path / "x", precision="fp16", calibration=tmp_path)


def test_data_of_other_channels_calibrates_nothing(bundle: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.zeros((50, 3)))
    with pytest.raises(DataError):
        export_run(
            bundle.path, tmp_path / "x", precision="int8", calibration=tmp_path / "other.npy"
        )


def test_a_model_that_cannot_be_lowered_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = Tolerances(cosine=1.0 - 1e-15, score=0.0, flips=0.0, lost=0.0, grasp_score=0.0)
    monkeypatch.setitem(tolerances.TOLERANCES, "fp16", none)
    with pytest.raises(ExportError, match="no part of pump can be fp16 within"):
        converted(exact(bundle), "fp16", None)


def test_a_lowered_graph_with_a_wrong_weight_does_not_pass(bundle: Bundle) -> None:
    half = converted(exact(bundle), "fp16", None)
    model = onnx.load_from_string(half.model)
    # The largest: a small one may say how absent channels are estimated, and here none is.
    weight = max(
        (w for w in model.graph.initializer if w.data_type == TensorProto.FLOAT16),
        key=lambda w: math.prod(w.dims),
    )
    values = onnx.numpy_helper.to_array(weight) * np.float16(1.5)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    run = onnx_run(model.SerializeToString(), half.manifest)
    assert not check_golden(half.golden, half.manifest, run).passed


def test_rounding_is_simulated_at_every_node() -> None:
    one_and_a_bit = np.array([1.37], np.float32)
    graph = tiny(
        helper.make_node("Mul", ["x", "c"], ["a"], name="first"),
        helper.make_node("Add", ["a", "c"], ["b"], name="second"),
        helper.make_node("Mul", ["b", "c"], ["y"], name="third"),
        c=one_and_a_bit,
    )
    model = graph.halved(["first", "second", "third"], rounded=True)
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (y,) = session.run(None, {"x": x})
    c = one_and_a_bit.astype(np.float16)
    wanted = ((x.astype(np.float16) * c + c) * c).astype(np.float32)
    np.testing.assert_array_equal(y, wanted)


def test_a_number_that_keeps_from_dividing_by_zero_stays_float32() -> None:
    graph = tiny(
        helper.make_node("Max", ["x", "tiny"], ["a"], name="guard"),
        helper.make_node("Mul", ["a", "two"], ["y"], name="double"),
        tiny=np.array([1e-12], np.float32),
        two=np.array([2.0], np.float32),
    )
    assert graph.candidates() == ["double"]


def test_a_part_without_a_product_is_not_worth_its_casts() -> None:
    graph = tiny(
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Relu", ["a"], ["b"], name="beside"),
        helper.make_node("Softmax", ["b"], ["c"], name="softmax"),
        helper.make_node("Relu", ["c"], ["y"], name="alone"),
        w=np.eye(4, dtype=np.float32),
    )
    assert graph.worthwhile(["product", "beside", "alone"]) == {"product", "beside"}


def summed(harm: dict[str, float], measured: list[int] | None = None) -> Measure:
    """Costs that add up; how many were measured is kept."""

    def measure(several: Sequence[Collection[str]]) -> list[float]:
        if measured is not None:
            measured.append(len(several))
        return [sum(harm[name] for name in some) for some in several]

    return measure


def test_the_least_harmful_nodes_are_taken_as_far_as_they_fit_together() -> None:
    harm = {"a": 0.3, "b": 0.1, "c": 0.9, "d": 0.15, "e": 0.2}
    choice = choose([*"abcde"], summed(harm))
    assert choice.chosen == ["b", "d", "e"]
    assert choice.kept == ["a", "c"]
    assert choice.cost == pytest.approx(0.45)
    assert choice.cost <= HEADROOM


def test_nodes_that_fit_all_together_are_measured_once() -> None:
    measured: list[int] = []
    names = [f"node {index}" for index in range(500)]
    choice = choose(names, summed(dict.fromkeys(names, HEADROOM / 1000), measured))
    assert (choice.chosen, choice.kept, measured) == (names, [], [1])


def test_a_few_harmful_ones_among_many_are_found_in_few_measurements() -> None:
    measured: list[int] = []
    names = [f"node {index}" for index in range(500)]
    harmful = {names[index] for index in (3, 4, 250, 499)}
    harm = {name: 1.0 if name in harmful else 1e-4 for name in names}
    choice = choose(names, summed(harm, measured))
    assert set(choice.kept) == harmful
    assert sum(measured) < 75


def test_nothing_is_chosen_where_each_node_harms() -> None:
    choice = choose([*"abc"], summed(dict.fromkeys("abc", 1.0)))
    assert (choice.chosen, choice.kept, choice.cost) == ([], [*"abc"], 0.0)
    assert choose([], summed({})).chosen == []


def test_tolerances_are_those_that_were_promised() -> None:
    assert TOLERANCES["fp16"].cosine >= 0.9995
    assert TOLERANCES["fp16"].flips <= 0.001
    assert TOLERANCES["int8"].cosine >= 0.99


def test_a_policy_stays_float32_where_calibration_is_images_alone(tmp_path: Path) -> None:
    """Images say nothing of goals; an npz of all inputs does."""
    reference = read_bundle(REFERENCE.parent / "navigation")
    golden, images = reference.golden(), tmp_path / "images"
    assert golden.images is not None
    images.mkdir()
    for index, image in enumerate(golden.images):
        Image.fromarray(image).save(images / f"{index}.png")
    np.savez(tmp_path / "inputs.npz", **golden.inputs)  # type: ignore[arg-type]
    graph = onnx.load(reference.model_path).graph
    policy = {node.name for node in graph.node if any("actor." in name for name in node.input)}
    lowered = []
    for calibration in (images, tmp_path / "inputs.npz"):
        model = converted(exact(reference), "int8", calibration).manifest
        notes = model.provenance.configuration["export"]
        assert isinstance(notes, dict)
        lowered.append(set(notes["lowered"]))
        assert not lowered[-1].intersection(notes["kept"])
    assert lowered[0]
    assert not lowered[0] & policy
    assert lowered[1] & policy


def test_tolerances_of_a_task_stay_and_those_of_outputs_become_the_precisions() -> None:
    reference = read_bundle(REFERENCE.parent / "navigation")
    golden = dataclasses.replace(
        reference.golden(), tolerances={"embedding cosine": 0.99999, "prepared": 0.02}
    )
    found = tolerances.loosened(golden, reference.manifest, "fp16").tolerances
    assert found == {
        "embedding cosine": 0.9995,
        "action cosine": 0.9995,
        "next_memory cosine": 0.9995,
        "prepared": 0.02,
    }
    assert tolerances.loosened(golden, reference.manifest, "fp32") is golden


def test_of_grasps_sets_are_compared_and_embeddings() -> None:
    reference = read_bundle(REFERENCE.parent / "navigation")
    manifest = msgspec.structs.replace(reference.manifest, kind="grasp", decoding=GraspDecoding())
    golden = dataclasses.replace(
        reference.golden(), tolerances={PREPARED_POINTS: 0.03, LOST_GRASPS: 0.5, "score": 1.0}
    )
    assert tolerances.loosened(golden, manifest, "int8").tolerances == {
        PREPARED_POINTS: 0.03,
        LOST_GRASPS: 0.5,
        GRASP_SCORE: 0.03,
        "embedding cosine": 0.99,
        "seed_embedding cosine": 0.99,
    }
