"""`limpet predict` with a grasp bundle: depth in, GraspNet rows and a picture out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limpet.contracts.bundle import Bundle
from limpet.contracts.grasps_file import COLUMNS
from tests.bundles import anomaly_bundle
from tests.command_line import Done, limpet
from tests.grasp_bundles import AUXILIARY, REFERENCE, THINGS, grasp_bundle
from tests.table_tops import INTRINSICS, cloud_of, relative_pose, render

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return grasp_bundle(tmp_path_factory.mktemp("bundles") / "picker")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with two views as PNG and NPY, and a camera file."""
    for name, pose in (("ref", REFERENCE), ("aux", AUXILIARY)):
        depth = render(THINGS, pose)
        np.save(tmp_path / f"{name}.npy", depth)
        Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(tmp_path / f"{name}.png")
    write_camera(tmp_path)
    return tmp_path


def write_camera(folder: Path, **more: Any) -> None:
    camera = {"intrinsics": INTRINSICS.tolist(), **more}
    (folder / "camera.json").write_text(json.dumps(camera))


def predict(capsys: Capture, bundle: Bundle, files: Path, *arguments: object) -> Done:
    return limpet(
        capsys, "predict", bundle.path, *arguments, "--out", files / "rows.npy", "--json", "-"
    )


def test_a_png_and_its_camera_give_rows(bundle: Bundle, files: Path, capsys: Capture) -> None:
    done = predict(capsys, bundle, files, files / "ref.png", "--camera", files / "camera.json")
    assert done.code == 0
    report = done.report
    assert set(report) == {
        "bundle", "name", "space_id", "engine", "out", "rows", "hypotheses", "free", "views",
        "moved_m", "turned_deg", "nothing", "prepare_ms", "model_ms", "decode_ms", "inputs",
        "picture",
    }  # fmt: skip
    rows = np.load(files / "rows.npy")
    assert rows.dtype == np.float32
    assert rows.shape == (report["rows"], 17)
    assert 0 < report["rows"] <= report["free"] < report["hypotheses"]
    assert (np.diff(rows[:, 0]) <= 0).all()
    assert report["nothing"] == ""
    assert report["moved_m"] == report["turned_deg"] == 0
    assert report["inputs"] == [{"path": str(files / "ref.png"), "shape": [240, 320]}]


def test_two_views_with_a_base_fill_an_npz(bundle: Bundle, files: Path, capsys: Capture) -> None:
    write_camera(
        files,
        pose_aux_in_ref=relative_pose(REFERENCE, AUXILIARY).tolist(),
        pose_camera_in_base=REFERENCE.tolist(),
    )
    done = limpet(
        capsys, "predict", bundle.path, files / "ref.npy", files / "aux.npy",
        "--camera", files / "camera.json", "--out", files / "rows.npz",
    )  # fmt: skip
    assert done.code == 0
    assert "grasps of" in done.out
    with np.load(files / "rows.npz") as found:
        count = len(found["grasps"])
        assert found["counts"][2] == 2
        assert found["poses_camera"].shape == found["poses_base"].shape == (count, 4, 4)
        assert found["embedding"].shape == (8,)


def test_how_far_registering_moved_the_second_view_is_told(
    bundle: Bundle, files: Path, capsys: Capture
) -> None:
    told = relative_pose(REFERENCE, AUXILIARY)
    told[:3, 3] += [0.0, 0.004, 0.003]
    write_camera(files, pose_aux_in_ref=told.tolist())
    arguments = [files / "ref.npy", files / "aux.npy", "--camera", files / "camera.json"]
    report = predict(capsys, bundle, files, *arguments).report
    assert report["moved_m"] == pytest.approx(0.005, abs=0.0015)
    assert report["turned_deg"] < 0.7
    done = limpet(capsys, "predict", bundle.path, *arguments, "--out", files / "rows.csv")
    moved = f"moved by {1e3 * report['moved_m']:.1f} mm"
    assert f"second view registered with the first: {moved}" in done.out


def test_a_csv_names_its_columns(bundle: Bundle, files: Path, capsys: Capture) -> None:
    done = limpet(
        capsys, "predict", bundle.path, files / "ref.npy", "--camera", files / "camera.json",
        "--out", files / "rows.csv",
    )  # fmt: skip
    assert done.code == 0
    with (files / "rows.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert {len(line) for line in lines} == {17}
    assert {line[-1] for line in lines} == {"-1"}


def test_a_cloud_needs_no_camera(bundle: Bundle, files: Path, capsys: Capture) -> None:
    np.save(files / "cloud.npy", cloud_of(THINGS, REFERENCE))
    assert predict(capsys, bundle, files, files / "cloud.npy").report["rows"] > 0


def test_the_picture_is_drawn(bundle: Bundle, files: Path, capsys: Capture) -> None:
    done = predict(
        capsys, bundle, files, files / "ref.png", "--camera", files / "camera.json",
        "--picture", files / "grasps.png",
    )  # fmt: skip
    assert done.report["picture"] == str(files / "grasps.png")
    with Image.open(files / "grasps.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    # Grippers are drawn in yellow to red, which nothing else is.
    assert (pixels[:, 0] - pixels[:, 2] > 100).sum() > 200


def test_without_a_folder_for_the_picture_no_rows_are_written(
    bundle: Bundle, files: Path, capsys: Capture
) -> None:
    done = limpet(
        capsys, "predict", bundle.path, files / "ref.png", "--camera", files / "camera.json",
        "--out", files / "rows.npy", "--picture", files / "none" / "grasps.png",
    )  # fmt: skip
    assert done.code == 2
    assert f"no folder {files / 'none'}" in done.err
    assert not (files / "rows.npy").exists()


def test_an_empty_table_is_said_and_gives_no_rows(
    bundle: Bundle, files: Path, capsys: Capture
) -> None:
    np.save(files / "empty.npy", render([], REFERENCE))
    arguments = (files / "empty.npy", "--camera", files / "camera.json")
    done = predict(capsys, bundle, files, *arguments, "--picture", files / "grasps.png")
    assert done.code == 0
    assert done.report["nothing"] == "empty_table"
    assert np.load(files / "rows.npy").shape == (0, 17)
    assert (files / "grasps.png").exists()
    done = limpet(capsys, "predict", bundle.path, *arguments, "--out", files / "rows.csv")
    assert "no grasp: nothing stands out of the table" in done.out


def test_real_scenes_bring_their_intrinsics(
    bundle: Bundle, files: Path, data_dir: Path, capsys: Capture
) -> None:
    scene = data_dir / "grasp_scenes" / "mustard.npz"
    assert predict(capsys, bundle, files, scene).report["rows"] > 0
    real = data_dir / "graspnet_scene"
    done = limpet(
        capsys, "predict", bundle.path, real / "depth.png", "--camera", real / "meta.mat",
        "--out", files / "rows.npy", "--force", "--json", "-",
    )  # fmt: skip
    assert done.report["rows"] > 0


def test_what_does_not_fit_is_refused(bundle: Bundle, files: Path, capsys: Capture) -> None:
    camera = ("--camera", files / "camera.json")
    np.save(files / "cloud.npy", cloud_of(THINGS, REFERENCE))
    np.save(files / "few.npy", np.ones((10, 3)))
    np.save(files / "millimetres.npy", 1000 * render(THINGS, REFERENCE))
    wanted = [
        (2, "wanted one depth image or two", [files / "ref.npy"] * 3),
        (2, "give --camera FILE", [files / "ref.npy"]),
        (2, "does not say how they lie", [files / "ref.npy", files / "aux.npy", *camera]),
        (2, "give two of one kind", [files / "ref.npy", files / "cloud.npy", *camera]),
        (2, "--label: an option for recordings", [files / "ref.npy", *camera, "--label", "x"]),
        (1, "few.npy: cloud: 10 points", [files / "few.npy"]),
        (1, "millimetres given as metres", [files / "millimetres.npy", *camera]),
        (1, "no suffix of a depth image", [files / "camera.json", *camera]),
    ]
    for code, message, arguments in wanted:
        done = predict(capsys, bundle, files, *arguments)
        assert (done.code, message in done.err) == (code, True), done.err
    assert not (files / "rows.npy").exists()


def test_a_camera_means_nothing_for_recordings(tmp_path: Path, capsys: Capture) -> None:
    anomaly = anomaly_bundle(tmp_path / "pump")
    (tmp_path / "camera.json").write_text("{}")
    done = limpet(
        capsys, "predict", anomaly.path, tmp_path / "x.csv", "--out", tmp_path / "y.npy",
        "--camera", tmp_path / "camera.json",
    )  # fmt: skip
    assert done.code == 2
    assert "--camera: an option for depth images" in done.err
