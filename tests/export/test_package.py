"""From a RUN to a bundle: proven before it appears, and nothing appears that is not proven."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from limpet.contracts.bundle import GOLDEN, MANIFEST, MODEL, Bundle, read_bundle
from limpet.contracts.errors import DataError
from limpet.contracts.golden import check_golden
from limpet.contracts.scores_file import read_scores
from limpet.contracts.scoring import SignalScorer, StreamingModel
from limpet.contracts.signal_preprocessor import SignalPreprocessor
from limpet.contracts.signal_steps import HoldLast
from limpet.export import package
from limpet.export.graph import OPSET
from limpet.export.package import export_run
from limpet.export.parity import check_parity
from limpet.export.provenance import weights_digest
from limpet.export.runs import torch_run
from limpet.runtime.engines import open_engine
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.model import load_scorer
from limpet.training.run import RECORD, WEIGHTS
from tests.command_line import limpet

CONFIG = AnomalyConfig()
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "pump"
    assert export_run(run, out).passed
    return read_bundle(out)


@pytest.fixture
def no_conversion(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    """Takes the graph that is there already, which saves seconds."""
    monkeypatch.setattr(package, "to_onnx", lambda *_: bundle.model_path.read_bytes())


def with_another_weight(model: bytes) -> bytes:
    """The graph with one weight of its encoder changed."""
    graph = onnx.load_from_string(model)
    (weight,) = [w for w in graph.graph.initializer if w.name == "encoder.head.weight"]
    values = numpy_helper.to_array(weight).copy()
    values[0] += 0.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return bytes(graph.SerializeToString())


def without(model: bytes, name: str, factor: float, offset: float) -> bytes:
    """The graph with an input replaced by factor · input + offset."""
    graph = onnx.load_from_string(model)
    for node in graph.graph.node:
        for place, source in enumerate(node.input):
            if source == name:
                node.input[place] = "spoilt"
    for constant, value in (("factor", factor), ("offset", offset)):
        array = np.array(value, np.float32)
        graph.graph.initializer.append(numpy_helper.from_array(array, constant))
    graph.graph.node.insert(0, helper.make_node("Add", ["scaled", "offset"], ["spoilt"]))
    graph.graph.node.insert(0, helper.make_node("Mul", [name, "factor"], ["scaled"]))
    return bytes(graph.SerializeToString())


WRONG = {
    "another weight": with_another_weight,
    "the state ignored": lambda model: without(model, "state", 0.0, 0.0),
    "absence ignored": lambda model: without(model, "present", 0.0, 1.0),
}
"""What may have gone wrong with a graph."""


def test_the_bundle_holds_what_a_robot_needs_and_no_more(bundle: Bundle) -> None:
    assert sorted(os.listdir(bundle.path)) == sorted([MANIFEST, MODEL, GOLDEN])
    assert os.listdir(bundle.path.parent) == [bundle.path.name]


def test_the_manifest_says_what_the_model_is(bundle: Bundle, run: Path) -> None:
    manifest = bundle.manifest
    scorer, record = load_scorer(run)
    assert (manifest.name, manifest.kind, manifest.precision) == ("pump", "anomaly", "fp32")
    assert manifest.opset == OPSET
    size = scorer.state_size
    assert [spec.describe() for spec in manifest.inputs] == [
        "samples float32 [batch, rows, 2]",
        "present float32 [batch, rows, 2]",
        f"state float32 [batch, {size}]",
    ]
    assert [spec.describe() for spec in manifest.outputs] == [
        f"embedding float32 [batch, rows, {CONFIG.embedding}]",
        "score float32 [batch, rows]",
        f"next_state float32 [batch, {size}]",
    ]
    assert manifest.signal().look_back.frames == scorer.look_back_frames == 9
    assert manifest.preprocessing == record.preprocessing
    assert manifest.signal().channels == ["speed", "current"]
    assert manifest.signal().rate_hz == 10.0
    assert manifest.calibration == record.calibration


def test_the_manifest_says_where_the_model_comes_from(bundle: Bundle, run: Path) -> None:
    provenance, record = bundle.manifest.provenance, load_scorer(run)[1]
    assert provenance.command == "limpet train anomaly …"
    assert provenance.configuration == record.config
    assert provenance.data == record.data
    assert provenance.metrics == record.metrics
    assert provenance.created == record.created
    assert {"torch", "export torch", "export onnx", "export onnxruntime"} <= set(
        provenance.versions
    )


def test_an_engine_of_the_robot_computes_what_pytorch_computed(bundle: Bundle) -> None:
    engine = open_engine(bundle)
    parity = check_golden(bundle.golden(), bundle.manifest, engine.run)
    assert parity.passed, parity


def test_the_engine_scores_new_rows_as_pytorch_does(bundle: Bundle, run: Path) -> None:
    rows = np.random.default_rng(5).normal(size=(700, 2))
    rows[300] = np.nan
    found, wanted = (
        SignalScorer(bundle.manifest, engine).push(rows).scores
        for engine in (open_engine(bundle).run, torch_run(load_scorer(run)[0], bundle.manifest))
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_engine_gives_the_same_scores_in_any_chunking(bundle: Bundle, chunk: int) -> None:
    rows = np.random.default_rng(6).normal(size=(200, 2))
    rows[60:90, 1] = np.nan
    rows[120:140] = np.nan
    engine = open_engine(bundle)
    whole = SignalScorer(bundle.manifest, engine.run).push(rows).scores
    scorer = SignalScorer(bundle.manifest, engine.run)
    parts = [scorer.push(rows[start : start + chunk]).scores for start in range(0, 200, chunk)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)


@pytest.mark.parametrize(("streams", "chunk"), [(1, 1), (1, 64), (3, 5), (7, 40)])
@torch.no_grad()
def test_the_graph_has_free_batch_and_rows_and_agrees_with_pytorch_in_any_chunking(
    bundle: Bundle, run: Path, streams: int, chunk: int
) -> None:
    rng = np.random.default_rng(streams)
    present = (rng.random((streams, 64, 2)) < 0.9).astype(np.float32)
    samples = rng.standard_normal((streams, 64, 2)).astype(np.float32) * present
    scorer, _ = load_scorer(run)
    nothing = np.zeros((streams, scorer.state_size), np.float32)
    wanted = [x.numpy() for x in scorer(*map(torch.from_numpy, (samples, present, nothing)))]
    model = StreamingModel(bundle.manifest, open_engine(bundle).run)
    state, parts = nothing, []
    for start in range(0, 64, chunk):
        here = slice(start, start + chunk)
        # An engine may give its own buffers, which the next run overwrites.
        step = model.step(samples[:, here], present[:, here], state)
        embedding, score, state = (x.copy() for x in step)
        parts.append((embedding, score))
    for number in range(2):
        found = np.concatenate([part[number] for part in parts], axis=1)
        np.testing.assert_allclose(found, wanted[number], atol=1e-4)
    # Sums of squares of what one channel leaves of the other reach thousands.
    np.testing.assert_allclose(state, wanted[2], rtol=1e-6, atol=1e-4)
    assert np.abs(state).max() > 1000


def test_parity_runs_the_golden_inputs_at_several_batch_sizes(bundle: Bundle) -> None:
    parity = check_parity(bundle.model_path.read_bytes(), bundle.manifest, bundle.golden())
    names = [check.name for check in parity.checks]
    for name in ("score", "batch 1: score", "batch 2: score", "signal score", "alert flips"):
        assert name in names


def test_a_second_export_gives_the_same_bytes(bundle: Bundle, run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "pump")
    for name in (MANIFEST, MODEL, GOLDEN):
        assert (tmp_path / "pump" / name).read_bytes() == (bundle.path / name).read_bytes(), name


def test_other_weights_are_another_embedding_space(run: Path) -> None:
    scorer = load_scorer(run)[0]
    before = weights_digest(scorer)
    assert before == weights_digest(load_scorer(run)[0])
    scorer.encoder.head.bias.data[0] += 1e-3
    assert weights_digest(scorer) != before


@pytest.mark.parametrize("wrong", WRONG)
def test_a_graph_that_computes_something_else_is_not_written(
    run: Path,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    wrong: str,
) -> None:
    model = bundle.model_path.read_bytes()
    monkeypatch.setattr(package, "to_onnx", lambda *_: WRONG[wrong](model))
    out = tmp_path / "pump"
    done = limpet(capsys, "export", run, "--out", out)
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if line.startswith("score ")]
    assert line.endswith("FAILED")
    assert done.err == "error: ONNX Runtime differs from PyTorch; nothing was written\n"
    assert os.listdir(tmp_path) == []


def test_a_failed_export_leaves_the_bundle_that_was_there(
    run: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out = tmp_path / "pump"
    shutil.copytree(bundle.path, out)
    model = bundle.model_path.read_bytes()
    monkeypatch.setattr(package, "to_onnx", lambda *_: with_another_weight(model))
    done = limpet(capsys, "export", run, "--out", out, "--force", "--json", "-")
    assert done.code == 1
    assert (done.report["passed"], done.report["bundle"]) == (False, "")
    assert read_bundle(out).manifest == bundle.manifest


@pytest.mark.usefixtures("no_conversion")
def test_the_command_prints_checks_and_what_comes_next(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "pump"
    done = limpet(capsys, "export", run, "--out", out)
    assert done.code == 0
    assert "check " in done.out
    assert f"bundle: {out} (fp32, opset {OPSET}, " in done.out
    assert done.out.endswith(f"next: limpet verify {out}\n")
    assert limpet(capsys, "verify", out).code == 0


@pytest.mark.usefixtures("no_conversion")
def test_the_report_has_its_documented_keys(run: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "pump"
    report = limpet(capsys, "export", run, "--out", out, "--json", "-").report
    assert list(report) == [
        *("bundle", "name", "space_id", "precision", "opset", "model_bytes", "passed", "checks"),
    ]
    assert report["passed"] is True
    assert report["bundle"] == str(out)
    assert report["model_bytes"] == (out / MODEL).stat().st_size


@pytest.mark.usefixtures("no_conversion")
def test_force_replaces_a_bundle_and_nothing_else_does(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "pump"
    assert limpet(capsys, "export", run, "--out", out).code == 0
    again = limpet(capsys, "export", run, "--out", out)
    assert again.code == 2
    assert again.err.startswith(f"error: {out} exists already\n  say --force")
    assert limpet(capsys, "export", run, "--out", out, "--force").code == 0


def test_predict_scores_with_what_was_exported(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(200, 2)))
    out = tmp_path / "scores.npy"
    assert limpet(capsys, "predict", bundle.path, tmp_path / "a.npy", "--out", out).code == 0
    scores = read_scores(out)
    signal = bundle.manifest.signal()
    warm_up_rows = SignalPreprocessor(signal.steps, len(signal.channels)).warm_up_rows
    assert np.isnan(scores[:warm_up_rows]).all()
    assert (scores[warm_up_rows:] >= 0.0).all()


def test_predict_scores_on_without_a_dead_channel_and_says_so(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 2))
    rows[100:, 1] = np.nan
    np.save(tmp_path / "a.npy", rows)
    out = tmp_path / "scores.npy"
    line = ["predict", bundle.path, tmp_path / "a.npy", "--out", out, "--json", "-"]
    done = limpet(capsys, *line)
    assert done.code == 0
    assert np.isfinite(read_scores(out)[8:]).all()
    (states,) = (file["states"] for file in done.report["inputs"])
    held = bundle.manifest.signal().steps[0]
    assert isinstance(held, HoldLast)
    assert states == {
        "scored": 92,
        "filled": held.max_rows,
        "partial": 100 - held.max_rows,
        "warming_up": 8,
        "hole": 0,
    }


def test_an_interrupted_run_is_refused_with_what_to_do(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = msgspec.json.decode((copy / RECORD).read_bytes())
    (copy / RECORD).write_bytes(msgspec.json.encode({**record, "complete": False}))
    with pytest.raises(DataError, match="is not finished") as caught:
        export_run(copy, tmp_path / "pump")
    assert "--resume" in caught.value.hint


def test_damaged_weights_are_refused_by_name(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(DataError, match=WEIGHTS):
        export_run(copy, tmp_path / "pump")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a RUN"):
        export_run(tmp_path, tmp_path / "pump")
