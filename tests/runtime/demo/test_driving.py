"""Closed loop over ZeroMQ: a robot arrives as it would without a wire, and never acts on the old.

No test here says how fast: a busy machine makes ticks late, and then the counts must add up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from limpet.contracts.errors import MissingExtraError, UsageError
from limpet.runtime.demo.driving import Drive, DriveReport, Pace, load_simulator
from limpet.runtime.demo.trips import Trip, draw_trips, read_trips, write_trips
from limpet.runtime.mobile_robot import MobileRobot
from limpet.runtime.sensor import SensorStream
from limpet.runtime.server import Server
from tests.navigation_bundles import policy_bundle, policy_manifest, tiny_policy
from tests.runtime.driving import EmptyRoom, LocalDriver
from tests.runtime.serving import CHANNELS, obedient, running, server_config

MODEL = "tiny-policy"
VALID_S = 0.3
EPISODES = range(4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy_bundle(tmp_path_factory.mktemp("policy") / "policy", valid_s=VALID_S).path


@pytest.fixture
def server(tmp_path: Path, bundle: Path) -> Iterator[Server]:
    with running(Server(server_config(tmp_path, more=[bundle]))) as served:
        yield served


def mobile_robot(server: Server, max_age_s: float = 0.2) -> MobileRobot:
    return MobileRobot(server.listening[0], MODEL, max_age_s=max_age_s)


def assert_all_accounted_for(report: DriveReport) -> None:
    """Each frame was counted once, and none was acted on past its time."""
    ended = report.followed + report.late + report.superseded + report.failed + report.unsent
    ended += sum(report.stale.values()) + sum(report.refused.values()) + report.unanswered
    # The last ones may still have been under way.
    assert report.frames - 2 <= ended <= report.frames
    assert report.frames == report.ticks == sum(report.states.values())
    assert report.oldest_followed_ms <= VALID_S * 1e3


@pytest.mark.parametrize("remembers", [False, True])
def test_through_the_wire_the_robot_drives_as_without_it(tmp_path: Path, remembers: bool) -> None:
    """With time enough for every answer each command is the same, so each way is."""
    bundle = policy_bundle(tmp_path / "patient", valid_s=30.0, remembers=remembers).path
    local, remote = EmptyRoom(), EmptyRoom()
    alone = Drive(local, LocalDriver(policy_manifest(remembers=remembers), tiny_policy), None)
    alone.run(EPISODES)
    with (
        running(Server(server_config(tmp_path, more=[bundle]))) as server,
        MobileRobot(server.listening[0], MODEL, max_age_s=30.0, frame_s=0.05) as robot,
    ):
        wired = Drive(remote, robot, None)
        wired.run(EPISODES)
    report = wired.report(MODEL, 30.0)
    assert [episode.success for episode in report.episodes] == [True] * len(EPISODES)
    for found, wanted in zip(report.episodes, alone.episodes, strict=True):
        assert msgspec.structs.asdict(found) == pytest.approx(msgspec.structs.asdict(wanted))
    np.testing.assert_allclose(remote.commands, local.commands, atol=1e-6)
    assert (report.sr, report.rate_hz, report.late_ticks) == (1.0, None, 0)
    assert report.followed == report.frames == report.ticks
    assert report.stale == report.stops == report.refused == {}


def test_at_twenty_hertz_beside_a_stream_that_is_scored(server: Server) -> None:
    stopped = threading.Event()

    def stream() -> None:
        rng = np.random.default_rng(0)
        with SensorStream(server.listening[0], "pump", CHANNELS, rate_hz=1000.0) as sensor:
            while not stopped.is_set():
                sensor.send(rng.normal(size=(20, 2)))
                sensor.wait(0.02)
            sensor.flush()

    beside = threading.Thread(target=stream)
    beside.start()
    try:
        with mobile_robot(server) as robot:
            drive = Drive(EmptyRoom(most_steps=60), robot, 20.0)
            drive.run(range(1))
    finally:
        stopped.set()
        beside.join()
    report = drive.report(MODEL, 0.2)
    assert_all_accounted_for(report)
    assert report.followed > 0
    assert len(report.episodes) == 1
    assert 0.0 < report.reached_hz <= 21.0
    assert server._metrics.counters()["requests.Samples"] > 0


def test_answers_that_are_held_back_stop_the_robot_and_none_is_acted_on(server: Server) -> None:
    """For a second the engine hangs; whatever it was asked meanwhile is too old for good."""
    engine = obedient(server, MODEL)
    room = EmptyRoom(most_steps=60)

    def hang(step: int) -> None:
        if step == 10:
            engine.gate.clear()
        if step == 30:
            engine.gate.set()

    room._before_drive = hang
    with mobile_robot(server) as robot:
        drive = Drive(room, robot, 20.0)
        drive.run(range(1))
    report = drive.report(MODEL, 0.2)
    assert_all_accounted_for(report)
    assert report.stops["expired"] >= 1
    assert report.states["expired"] >= 10
    # 0.3 s after the last image that was answered, at tick 10 or before, the robot stands.
    assert all(command == (0.0, 0.0) for command in room.commands[18:30])
    assert report.followed > 0
    assert report.stale.get("reply", 0) + report.stale.get("queue", 0) >= 1


def test_a_server_that_is_started_again_in_the_middle_of_a_drive(
    tmp_path: Path, bundle: Path
) -> None:
    """The robot stops, and goes on to its goal."""
    with contextlib.ExitStack() as servers:
        first = Server(server_config(tmp_path, more=[bundle]))
        one = servers.enter_context(contextlib.ExitStack())
        one.enter_context(running(first))
        endpoint = first.listening[0]

        def restart(step: int) -> None:
            if step == 10:
                one.close()
            elif step == 30:
                config = server_config(tmp_path, more=[bundle], listen=(endpoint,))
                servers.enter_context(running(Server(config)))

        room = EmptyRoom(before_drive=restart)
        with mobile_robot(first) as robot:
            drive = Drive(room, robot, 20.0)
            drive.run(range(1))
    report = drive.report(MODEL, 0.2)
    assert_all_accounted_for(report)
    assert report.stops["expired"] >= 1
    assert report.unsent > 0
    assert report.sr == 1.0
    assert all(command == (0.0, 0.0) for command in room.commands[18:30])


def test_a_camera_that_freezes_stops_the_robot_for_good(server: Server) -> None:
    room = EmptyRoom(most_steps=40)
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    senses = room._senses
    room._senses = lambda: {**senses(), "image": image}  # type: ignore[method-assign]
    with mobile_robot(server) as robot:
        drive = Drive(room, robot, None)
        drive.run(range(1))
    report = drive.report(MODEL, 0.2)
    assert report.stops == {"camera_frozen": 1}
    assert report.states["camera_frozen"] >= 30
    assert report.sr == 0.0
    assert room.commands[-1] == (0.0, 0.0)


def test_a_drive_that_is_stopped_keeps_the_way_so_far(server: Server) -> None:
    room = EmptyRoom()
    with mobile_robot(server) as robot:
        drive = Drive(room, robot, None, stopped=lambda: len(room.commands) >= 5)
        drive.run(range(3))
    report = drive.report(MODEL, 0.2)
    assert (report.episodes, report.sr, report.spl) == ([], None, None)
    (trip,) = drive.trips
    assert trip.success is None
    assert trip.path.shape == (6, 2)


# Parts -------------------------------------------------------------------------------------------


def test_a_late_tick_is_counted_and_begins_the_pace_anew() -> None:
    pace = Pace(1000.0)
    pace.begin()
    assert pace.left_s() <= 0.001
    while pace.left_s() > 0.0:
        pass
    time.sleep(0.001)
    pace.next()
    assert pace.late_ticks == 1
    assert Pace(None).left_s() > 0.0


@pytest.mark.parametrize("name", ["json:nothing", "tests.runtime.driving", ":x"])
def test_a_simulator_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no simulator"):
        load_simulator(name)


def test_a_simulator_that_cannot_be_imported_lacks_an_extra() -> None:
    with pytest.raises(MissingExtraError, match="limpet_simulator_that_is_not_there"):
        load_simulator("limpet_simulator_that_is_not_there:make")


def test_a_simulator_is_loaded_by_name() -> None:
    assert isinstance(load_simulator("tests.runtime.driving:EmptyRoom"), EmptyRoom)


def trip(success: bool | None, shift: float = 0.0) -> Trip:
    return Trip(
        path=np.array([[0.0, 0.0], [1.0, 0.5]]) + shift,
        goal=np.array([1.0, 0.5]) + shift,
        success=success,
        obstacles=np.array([[[2.0, 2.0], [3.0, 2.0], [3.0, 3.0]]]) + shift,
    )


def test_ways_survive_their_file(tmp_path: Path) -> None:
    trips = [trip(True), trip(False, 1.0), trip(None)]
    write_trips(tmp_path / "trips.npz", trips)
    read = read_trips(tmp_path / "trips.npz")
    assert [each.success for each in read] == [True, False, None]
    for found, wanted in zip(read, trips, strict=True):
        for name in ("path", "goal", "obstacles"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_ways_are_drawn(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image", reason="needs the extra `dashboard`")
    draw_trips(tmp_path / "one.png", [trip(True), trip(False)], "one layout")
    draw_trips(tmp_path / "two.png", [trip(True), trip(False, 1.0)], "two layouts")
    one, two = (image.imread(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert one[..., :3].std() > 0.02
    assert two.shape[1] > one.shape[1], "layouts stand side by side"
