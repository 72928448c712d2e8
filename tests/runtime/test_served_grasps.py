"""Grasp models through a server: what is answered, what is refused, and as what."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limpet.contracts.errors import FailedError, RejectedError, UsageError
from limpet.contracts.grasp_frames import transform_points
from limpet.contracts.grasp_model import GraspModel
from limpet.contracts.grasps import TRANSLATION
from limpet.runtime.client import RobotClient
from limpet.runtime.lane_memory import SUPPORTED
from limpet.runtime.picking_robot import PickingRobot
from limpet.runtime.server import Server
from tests.grasp_bundles import (
    AUXILIARY,
    REFERENCE,
    THINGS,
    grasp_bundle,
    grasp_manifest,
    tiny_grasp,
)
from tests.navigation_bundles import policy_bundle
from tests.runtime.serving import obedient, serving
from tests.table_tops import INTRINSICS, cloud_of, relative_pose, render

MODEL = "tiny-grasp"
DEPTH = render(THINGS, REFERENCE)
MILLIMETRES = np.rint(DEPTH * 1000).astype(np.uint16)
POSE = relative_pose(REFERENCE, AUXILIARY)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("grasps")
    with serving(folder, more=[grasp_bundle(folder / "grasp").path]) as served:
        yield served


@pytest.fixture
def robot(server: Server) -> Iterator[PickingRobot]:
    with PickingRobot(server.listening[0]) as connected:
        yield connected


def test_one_depth_image_gives_what_the_model_gives_in_process(robot: PickingRobot) -> None:
    found = robot.grasp(MODEL, MILLIMETRES, INTRINSICS)
    model = GraspModel(grasp_manifest(), tiny_grasp)
    wanted = model.infer({"depth": MILLIMETRES, "intrinsics": INTRINSICS})
    np.testing.assert_allclose(found.rows, wanted.grasps.rows, atol=1e-6)
    np.testing.assert_allclose(found.poses_camera, wanted.grasps.poses_in_camera(), atol=1e-6)
    assert found.poses_base is None
    assert found.correction is None
    assert found.nothing == ""
    assert (found.hypotheses, found.free) == (wanted.grasps.hypotheses, wanted.grasps.free)
    assert found.space_id == "tiny-grasp"
    assert found.inference_s > 0
    assert (np.diff(found.scores) <= 0).all()
    assert (found.widths_m <= 0.1).all()


@pytest.mark.skipif(not SUPPORTED, reason="lanes need Linux: memfd and its seals")
def test_scenes_take_a_lane_on_the_same_host(robot: PickingRobot) -> None:
    over_socket = robot.grasp(MODEL, MILLIMETRES, INTRINSICS)  # asks for one beside itself
    assert robot.has_lane
    over_lane = robot.grasp(MODEL, MILLIMETRES, INTRINSICS)
    np.testing.assert_array_equal(over_lane.rows, over_socket.rows)
    assert robot.has_lane


def test_two_views_and_the_base(robot: PickingRobot) -> None:
    found = robot.grasp(
        MODEL,
        DEPTH,
        INTRINSICS,
        depth_aux=np.rint(render(THINGS, AUXILIARY) * 1000).astype(np.uint16),
        pose_aux_in_ref=POSE,
        pose_camera_in_base=REFERENCE,
        depth_scale=None,
    )
    assert found.views == 2
    assert found.poses_base is not None
    np.testing.assert_allclose(found.poses_base, REFERENCE @ found.poses_camera, atol=1e-9)
    assert found.seed_embedding is not None
    np.testing.assert_allclose(np.linalg.norm(found.seed_embedding, axis=1), 1, atol=1e-5)


def test_where_the_second_view_was_moved_to_is_told(robot: PickingRobot) -> None:
    told = POSE.copy()
    told[:3, 3] += [0.0, 0.004, 0.003]
    aux = render(THINGS, AUXILIARY)
    found = robot.grasp(MODEL, DEPTH, INTRINSICS, depth_aux=aux, pose_aux_in_ref=told)
    assert found.correction is not None
    middle = found.rows[:, TRANSLATION].mean(0)
    moved = transform_points(middle[None].astype(np.float64), found.correction)[0] - middle
    np.testing.assert_allclose(moved, [0.0, -0.004, -0.003], atol=0.0015)


def test_a_cloud_does_too(robot: PickingRobot) -> None:
    found = robot.grasp(
        MODEL,
        cloud_of(THINGS, REFERENCE),
        depth_aux=cloud_of(THINGS, AUXILIARY),
        pose_aux_in_ref=POSE,
    )
    assert found.views == 2
    assert len(found.rows) > 0


def test_an_empty_table_is_an_answer_with_its_reason(robot: PickingRobot, server: Server) -> None:
    before = robot.status().counters.get("nothing.empty_table", 0)
    found = robot.grasp(MODEL, render([], REFERENCE), INTRINSICS)
    assert found.nothing == "empty_table"
    assert found.rows.shape == (0, 17)
    assert found.poses_camera.shape == (0, 4, 4)
    assert found.embedding is None
    assert robot.status().counters["nothing.empty_table"] == before + 1


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"depth": np.zeros((240, 320), np.uint16)}, "depth_empty"),
        ({"depth": np.full((240, 320), np.nan, np.float32)}, "depth_empty"),
        ({"depth": DEPTH * 1000}, "depth_unit"),
        ({"depth": DEPTH, "depth_scale": 0.001}, "depth_unit"),
        ({"intrinsics": INTRINSICS * np.array([[4.0], [4], [1]])}, "intrinsics"),
        ({"intrinsics": np.eye(3)}, "intrinsics"),
        ({"depth": np.ones((10, 3)), "intrinsics": None}, "cloud_small"),
        ({"depth_aux": DEPTH, "pose_aux_in_ref": np.diag([1.0, 1, -1, 1])}, "relative_pose"),
        ({"pose_camera_in_base": np.zeros((4, 4))}, "base_pose"),
    ],
)
def test_what_cannot_be_so_is_refused_by_name(
    robot: PickingRobot, change: dict[str, Any], cause: str
) -> None:
    request = {"depth": DEPTH, "intrinsics": INTRINSICS, **change}
    with pytest.raises(RejectedError) as refused:
        robot.grasp(MODEL, request.pop("depth"), request.pop("intrinsics"), **request)
    assert (refused.value.code, refused.value.cause) == ("bad_input", cause)
    assert refused.value.hint
    assert len(robot.grasp(MODEL, DEPTH, INTRINSICS).rows) > 0  # the server goes on


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"depth": DEPTH}, "intrinsics are missing"),
        ({"x": DEPTH}, "unknown tensor x"),
        ({"depth": DEPTH, "intrinsics": INTRINSICS, "depth_aux": DEPTH}, "pose_aux_in_ref is"),
    ],
)
def test_tensors_that_make_no_views_are_refused(
    server: Server, inputs: dict[str, Any], message: str
) -> None:
    with RobotClient(server.listening[0]) as client, pytest.raises(RejectedError, match=message):
        client.infer(MODEL, inputs)


def test_an_auxiliary_view_needs_its_pose_before_anything_is_sent(robot: PickingRobot) -> None:
    with pytest.raises(UsageError, match="go together"):
        robot.grasp(MODEL, DEPTH, INTRINSICS, depth_aux=DEPTH)


def test_the_welcome_says_what_a_request_may_carry(robot: PickingRobot) -> None:
    (info,) = [model for model in robot.hello().models if model.name == MODEL]
    assert info.kind == "grasp"
    assert "depth float32 [rows, columns]" in [spec.describe() for spec in info.inputs]
    assert [spec.name for spec in info.outputs] == [
        "embedding", "seed_embedding", "grasps", "poses_camera", "poses_base", "counts",
        "correction",
    ]  # fmt: skip


def test_numbers_that_are_none_fail_the_request(tmp_path: Path) -> None:
    with serving(tmp_path, more=[grasp_bundle(tmp_path / "grasp").path]) as served:
        engine = obedient(served, MODEL)
        engine.replace = lambda outputs: {**outputs, "embedding": outputs["embedding"] * np.nan}
        with (
            PickingRobot(served.listening[0]) as robot,
            pytest.raises(FailedError, match="numbers"),
        ):
            robot.grasp(MODEL, DEPTH, INTRINSICS)


def test_a_grasp_that_takes_long_delays_no_other_model(tmp_path: Path) -> None:
    bundles = [
        grasp_bundle(tmp_path / "grasp").path,
        policy_bundle(tmp_path / "navigation", valid_s=30.0).path,
    ]
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    goal = np.array([1, 1, 0], np.float32)
    with serving(tmp_path, more=bundles) as served:
        engine = obedient(served, MODEL)
        engine.gate.clear()  # the grasp's engine runs until it opens
        found: list[int] = []

        def pick() -> None:
            with PickingRobot(served.listening[0]) as robot:
                found.append(len(robot.grasp(MODEL, DEPTH, INTRINSICS, timeout_s=20).rows))

        picking = threading.Thread(target=pick)
        picking.start()
        deadline_s = time.monotonic() + 20
        while not engine.runs and time.monotonic() < deadline_s:
            threading.Event().wait(0.002)
        with RobotClient(served.listening[0]) as robot:
            inputs = {"image": image, "goal": goal, "proprioception": np.zeros(2, np.float32)}
            for _ in range(5):
                assert robot.infer("tiny-policy", inputs, timeout_s=10).outputs["action"].size == 2
        assert not found
        engine.gate.set()
        picking.join(20)
        assert found[0] > 0
