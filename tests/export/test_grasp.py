"""A grasp encoder from RUN to bundle to grasps, by the commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import DataError
from limpet.contracts.golden import check_golden
from limpet.contracts.grasp_agreement import disagreement, seed_cosine
from limpet.contracts.grasp_model import GraspModel
from limpet.contracts.grasps import GraspDecoding
from limpet.export.benchmark import bench_export
from limpet.export.grasp import MOST_LOST, open_grasp_run, read_clouds
from limpet.export.models import open_model
from limpet.export.package import export_run
from limpet.export.runs import torch_run
from limpet.runtime.engines import open_engine
from limpet.training.grasp.train import train_grasp
from limpet.training.run import SAMPLE
from tests.command_line import limpet
from tests.table_tops import INTRINSICS, Ball, look_at, render
from tests.training.grasp.tiny import SMALL, write_tiny

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grasp")
    train_grasp(write_tiny(folder / "tiny"), folder / "run", SMALL, cache=folder / "cache")
    return folder / "run"


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "picker"
    report = export_run(run, out)
    assert report.passed
    assert "one view: embedding's length" in [check.name for check in report.checks]
    return read_bundle(out)


def test_the_manifest_says_what_the_model_takes_and_gives(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.kind, manifest.name) == ("grasp", "picker")
    assert [spec.describe() for spec in manifest.inputs] == ["points float32 [views, 512, 3]"]
    assert [spec.describe() for spec in manifest.outputs] == [
        "embedding float32 [16]",
        "seeds float32 [32, 3]",
        "seed_embedding float32 [32, 16]",
        "objectness float32 [32]",
        "graspness float32 [32]",
        "approach float32 [32, 4, 3]",
        "score float32 [32, 4, 12, 4]",
        "width float32 [32, 4, 12, 4]",
    ]
    assert manifest.cloud() == SMALL.cloud
    assert manifest.decoding == GraspDecoding()


def test_golden_data_proves_preprocessing_and_graph(bundle: Bundle) -> None:
    parity = check_golden(bundle.golden(), bundle.manifest, open_engine(bundle).run)
    assert parity.passed
    assert [check.name for check in parity.checks] == [
        "prepared points",
        "lost grasps",
        "grasp score",
        "seed_embedding cosine",
        "embedding cosine",
    ]


@pytest.mark.parametrize("views", [1, 2])
def test_the_graph_computes_what_pytorch_does_for_one_view_and_two(
    run: Path, bundle: Bundle, views: int
) -> None:
    points = bundle.golden().inputs["points"][:views]
    wanted = torch_run(open_grasp_run(run).module, bundle.manifest)({"points": points})
    found = open_engine(bundle).run({"points": points})
    decoding = bundle.manifest.decoding
    assert isinstance(decoding, GraspDecoding)
    assert max(disagreement(wanted, found, decoding).values()) <= MOST_LOST
    assert seed_cosine(wanted, found, decoding) > 0.999
    assert found["embedding"] @ wanted["embedding"] > 0.999


def test_a_bundle_and_its_run_find_the_same_grasps(run: Path, bundle: Bundle) -> None:
    depth = render([Ball(0, 0, 0.035), Ball(0.1, 0.05, 0.03)], look_at([0.1, -0.2, 0.5]))
    request = {"depth": depth, "intrinsics": INTRINSICS}
    rows = []
    for path in (run, bundle.path):
        opened = open_model(path, "grasp")
        rows.append(GraspModel(opened.manifest, opened.run).infer(request).grasps.rows)
    assert rows[0].shape == rows[1].shape
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-3)


def test_the_commands_verify_and_predict(
    bundle: Bundle, tmp_path: Path, data_dir: Path, capsys: Capture
) -> None:
    assert limpet(capsys, "verify", bundle.path).code == 0
    scene = data_dir / "grasp_scenes" / "mustard.npz"
    done = limpet(
        capsys, "predict", bundle.path, scene, "--out", tmp_path / "rows.npy", "--json", "-"
    )
    assert done.code == 0
    assert done.report["hypotheses"] == 32 * 4 * 2


@pytest.mark.slow
def test_half_precision_keeps_the_best_grasps(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    done = limpet(
        capsys, "export", bundle.path, "--precision", "fp16", "--out", tmp_path / "half",
        "--json", "-",
    )  # fmt: skip
    assert done.code == 0, done.err
    bounds = {check["name"]: check["bound"] for check in done.report["checks"]}
    assert bounds["lost grasps"] == 0.1
    assert read_bundle(tmp_path / "half").manifest.precision == "fp16"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_benchmark_takes_one_scene_at_a_time(run: Path, tmp_path: Path) -> None:
    """The graph has no axis for batches."""
    found = bench_export(
        run, tmp_path, calibration=None, rounds=1, report=lambda _: None, compiled=False
    )
    assert {one.batch for one in found.latencies} == {1}
    assert list(found.faster) == ["1"]
    assert found.precisions["int8"].refused.startswith("int8 takes its ranges from real data")


def test_one_trained_on_merged_clouds_merges_them(run: Path, tmp_path: Path) -> None:
    opened = open_grasp_run(run)
    config = msgspec.structs.replace(opened.encoder.config, input="prefused")
    opened.encoder.config = config
    assert opened.manifest("merged", "fp32").cloud().merge_views
    golden = opened.golden(opened.manifest("merged", "fp32"))
    assert golden.inputs["points"].shape[0] == 1


def test_a_sample_that_is_none_is_refused(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    for content in (b"", b"PK\x03\x04 and no more"):
        (broken / SAMPLE).write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_clouds(broken / SAMPLE)
    np.savez(broken / SAMPLE, points=np.ones((5, 3), np.float32))
    with pytest.raises(DataError, match="wanted float32 clouds"):
        read_clouds(broken / SAMPLE)
