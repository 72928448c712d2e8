"""Same-host lanes: what comes over them, and where there are none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec import UNSET

from limpet.contracts.errors import LimpetError, RequestTimeoutError
from limpet.contracts.messages import LaneOffer
from limpet.runtime.client import RobotClient
from limpet.runtime.lane import LaneSeeker, is_same_host, open_lane
from limpet.runtime.lane_memory import SUPPORTED
from limpet.runtime.server import Server
from tests.runtime.lanes import (
    LARGE,
    ask,
    counter,
    lanes_of,
    mapped_lanes,
    take_lane,
    wide_serving,
    x,
)
from tests.runtime.serving import obedient, until

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="lanes need Linux: memfd and its seals")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with wide_serving(tmp_path) as served:
        yield served


@pytest.fixture
def robot(server: Server) -> Iterator[RobotClient]:
    with RobotClient(server.listening[0]) as connected:
        take_lane(connected)
        yield connected


@pytest.mark.parametrize("size", [1, 4, 16_000, 16_368, 16_384, LARGE, 700_000])
def test_results_are_those_of_their_requests_at_every_size(
    server: Server, robot: RobotClient, size: int
) -> None:
    lane = robot._lane
    for value in range(1, 6):
        ask(robot, value, size)
    assert robot._lane is lane
    assert counter(server, "lane.opened") == 1
    assert counter(server, "requests.Infer") == 6


def test_arrays_that_came_stay_as_they_are_whatever_comes_after_them(tmp_path: Path) -> None:
    with wide_serving(tmp_path) as server, RobotClient(server.listening[0]) as robot:
        take_lane(robot)
        kept = [ask(robot, value) for value in range(1, 30)]
        part = ask(robot, 99.0)[0, 5:9]
        for value in range(100, 120):
            ask(robot, value)
        assert not kept[0].flags.writeable
    for value, array in enumerate(kept, start=1):
        assert np.all(array == value)
    assert part.tolist() == [99.0] * 4
    del kept, array, part
    assert until(lambda: mapped_lanes() == 0)


def test_blocks_come_back_and_the_same_memory_is_used_again(
    server: Server, robot: RobotClient
) -> None:
    assert server._lanes is not None
    (lane,) = server._lanes._lanes.values()
    for value in range(500):  # 160 MB in all, of 32
        ask(robot, value)
        assert lane._replies.taken <= 2
        assert robot._lane is not None
        assert robot._lane._requests.taken == 0


def test_what_has_no_room_comes_over_the_socket(tmp_path: Path) -> None:
    with wide_serving(tmp_path, lane_mb=1) as server, RobotClient(server.listening[0]) as robot:
        take_lane(robot)
        ask(robot, 1.0, 400_000)  # larger than an area
        kept = [ask(robot, value) for value in range(12)]  # replies fill theirs
        assert all(np.all(array == value) for value, array in enumerate(kept))
        assert robot._lane is not None
        del kept
        ask(robot, 3.0)
        ask(robot, 4.0)
        assert robot._lane._held == {}


def test_a_late_reply_over_a_lane_is_not_taken_for_the_next_one(
    server: Server, robot: RobotClient
) -> None:
    engine = obedient(server, "identity")
    engine.gate.clear()
    for value in (1.0, 2.0):
        with pytest.raises(RequestTimeoutError, match=r"no reply from .* to Infer within 0.05 s"):
            robot.infer("identity", x(value), timeout_s=0.05)
    engine.gate.set()
    for value in (3.0, 4.0):
        ask(robot, value)
    assert robot._lane is not None
    assert robot._lane._requests.taken == 0


def test_errors_are_those_of_the_socket(server: Server, robot: RobotClient) -> None:
    with RobotClient(server.listening[0], lane=False) as other:
        for inputs in ({"x": np.ones((1, 4))}, {"z": np.ones((1, LARGE), np.float32)}):
            told = []
            for each in (robot, other):
                with pytest.raises(LimpetError) as caught:
                    each.infer("identity", inputs)
                told.append(str(caught.value))
            assert told[0] == told[1]
        assert other._lane is None
    assert counter(server, "rejected.bad_input") == 4


def test_many_clients_at_once_get_each_their_own_results(server: Server) -> None:
    wrong: list[Exception] = []

    def work(first: int) -> None:
        try:
            with RobotClient(server.listening[0]) as mine:
                for value in range(first, first + 30):
                    ask(mine, value)
        except (LimpetError, AssertionError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=[1000 * i]) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    until(lambda: lanes_of(server) == 0)


@pytest.mark.parametrize(
    ("endpoint", "same"),
    [
        ("tcp://127.0.0.1:7700", True),
        ("tcp://localhost:7700", True),
        ("ipc:///run/limpet.sock", True),
        ("tcp://192.168.1.4:7700", False),
        ("tcp://robot.local:7700", False),
        ("tcp://localhost.example.com:7700", False),
    ],
)
def test_a_lane_is_asked_for_on_the_same_host_only(endpoint: str, same: bool) -> None:
    assert is_same_host(endpoint) is same
    assert (LaneSeeker(endpoint, wanted=True).ask(lambda: 1, "c") is not None) is same
    assert LaneSeeker(endpoint, wanted=False).ask(lambda: 1, "c") is None


def test_where_there_is_none_the_socket_serves_and_nothing_is_asked_again(tmp_path: Path) -> None:
    with wide_serving(tmp_path, lane_mb=0) as server, RobotClient(server.listening[0]) as robot:
        for value in range(5):
            ask(robot, value)
        assert robot._lane is None
        assert counter(server, "requests.Hello") == 1
        assert robot.hello().lane is UNSET


def test_a_system_without_such_sockets_serves_without_lanes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "x" * 200)  # too long a name
    with wide_serving(tmp_path) as server, RobotClient(server.listening[0]) as robot:
        ask(robot, 1.0)
        ask(robot, 2.0)
        assert server._lanes is None
        assert not robot.has_lane


def test_an_offer_of_another_host_cannot_be_taken_and_the_socket_serves(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = LaneOffer(address="limpet-of-another-host", token="00" * 16)
    assert open_lane(elsewhere) is None
    assert server._lanes is not None
    monkeypatch.setattr(server._lanes, "offer", lambda peer: elsewhere)
    with RobotClient(server.listening[0]) as robot:
        for value in range(5):
            ask(robot, value)
        assert robot._lane is None
    assert counter(server, "requests.Hello") == 1
