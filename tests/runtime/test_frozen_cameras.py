"""A camera that shows the same image again and again, through a server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.errors import RejectedError
from limpet.runtime.camera_watch import FROZEN_AFTER, FROZEN_STANDING_AFTER, MOST_CAMERAS
from limpet.runtime.client import RobotClient
from limpet.runtime.server import Server
from tests.runtime.image_robots import MODEL, ask, count, scene, senses, serving_images

STILL = {"proprioception": np.zeros(2, np.float32)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One that no other test sees."""
    with serving_images(tmp_path) as served:
        yield served


class Camera:
    """Sends images to the server, each captured a tick later."""

    def __init__(self, robot: RobotClient, name: str = "front") -> None:
        self._robot, self._name, self._ticks = robot, name, 0
        self._began_ns = time.time_ns() - 1_000_000_000

    def show(self, image: NDArray[np.uint8], *, tick: bool = True, **changes: Any) -> str:
        """The refusal's cause, empty for an answer."""
        self._ticks += tick
        try:
            ask(
                self._robot,
                senses(image, **changes),
                capture_time_ns=self._began_ns + 1_000_000 * self._ticks,
                replaces=self._name,
            )
        except RejectedError as error:
            return error.cause
        return ""


def frozen(camera: Camera, image: NDArray[np.uint8]) -> None:
    """Shows one image until it is refused, which must be when it is due."""
    shown = [camera.show(image) for _ in range(FROZEN_AFTER + 3)]
    assert shown == [""] * FROZEN_AFTER + ["camera_frozen"] * 3


def test_the_same_image_again_and_again_while_the_robot_moves_is_a_frozen_camera(
    robot: RobotClient,
) -> None:
    before = count(robot, "cause.camera_frozen")
    camera = Camera(robot)
    frozen(camera, scene(1))
    assert count(robot, "cause.camera_frozen") == before + 3
    assert camera.show(scene(2)) == "", "it works again"
    frozen(camera, scene(3))


def test_a_camera_stays_frozen_when_the_robot_stops_for_it(robot: RobotClient) -> None:
    camera = Camera(robot)
    frozen(camera, scene(1))
    assert [camera.show(scene(1), **STILL) for _ in range(3)] == ["camera_frozen"] * 3
    assert camera.show(scene(2), **STILL) == ""


def test_a_robot_that_stands_may_see_the_same_for_a_second(robot: RobotClient) -> None:
    camera = Camera(robot)
    shown = [camera.show(scene(1), **STILL) for _ in range(FROZEN_STANDING_AFTER + 2)]
    assert shown == [""] * FROZEN_STANDING_AFTER + ["camera_frozen"] * 2


def test_turning_is_moving(robot: RobotClient) -> None:
    camera = Camera(robot)
    turning = {"proprioception": np.array([0.0, 0.5], np.float32)}
    shown = [camera.show(scene(1), **turning) for _ in range(FROZEN_AFTER + 1)]
    assert shown[-1] == "camera_frozen"


def test_a_frame_that_is_sent_again_is_no_sign_of_a_frozen_camera(robot: RobotClient) -> None:
    camera = Camera(robot)
    assert not any(camera.show(scene(1), tick=False) for _ in range(4 * FROZEN_AFTER))


def test_one_pixel_that_changes_shows_that_a_camera_lives(robot: RobotClient) -> None:
    camera, image = Camera(robot), scene(1)
    for number in range(4 * FROZEN_AFTER):
        image[0, number % 64, 0] ^= 1
        assert camera.show(image) == ""


def test_a_frozen_camera_is_nobody_elses_trouble(server: Server, robot: RobotClient) -> None:
    """Neither another client's, nor another camera's of the same robot, with the same image."""
    front, rear = Camera(robot, "front"), Camera(robot, "rear")
    frozen(front, scene(1))
    assert rear.show(scene(1)) == ""
    with RobotClient(server.listening[0]) as other:
        assert Camera(other, "front").show(scene(1)) == ""


def test_a_client_with_more_cameras_than_are_remembered_forgets_its_own_only(
    server: Server,
) -> None:
    endpoint = server.listening[0]
    with RobotClient(endpoint) as robot, RobotClient(endpoint) as greedy:
        camera = Camera(robot)
        frozen(camera, scene(1))
        for number in range(3 * MOST_CAMERAS):
            assert Camera(greedy, f"camera-{number}").show(scene(1)) == ""
        served = server._models[MODEL].images
        assert served is not None
        clients = served._cameras._clients
        assert sorted(len(cameras) for cameras in clients.values()) == [1, MOST_CAMERAS]
        assert camera.show(scene(1)) == "camera_frozen"
