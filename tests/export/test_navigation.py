"""An image encoder from RUN to bundle to embeddings and figures, by the commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import BundleError, DataError
from limpet.contracts.golden import PREPARED, check_golden
from limpet.contracts.images import preprocess
from limpet.contracts.manifest import NavigationDecoding
from limpet.export import package
from limpet.export.navigation import read_images
from limpet.export.package import export_run
from limpet.runtime.engines import open_engine
from limpet.training.navigation.encoder import load_encoder
from limpet.training.navigation.train import train_navigation
from limpet.training.run import SAMPLE
from tests.command_line import limpet
from tests.navigation_frames import CONFIG, write_pairs

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("navigation")
    train_navigation(write_pairs(folder / "pairs"), folder / "run", CONFIG)
    return folder / "run"


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "eye"
    assert export_run(run, out).passed
    return read_bundle(out)


def write_images(folder: Path, *names: str) -> list[np.ndarray]:
    """Images of several sizes and modes; what they are in RGB."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    found = []
    for number, name in enumerate(names):
        pixels = rng.integers(0, 256, (40 + 24 * number, 64, 3), np.uint8)
        image = Image.fromarray(pixels)
        if number == 1:
            image = image.convert("L")
        image.save(folder / name)
        with Image.open(folder / name) as stored:
            found.append(np.asarray(stored.convert("RGB")))
    return found


def test_the_manifest_says_what_the_model_takes_and_gives(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.kind == "navigation"
    assert [spec.describe() for spec in manifest.inputs] == ["image float32 [batch, 3, 32, 32]"]
    assert [spec.describe() for spec in manifest.outputs] == ["embedding float32 [batch, 16]"]
    assert manifest.image() == CONFIG.image
    assert manifest.decoding == NavigationDecoding(embedding="embedding")
    with pytest.raises(BundleError, match="scores no sensor streams"):
        manifest.signal()


def test_golden_data_proves_preprocessing_and_graph(bundle: Bundle) -> None:
    golden, engine = bundle.golden(), open_engine(bundle)
    assert golden.images is not None
    assert golden.images.shape[1] != golden.images.shape[2]
    parity = check_golden(golden, bundle.manifest, engine.run)
    assert parity.passed
    assert [check.name for check in parity.checks] == [PREPARED, "embedding cosine"]


def test_preprocessing_that_swaps_channels_is_found_out(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "limpet.contracts.golden.preprocess", lambda image, how: preprocess(image, how)[::-1]
    )
    parity = check_golden(bundle.golden(), bundle.manifest, open_engine(bundle).run)
    assert {check.name: check.passed for check in parity.checks} == {
        PREPARED: False, "embedding cosine": True,
    }  # fmt: skip


def test_a_graph_that_embeds_otherwise_is_not_written(
    run: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    graph = onnx.load_from_string(bundle.model_path.read_bytes())
    weight = max(graph.graph.initializer, key=lambda each: len(each.raw_data))
    values = numpy_helper.to_array(weight).copy()
    values[: len(values) // 4] *= -1
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    monkeypatch.setattr(package, "to_onnx", lambda *_: graph.SerializeToString())
    done = limpet(capsys, "export", run, "--out", tmp_path / "eye")
    assert done.code == 1
    assert not (tmp_path / "eye").exists()


def test_predict_gives_one_row_an_image_as_pytorch_would(
    run: Path, bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    images = write_images(tmp_path / "frames", "a.png", "b.JPG", "c.jpeg", "d.png")
    (tmp_path / "frames" / "notes.txt").write_text("no image")
    for suffix in ("npy", "npz", "csv"):
        out = tmp_path / f"out.{suffix}"
        done = limpet(capsys, "predict", bundle.path, tmp_path / "frames", "--out", out)
        assert done.code == 0, done.err
        assert "4 embeddings of 16 by eye on onnxruntime-cpu" in done.out
    found = np.load(tmp_path / "out.npy")
    with torch.no_grad():
        inputs = np.stack([preprocess(image, CONFIG.image) for image in images])
        wanted = load_encoder(run)(torch.from_numpy(inputs)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    with np.load(tmp_path / "out.npz") as archive:
        assert (archive["embedding"] == found).all()
    text = (tmp_path / "out.csv").read_text().splitlines()
    assert text[0].startswith("embedding_0,embedding_1,")
    assert (np.array([line.split(",") for line in text[1:]], np.float32) == found).all()


def test_predict_takes_files_in_their_order_and_reports_them(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    write_images(tmp_path / "frames", "a.png", "b.png")
    files = [tmp_path / "frames" / name for name in ("b.png", "a.png")]
    line = ["predict", bundle.path, *files, "--out", tmp_path / "out.npy", "--json", "-"]
    report = limpet(capsys, *line).report
    assert list(report) == [
        *("bundle", "name", "space_id", "engine", "out", "rows", "size", "inputs"),
    ]
    assert report["space_id"] == bundle.manifest.space_id
    assert [(one["path"], one["height"]) for one in report["inputs"]] == [
        (str(files[0]), 64), (str(files[1]), 40),
    ]  # fmt: skip


def test_predict_refuses_what_is_no_usable_image_by_name_and_writes_nothing(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "frames"
    write_images(folder, "a.png")
    whole = (folder / "a.png").read_bytes()
    (tmp_path / "empty").mkdir()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "junk.jpg").write_bytes(b"junk")
    (folder / "notes.txt").write_text("no image")
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.zeros((8, 40, 3), np.uint8)).save(folder / "tiny.png")
    for name, message in (
        ("frames/cut.png", "not an image that can be read"),
        ("frames/junk.jpg", "not an image that can be read"),
        ("frames/deep.png", "wanted 8 bits a channel"),
        ("frames/tiny.png", "image has 8 rows and 40 columns, wanted 16 to 8192"),
        ("frames/notes.txt", ".txt is no suffix of an image"),
        ("frames/gone.png", "does not exist"),
        ("empty", "holds no image"),
    ):
        out = tmp_path / "out.npy"
        done = limpet(capsys, "predict", bundle.path, tmp_path / name, "--out", out)
        assert done.code == 1
        assert f"{tmp_path / name}" in done.err
        assert message in done.err
        assert not out.exists()


def test_options_for_recordings_are_refused(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    done = limpet(capsys, "predict", bundle.path, "a.png", "--out", "x.npy", "--rate-hz", 5)
    assert done.code == 2
    assert "--rate-hz: an option for recordings" in done.err


def test_evaluate_measures_run_and_bundle_alike_beside_the_controls(
    run: Path, bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    data = write_pairs(tmp_path / "unseen", layouts=2, poses=12, views=2)
    reports = [
        limpet(capsys, "evaluate", "navigation", model, "--data", data, "--json", "-").report
        for model in (run, bundle.path)
    ]
    assert list(reports[0]) == [
        "model", "source", "name", "engine", "data", "poses", "views", "embedding", "random",
        "pixels", "driving",
    ]  # fmt: skip
    assert [report["source"] for report in reports] == ["run", "bundle"]
    for name, value in reports[0]["embedding"].items():
        assert reports[1]["embedding"][name] == pytest.approx(value, abs=1e-3)
    assert reports[0]["random"] == reports[1]["random"]
    assert reports[0]["driving"] is None
    page = tmp_path / "neighbours.png"
    done = limpet(
        capsys, "evaluate", "navigation", bundle.path, "--data", data, "--neighbours", page
    )
    assert done.code == 0
    assert "random encoder" in done.out
    assert page.stat().st_size > 1000


def test_every_key_of_the_evaluation_is_in_the_command_s_help(capsys: Capture) -> None:
    from limpet.export.evaluate_navigation import NavigationEvaluation
    from limpet.training.navigation.evaluation import EmbeddingFigures

    told = limpet(capsys, "evaluate", "navigation", "--help").out
    for key in (*NavigationEvaluation.__struct_fields__, *EmbeddingFigures.__struct_fields__):
        assert key in told


def test_a_model_of_another_kind_is_refused(run: Path, tmp_path: Path, capsys: Capture) -> None:
    done = limpet(capsys, "evaluate", "anomaly", run, "--data", tmp_path)
    assert done.code == 1
    assert "of kind 'navigation', wanted 'anomaly'" in done.err


def test_a_run_without_its_sample_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    np.savez(copy / SAMPLE, images=np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match="holds no images"):
        read_images(copy / SAMPLE)
    (copy / SAMPLE).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        export_run(copy, tmp_path / "eye")
