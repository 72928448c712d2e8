"""A mobile robot's node: it follows the newest valid action, and stops in every other case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.errors import RejectedError, RequestTimeoutError, UsageError
from limpet.contracts.image_model import ImageModel
from limpet.runtime.camera_watch import FROZEN_AFTER
from limpet.runtime.client import RobotClient
from limpet.runtime.lane_memory import SUPPORTED
from limpet.runtime.mobile_robot import Command, MobileRobot
from limpet.runtime.server import Server
from tests.navigation_bundles import LEARNT, policy_bundle, policy_manifest, tiny_policy
from tests.runtime.serving import PATIENCE_S, obedient, running, server_config, until

MODEL = "tiny-policy"
LANES = pytest.mark.skipif(not SUPPORTED, reason="lanes need Linux: memfd and its seals")
LONG_S, SHORT_S = 30.0, 0.5
"""Validity of actions that no busy machine outlasts, and of those that expire in a test."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy_bundle(tmp_path_factory.mktemp("long") / "navigation", valid_s=LONG_S).path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy_bundle(tmp_path_factory.mktemp("short") / "navigation", valid_s=SHORT_S).path


@pytest.fixture
def server(tmp_path: Path, bundle: Path) -> Iterator[Server]:
    with running(Server(server_config(tmp_path, more=[bundle]))) as served:
        yield served


@pytest.fixture
def robot(server: Server) -> Iterator[MobileRobot]:
    with mobile_robot(server) as connected:
        yield connected


def mobile_robot(server: Server, **options: Any) -> MobileRobot:
    return MobileRobot(server.listening[0], MODEL, **{"max_age_s": LONG_S, **options})


def scene(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)


GOAL, MOTION = np.array([2.0, 0.8, 0.6]), np.array([0.3, 0.1])


def drive(robot: MobileRobot, number: int, **options: Any) -> Command:
    return robot.drive(scene(number), GOAL, MOTION, **{"wait_s": PATIENCE_S, **options})


def driving(robot: MobileRobot, number: int = 1) -> Command:
    """A command to drive, if need be after some frames that a busy machine answered too late."""
    found = []

    def asked() -> bool:
        found.append(drive(robot, number + 100 * len(found), wait_s=SHORT_S))
        return found[-1].state == "driving"

    until(asked)
    return found[-1]


def test_the_robot_drives_as_the_policy_says(robot: MobileRobot) -> None:
    request = {"image": scene(1), "goal": GOAL, "proprioception": MOTION}
    request = {k: v if k == "image" else v.astype(np.float32) for k, v in request.items()}
    expected = ImageModel(policy_manifest(), tiny_policy).infer(request)["action"]
    captured_ns = robot.now_ns()
    command = drive(robot, 1, captured_ns=captured_ns)
    assert (command.state, command.captured_ns) == ("driving", captured_ns)
    np.testing.assert_allclose([command.speed, command.turn_rate], expected, rtol=1e-6)
    assert robot.counts.frames == robot.counts.followed == 1
    assert len(robot.counts.latencies_s) == 1


def test_commands_are_limited_to_what_the_robot_can_do(server: Server) -> None:
    with mobile_robot(server, largest_speed=0.1, largest_turn_rate=0.2) as robot:
        command = drive(robot, 1)
    assert (command.speed, command.turn_rate) == (0.1, 0.2)


def test_a_robot_without_an_answer_stands(server: Server, robot: MobileRobot) -> None:
    assert robot.command() == Command(0.0, 0.0, "waiting")
    engine = obedient(server, MODEL)
    engine.gate.clear()
    assert drive(robot, 1, wait_s=0.0) == Command(0.0, 0.0, "waiting")
    engine.gate.set()
    robot.receive(PATIENCE_S)
    assert robot.command().state == "driving"


def test_of_the_frames_that_wait_only_the_newest_is_answered(
    server: Server, robot: MobileRobot
) -> None:
    engine = obedient(server, MODEL)
    engine.gate.clear()
    robot.send(scene(0), GOAL, MOTION)
    until(lambda: engine.runs == 1)
    for number in (1, 2, 3, 4):
        robot.send(scene(number), GOAL, MOTION)
        last_ns = robot.now_ns()
    until(lambda: server._metrics.counters().get("dropped.stale_replaced") == 3)
    engine.gate.set()
    robot.receive(PATIENCE_S)
    command = robot.command()
    assert robot.counts.stale == {"replaced": 3}
    assert robot.counts.followed == 2
    assert command.captured_ns is not None
    assert 0 <= last_ns - command.captured_ns < PATIENCE_S * 1e9
    assert engine.runs == 2


@LANES
def test_frames_take_a_lane_on_the_same_host_and_the_robot_outlives_it(
    server: Server, robot: MobileRobot
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 240, 320, 3), dtype=np.uint8)
    for image in images[:3]:
        robot.drive(image, GOAL, MOTION, wait_s=PATIENCE_S)
    assert robot._connection.has_lane
    lanes = server._lanes
    assert lanes is not None
    (lane,) = lanes._lanes.values()
    server._io.mailbox.put(lambda: lanes.drop(lane))
    until(lambda: not lanes._lanes)
    assert robot.drive(images[3], GOAL, MOTION, wait_s=PATIENCE_S).state == "driving"
    assert robot.counts.frames == robot.counts.followed == 4


@LANES
def test_frames_of_a_lane_are_answered_and_given_back_as_those_of_a_socket(
    server: Server, robot: MobileRobot
) -> None:
    drive(robot, 0)
    assert robot._connection._lane is not None
    engine = obedient(server, MODEL)
    engine.gate.clear()
    robot.send(scene(1), GOAL, MOTION)
    until(lambda: engine.runs == 1)
    for number in (2, 3):
        robot.send(scene(number), GOAL, MOTION)
    until(lambda: server._metrics.counters().get("dropped.stale_replaced") == 1)
    engine.gate.set()
    robot.receive(PATIENCE_S)
    assert (robot.counts.stale, robot.counts.followed) == ({"replaced": 1}, 3)
    assert robot._connection._lane._requests.taken == 0


# Never what is too old ---------------------------------------------------------------------------


def test_past_its_time_an_action_is_followed_no_more(tmp_path: Path, short: Path) -> None:
    """A server that hangs: nothing tells the robot but its own clock."""
    with (
        running(Server(server_config(tmp_path, more=[short]))) as server,
        mobile_robot(server) as robot,
    ):
        engine = obedient(server, MODEL)
        captured_ns = driving(robot).captured_ns
        engine.gate.clear()
        assert captured_ns is not None
        while (command := robot.command()).state == "driving":
            assert robot.now_ns() - captured_ns < PATIENCE_S * 1e9
        assert robot.now_ns() - captured_ns >= SHORT_S * 1e9
        assert command == Command(0.0, 0.0, "expired")
        assert robot.command() == command
        assert robot.counts.stops == {"expired": 1}
        assert robot.counts.oldest_followed_s < SHORT_S
        engine.gate.set()
        assert driving(robot, 2).state == "driving"


def test_an_answer_that_comes_too_late_is_not_acted_on(server: Server) -> None:
    """The server answered in time; the way back took too long."""
    with mobile_robot(server, max_age_s=1.0) as robot:
        captured_ns = robot.now_ns()
        robot.send(scene(1), GOAL, MOTION, captured_ns)
        until(lambda: robot.now_ns() - captured_ns > 1.0 * 1e9)
        robot.receive(PATIENCE_S)
        counts = robot.counts
        # On a machine so busy that the server itself took a second, it said `Stale`.
        assert counts.late + counts.stale.get("queue", 0) + counts.stale.get("reply", 0) == 1
        assert counts.followed == 0
        assert robot.command().state == "waiting"


def test_frames_that_wait_too_long_in_the_server_are_never_acted_on(server: Server) -> None:
    engine = obedient(server, MODEL)
    with mobile_robot(server, max_age_s=0.2) as robot:
        engine.gate.clear()
        captured_ns = robot.now_ns()
        robot.send(scene(1), GOAL, MOTION, captured_ns)
        until(lambda: engine.runs == 1 or robot.now_ns() - captured_ns > 0.2 * 1e9)
        robot.send(scene(2), GOAL, MOTION, captured_ns)
        until(lambda: robot.now_ns() - captured_ns > 0.2 * 1e9)
        engine.gate.set()
        robot.receive(PATIENCE_S)
        assert sum(robot.counts.stale.values()) == 2
        assert robot.counts.followed == 0
        assert robot.command().state == "waiting"


def test_an_action_for_an_older_image_never_takes_the_place_of_a_newer_ones(
    robot: MobileRobot,
) -> None:
    now_ns = robot.now_ns()
    newer = drive(robot, 1, captured_ns=now_ns)
    older = robot.drive(
        scene(2), np.array([2.0, 1.0, 0.0]), MOTION, now_ns - 1000, wait_s=PATIENCE_S
    )
    assert older == newer
    assert robot.counts.superseded == 1


# Refused -----------------------------------------------------------------------------------------


def test_a_refused_frame_stops_the_robot_at_once(robot: MobileRobot) -> None:
    assert drive(robot, 1).state == "driving"
    black = np.zeros((48, 64, 3), np.uint8)
    command = robot.drive(black, GOAL, MOTION, wait_s=PATIENCE_S)
    assert command == Command(0.0, 0.0, "image_black")
    assert robot.counts.refused == robot.counts.stops == {"image_black": 1}
    assert drive(robot, 2).state == "driving"


@pytest.mark.parametrize(
    ("goal", "motion", "state"),
    [
        ([np.nan, 1.0, 0.0], [0.1, 0.0], "goal"),
        ([2.0, 1.0, 0.0], [np.nan, 0.0], "proprioception"),
        ([2.0, 1.0], [0.1, 0.0], "bad_input"),
    ],
)
def test_what_cannot_be_stops_the_robot(
    robot: MobileRobot, goal: list[float], motion: list[float], state: str
) -> None:
    assert drive(robot, 1).state == "driving"
    command = robot.drive(scene(2), np.array(goal), np.array(motion), wait_s=PATIENCE_S)
    assert command == Command(0.0, 0.0, state)


def test_a_frozen_camera_stops_the_robot_until_it_sees_again(robot: MobileRobot) -> None:
    states = [drive(robot, 1).state for _ in range(FROZEN_AFTER + 2)]
    assert states == ["driving"] * FROZEN_AFTER + ["camera_frozen"] * 2
    assert drive(robot, 2).state == "driving"


def test_a_failure_of_the_server_leaves_the_last_action_until_it_expires(
    server: Server, robot: MobileRobot
) -> None:
    before = drive(robot, 1)
    obedient(server, MODEL).failure = RuntimeError("broken")
    assert drive(robot, 2) == before
    assert robot.counts.failed == 1


def test_a_drivers_buffer_may_be_used_again_at_once(robot: MobileRobot) -> None:
    """Large frames leave by another thread, without a copy."""
    buffer = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    robot.send(buffer, GOAL, MOTION)
    buffer[:] = 0
    robot.receive(PATIENCE_S)
    assert robot.command().state == "driving"


# The server comes and goes -----------------------------------------------------------------------


def test_the_robot_stops_while_the_server_is_away_and_goes_on_when_it_is_back(
    tmp_path: Path, short: Path
) -> None:
    config = server_config(tmp_path, more=[short])
    with running(Server(config)) as first:
        robot = mobile_robot(first)
        assert driving(robot).state == "driving"
        endpoint = first.listening[0]
    with robot:
        states = set()

        def away() -> bool:
            states.add(drive(robot, 2, wait_s=0.01).state)
            return "expired" in states and robot.counts.unsent > 0

        until(away)
        assert states <= {"driving", "expired"}
        assert robot.command() == Command(0.0, 0.0, "expired")
        again = server_config(tmp_path, more=[short], listen=(endpoint,))
        with running(Server(again)):
            assert driving(robot, 3).state == "driving"
        assert robot.counts.stops["expired"] >= 1
        assert robot.counts.oldest_followed_s < SHORT_S


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nothing", "model 'nothing' is not there"),
        ("tiny-anomaly", "model 'tiny-anomaly' of kind 'anomaly' has no policy"),
    ],
)
def test_a_model_that_does_not_drive_is_refused_at_once(
    server: Server, model: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        MobileRobot(server.listening[0], model)
    assert MODEL in caught.value.hint


def test_a_robot_without_a_server_says_so() -> None:
    with pytest.raises(RequestTimeoutError, match="no server at"):
        MobileRobot("tcp://127.0.0.1:1", MODEL, timeout_s=0.1)


# What it remembers -------------------------------------------------------------------------------


@pytest.fixture
def remembering(tmp_path: Path) -> Iterator[Server]:
    bundle = policy_bundle(tmp_path / "remembers", valid_s=LONG_S, remembers=True).path
    with running(Server(server_config(tmp_path, more=[bundle]))) as served:
        yield served


def seen_before(command: Command) -> float:
    """How many images the policy remembered when it drove: it then slows down."""
    return 2 * (1 - command.speed / FRESH) / LEARNT


FRESH = 0.5 * 0.8**4
"""Speed of a policy without a memory at `GOAL`."""


def test_a_memory_comes_back_with_the_frame_a_step_later(remembering: Server) -> None:
    with mobile_robot(remembering, frame_s=0.1) as robot:
        counts = [seen_before(drive(robot, number)) for number in range(4)]
    assert counts == pytest.approx([0, 1, 2, 3], abs=1e-4)


def test_at_twice_the_rate_two_chains_of_memories_alternate(remembering: Server) -> None:
    with mobile_robot(remembering, frame_s=0.05) as robot:
        counts = [seen_before(drive(robot, number)) for number in range(6)]
    assert counts == pytest.approx([0, 0, 1, 1, 2, 2], abs=1e-4)


def test_frames_are_as_old_as_their_capture_times_say(remembering: Server) -> None:
    with mobile_robot(remembering) as robot:
        now_ns = robot.now_ns()
        ages_s = (3.0, 2.9, 2.85, 2.0)  # the third is too near, the last too far from the others
        captured = [now_ns - round(age_s * 1e9) for age_s in ages_s]
        counts = [
            seen_before(drive(robot, number, captured_ns=at_ns))
            for number, at_ns in enumerate(captured)
        ]
    assert counts == pytest.approx([0, 1, 1, 0], abs=1e-4)


def test_a_frame_that_is_lost_leaves_the_memory_before_it(remembering: Server) -> None:
    with mobile_robot(remembering, frame_s=0.1) as robot:
        drive(robot, 0)
        black = np.zeros((48, 64, 3), np.uint8)
        refused = robot.drive(black, GOAL, MOTION, wait_s=PATIENCE_S)
        assert refused.state == "image_black"
        assert seen_before(drive(robot, 2)) == pytest.approx(1, abs=1e-4)


def test_a_robot_that_was_carried_elsewhere_begins_anew(remembering: Server) -> None:
    with mobile_robot(remembering, frame_s=0.1) as robot:
        drive(robot, 0)
        robot.begin_trip()
        counts = [seen_before(drive(robot, number)) for number in (1, 2)]
    assert counts == pytest.approx([0, 1], abs=1e-4)


@pytest.mark.parametrize("wrong", [np.nan, 1.5])
def test_a_memory_that_cannot_be_is_refused(remembering: Server, wrong: float) -> None:
    request = {"image": scene(0), "goal": GOAL, "proprioception": MOTION, "memory": [wrong]}
    arrays = {k: v if k == "image" else np.array(v, np.float32) for k, v in request.items()}
    with RobotClient(remembering.listening[0]) as client:
        with pytest.raises(RejectedError, match="beyond ±1") as caught:
            client.infer(MODEL, arrays, timeout_s=PATIENCE_S)
        del arrays["memory"]
        answer = client.infer(MODEL, arrays, timeout_s=PATIENCE_S)
    assert caught.value.cause == "memory"
    assert answer.outputs["next_memory"].tolist() == [LEARNT]
