"""`limpet evaluate grasp`: figures in known scenes and in real ones, documented keys, errors."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.bundle import Bundle
from limpet.contracts.grasp_frames import inverse_pose, rotation_of, transform_points
from limpet.contracts.grasp_model import CLOUD, DEPTH_AUX, RELATIVE_POSE, GraspModel
from limpet.export.commands import evaluate_grasp as command
from limpet.training.grasp.graspnet import Frame, GraspNet
from limpet.training.grasp.judging.evaluation import evaluate_split, mean_figures
from limpet.training.grasp.judging.finders import ARMS, Arm, Finder, Found, make_finder, request_of
from tests.command_line import limpet
from tests.grasp_bundles import grasp_bundle
from tests.training.grasp.layouts import (
    LATTICE,
    Labelled,
    looking_down,
    standing,
    write_objects,
    write_scene,
)

Capture = pytest.CaptureFixture[str]
EXTENT = (0.06, 0.03, 0.05)
HARMONIC = 2 * sum(1 / k for k in range(1, 51))  # AP in percent of one grasp that holds


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return grasp_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box that is seen from three sides, as a scene of two splits."""
    folder = tmp_path_factory.mktemp("graspnet")
    scores = np.full((2, *LATTICE), -1.0)
    scores[0, 0, 0, 0] = 0.4
    objects = {3: Labelled(EXTENT, np.array([[0, 0, 0.025], [0, 0, -0.025]]), scores)}
    write_objects(folder, objects)
    cameras = [looking_down(0.5, shift_m=0.1 * k, tilt_rad=0.2 * k) for k in (0, 1, -1)]
    for scene in (100, 160):
        write_scene(folder, scene, objects, {3: standing(0.025)}, cameras)
    return folder


def perfect(frames: list[Frame]) -> Found:
    """One grasp from above that holds."""
    moved = inverse_pose(frames[0].pose_camera_in_table)
    row = np.zeros((1, 17))
    row[0, :4] = 0.9, 0.05, 0.02, 0.02
    row[0, 4:13] = (moved[:3, :3] @ rotation_of([0.0, 0, -1], 0.0)).ravel()
    row[0, 13:16] = transform_points(np.array([0, 0, 0.05]), moved)
    return Found(row, 1.0, 2.0, 3.0)


def nothing(frames: list[Frame]) -> Found:
    return Found(np.zeros((0, 17)), 1.0, 0.0, 0.0)


def test_figures_of_known_grasps_are_those_worked_out_by_hand(root: Path, tmp_path: Path) -> None:
    data = GraspNet(root, cache=tmp_path)
    finders: dict[Arm, Finder] = {"two": perfect, "antipodal_one": nothing}  # type: ignore[dict-item]
    said: list[str] = []
    found = evaluate_split(data, [100, 160], finders, report=said.append)
    assert (found.scenes, found.views) == ([100, 160], 6)
    assert said[-1] == "6 of 6 views"
    good, bad = found.arms["two"], found.arms["antipodal_one"]
    assert (good.views, good.without, good.grasps) == (6, 0, 1.0)
    assert (good.ap, good.ap_08, good.ap_04) == pytest.approx((HARMONIC,) * 3)
    assert good.outcomes == {"holds": 1.0, "slips": 0.0, "collides": 0.0, "empty": 0.0}
    assert (good.corner.views, good.corner.ap) == (1, pytest.approx(HARMONIC))
    assert good.lift is None
    assert good.times_ms.total == pytest.approx(6.0)
    assert (bad.ap, bad.without, bad.grasps) == (0.0, 6, 0.0)
    assert not any(bad.outcomes.values())
    mean = mean_figures({"seen": found, "novel": found})
    assert mean["two"].ap == pytest.approx(HARMONIC)
    assert np.isnan(mean["two"].lift_success)


def test_arms_differ_in_what_the_model_is_given(bundle: Bundle, root: Path, tmp_path: Path) -> None:
    data = GraspNet(root, cache=tmp_path)
    frames = [data.frame(100, 0), data.frame(100, 1)]
    how = bundle.manifest.cloud()
    one = request_of(frames[:1], how, merged=False)
    two = request_of(frames, how, merged=False)
    assert {DEPTH_AUX, RELATIVE_POSE} == set(two) - set(one)
    # p_ref = pose · p_aux, from the poses of both cameras on the table.
    wanted = inverse_pose(frames[0].pose_camera_in_table) @ frames[1].pose_camera_in_table
    np.testing.assert_allclose(two[RELATIVE_POSE], wanted, atol=1e-9)
    merged = request_of(frames, how, merged=True)
    assert set(merged) == {CLOUD}
    # Both clouds lie on the box and the table of the reference view.
    height = transform_points(merged[CLOUD].astype(float), frames[0].pose_camera_in_table)[:, 2]
    assert np.mean((np.abs(height) < 2e-3) | (np.abs(height - 0.05) < 2e-3)) > 0.95

    views = []

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        views.append(len(inputs["points"]))
        raise InterruptedError

    model = GraspModel(bundle.manifest, run)  # type: ignore[arg-type]
    for arm in ("two", "one", "prefusion"):
        with pytest.raises(InterruptedError):
            make_finder(arm, model)(frames[:1] if arm == "one" else frames)
    assert views == [2, 1, 1]


def test_the_report_has_its_documented_keys(
    bundle: Bundle, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    line = ["evaluate", "grasp", bundle.path, "--data", root, "--cache", tmp_path, "--views", 1]
    done = limpet(capsys, *line, "--json", "-")
    assert (done.code, done.err) == (0, "")
    report = done.report
    assert list(report) == ["model", "source", "name", "engine", "data", "splits", "mean", "real"]
    assert list(report["splits"]) == ["seen", "novel"]
    split = report["splits"]["seen"]
    assert list(split["arms"]) == list(ARMS)
    arm = split["arms"]["two"]
    assert (split["scenes"], split["views"], arm["views"], arm["lift"]) == ([100], 1, 1, None)
    documented = inspect.getdoc(command.grasp.callback) or ""
    for part in (report, split, arm, arm["corner"], arm["times_ms"], report["mean"]["two"]):
        for key in part:
            assert key in documented, key
    assert report["mean"]["two"]["lift_success"] is None
    table = limpet(capsys, *line, "--arms", "one,antipodal_one").out.splitlines()
    assert table[0].startswith("tiny-grasp (bundle) by onnxruntime-cpu on")
    assert [row.split()[:2] for row in table[2:]] == [
        *([split, arm] for split in ("seen", "novel", "mean") for arm in ("one", "antipodal_one"))
    ]


def test_real_scenes_are_judged_before_and_after_the_models_own_check(
    bundle: Bundle, data_dir: Path, capsys: Capture
) -> None:
    scene = data_dir / "grasp_scenes" / "green_bowl.npz"
    done = limpet(capsys, "evaluate", "grasp", bundle.path, "--data", scene, "--json", "-")
    (real,) = done.report["real"]
    assert list(real) == ["scene", "nothing", "before", "after", "antipodal"]
    assert real["nothing"] == ""
    documented = inspect.getdoc(command.grasp.callback) or ""
    assert all(key in documented for key in (*real, *real["after"]))
    # After the check none of those that are left touches what was seen; missing ones count.
    assert real["after"]["free"] == pytest.approx(real["after"]["grasps"] / 50)
    assert real["before"]["free"] < real["before"]["grasps"] / 50
    table = limpet(capsys, "evaluate", "grasp", bundle.path, "--data", scene).out.splitlines()
    assert [row.split()[1] for row in table[2:]] == ["before", "after", "antipodal"]


def test_graspnets_own_scene_is_read_with_its_camera(
    bundle: Bundle, data_dir: Path, capsys: Capture
) -> None:
    folder = data_dir / "graspnet_scene"
    done = limpet(capsys, "evaluate", "grasp", bundle.path, "--data", folder, "--json", "-")
    assert done.report["real"][0]["after"]["grasps"] > 10


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--arms", "three"], 2, "no arm three"),
        (["--split", "test"], 2, "no split 'test'"),
        (["--split", "similar"], 1, "has no scene of similar"),
        (["--camera", "kinect"], 1, "has no scenes/scene_0000/kinect/meta"),
        (["--views", "1", "--lift", "1", "--arms", "antipodal_two"], 1, "no physics for it"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    bundle: Bundle,
    root: Path,
    tmp_path: Path,
    capsys: Capture,
    more: list[str],
    code: int,
    message: str,
) -> None:
    line = ["evaluate", "grasp", bundle.path, "--data", root, "--cache", tmp_path]
    done = limpet(capsys, *line, *more)
    assert done.code == code
    assert message in done.err


def test_a_folder_without_scenes_is_refused(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    done = limpet(capsys, "evaluate", "grasp", bundle.path, "--data", tmp_path)
    assert done.code == 1
    assert f"{tmp_path} has no scenes" in done.err
