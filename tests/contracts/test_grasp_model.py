"""One request to a grasp model: what it may carry, what comes back, what is refused and why."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.errors import BundleError, ImplausibleError, TensorError
from limpet.contracts.grasp_frames import inverse_pose
from limpet.contracts.grasp_model import GraspModel
from limpet.contracts.grasps import TRANSLATION
from limpet.contracts.tensors import Tensors
from tests.bundles import anomaly_manifest
from tests.grasp_bundles import AUXILIARY, REFERENCE, SEEDS, THINGS, grasp_manifest, tiny_grasp
from tests.table_tops import INTRINSICS, cloud_of, look_at, relative_pose, render

MODEL = GraspModel(grasp_manifest(), tiny_grasp)
DEPTH = render(THINGS, REFERENCE)
ONE: Tensors = {"depth": DEPTH, "intrinsics": INTRINSICS[None]}
TWO: Tensors = {
    "depth": DEPTH,
    "depth_aux": render(THINGS, AUXILIARY),
    "intrinsics": np.stack([INTRINSICS, INTRINSICS]),
    "pose_aux_in_ref": relative_pose(REFERENCE, AUXILIARY),
}


def test_one_view_gives_rows_poses_and_embeddings() -> None:
    answer = MODEL.infer(ONE)
    tensors = answer.tensors
    assert answer.nothing == ""
    count = len(tensors["grasps"])
    assert 0 < count <= 1024
    assert tensors["grasps"].shape == (count, 17)
    assert tensors["poses_camera"].shape == (count, 4, 4)
    assert tensors["seed_embedding"].shape == (SEEDS, 8)
    hypotheses, free, views = tensors["counts"].tolist()
    assert (hypotheses, views) == (SEEDS * 3 * 2, 1)
    assert count <= free < hypotheses
    assert "poses_base" not in tensors
    assert answer.prepare_ns > 0
    assert answer.model_ns > 0
    assert answer.decode_ns > 0
    # They are where the things are.
    at = tensors["grasps"][:, TRANSLATION] @ REFERENCE[:3, :3].T + REFERENCE[:3, 3]
    assert (np.hypot(at[:, 0], at[:, 1]) < 0.2).all()


def test_two_views_and_a_base_give_poses_on_the_robot() -> None:
    answer = MODEL.infer({**TWO, "pose_camera_in_base": REFERENCE})
    assert answer.tensors["counts"][2] == 2
    poses = answer.tensors["poses_base"]
    np.testing.assert_allclose(poses, REFERENCE @ answer.tensors["poses_camera"])
    assert (poses[:, 2, 3] > 0).all()  # above the table, whose frame is the base's here


def test_depth_in_millimetres_of_an_integer_type_is_the_same_scene() -> None:
    whole = np.rint(DEPTH * 1000).astype(np.uint16)
    free = MODEL.infer({**ONE, "depth": whole}).tensors["counts"][1]
    assert free == pytest.approx(MODEL.infer(ONE).tensors["counts"][1], rel=0.3)
    tenths = np.rint(DEPTH * 10000).astype(np.uint16)
    again = MODEL.infer({**ONE, "depth": tenths, "depth_scale": np.array([1e-4])})
    assert not again.nothing


def test_a_cloud_is_as_good_as_its_depth() -> None:
    cloud = cloud_of(THINGS, REFERENCE)
    answer = MODEL.infer({"cloud": cloud.astype(np.float64)})
    np.testing.assert_array_equal(answer.tensors["grasps"], MODEL.infer(ONE).tensors["grasps"])
    second = {"cloud_aux": cloud_of(THINGS, AUXILIARY), "pose_aux_in_ref": TWO["pose_aux_in_ref"]}
    assert MODEL.infer({"cloud": cloud, **second}).tensors["counts"][2] == 2


def test_an_empty_table_is_a_state_and_no_error() -> None:
    answer = MODEL.infer({**ONE, "depth": render([], REFERENCE)})
    assert answer.nothing == "empty_table"
    assert answer.tensors == {}
    far = render(THINGS, look_at([2.0, 0, 2.0]))
    assert MODEL.infer({**ONE, "depth": far}).nothing == "out_of_reach"


def test_no_hypothesis_that_holds_is_a_state_with_embeddings() -> None:
    def nowhere(inputs: Tensors) -> Tensors:
        outputs = tiny_grasp(inputs)
        return {**outputs, "seeds": outputs["seeds"] - np.array([0, 0, 0.3], np.float32)}

    answer = GraspModel(grasp_manifest(), nowhere).infer(ONE)
    assert answer.nothing == "none_holds"
    assert set(answer.tensors) == {"embedding", "seed_embedding", "counts"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": None}, "found intrinsics"),
        ({"intrinsics": None}, "intrinsics are missing"),
        ({"color": DEPTH}, "unknown tensor color"),
        ({"cloud": np.ones((300, 3))}, "wanted depth and intrinsics, or cloud"),
        ({"depth_aux": DEPTH}, "pose_aux_in_ref is missing"),
        ({"pose_aux_in_ref": np.eye(4)}, "depth_aux is missing"),
        ({"cloud_aux": np.ones((300, 3))}, "depth and clouds together"),
        ({"intrinsics": np.stack([INTRINSICS] * 2)}, r"shape \[2, 3, 3\] for 1 view"),
        ({"depth_scale": np.array([0.0])}, "depth_scale is"),
        ({"depth_scale": np.array([np.nan])}, "depth_scale is"),
    ],
)
def test_tensors_that_make_no_views_are_refused(
    change: dict[str, np.ndarray | None], message: str
) -> None:
    request = {name: array for name, array in {**ONE, **change}.items() if array is not None}
    with pytest.raises(TensorError, match=message):
        MODEL.infer(request)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"depth": np.zeros((240, 320), np.uint16)}, "depth_empty"),
        ({"depth": np.full((240, 320), np.nan, np.float32)}, "depth_empty"),
        ({"depth": DEPTH * 1000}, "depth_unit"),
        ({"depth_scale": np.array([0.001])}, "depth_unit"),
        ({"intrinsics": 2 * INTRINSICS[None]}, "intrinsics"),
        ({"intrinsics": INTRINSICS[None] * np.nan}, "intrinsics"),
        ({"depth_aux": np.zeros((240, 320), np.uint16)}, "depth_empty"),
        ({"pose_aux_in_ref": np.diag([1.0, 1, -1, 1])}, "relative_pose"),
        ({"pose_aux_in_ref": np.ones((4, 4))}, "relative_pose"),
        ({"pose_camera_in_base": np.zeros((4, 4))}, "base_pose"),
    ],
)
def test_what_cannot_be_so_is_refused_by_name(change: Tensors, cause: str) -> None:
    request = TWO if "depth_aux" in change or "pose_aux_in_ref" in change else ONE
    with pytest.raises(ImplausibleError) as refused:
        MODEL.infer({**request, **change})
    assert refused.value.cause == cause


def test_the_auxiliary_view_is_named() -> None:
    with pytest.raises(ImplausibleError, match="depth of the auxiliary view"):
        MODEL.infer({**TWO, "depth_aux": np.zeros((240, 320), np.uint16)})


def test_a_cloud_of_ten_points_is_refused_by_name() -> None:
    with pytest.raises(ImplausibleError, match="10 points") as refused:
        MODEL.infer({"cloud": np.ones((10, 3))})
    assert refused.value.cause == "cloud_small"


def test_other_models_find_no_grasps() -> None:
    with pytest.raises(BundleError, match="takes no depth images"):
        GraspModel(anomaly_manifest(), tiny_grasp)


def test_the_inverse_of_the_relative_pose_is_told_by_the_tables() -> None:
    pose = relative_pose(REFERENCE, AUXILIARY)
    with pytest.raises(ImplausibleError, match="is it the inverse") as refused:
        MODEL.infer({**TWO, "pose_aux_in_ref": inverse_pose(pose)})
    assert refused.value.cause == "relative_pose"
    # A few millimetres and a degree are what calibrations are off by.
    off = pose.copy()
    off[:3, 3] += [0.004, -0.003, 0.005]
    assert MODEL.infer({**TWO, "pose_aux_in_ref": off}).tensors["counts"][2] == 2


def test_without_tables_nothing_is_known_of_the_relative_pose() -> None:
    ball = [THINGS[0]]
    depth = [render(ball, pose, table_radius_m=0.0) for pose in (REFERENCE, AUXILIARY)]
    request = {**TWO, "depth": depth[0], "depth_aux": depth[1]}
    assert MODEL.infer(request).tensors["counts"][2] == 2
