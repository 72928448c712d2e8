"""What is remembered of cameras is bounded, and a watch does not mistake order for a standstill."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.errors import ImplausibleError
from limpet.runtime.camera_watch import (
    FROZEN_AFTER,
    FROZEN_STANDING_AFTER,
    MOST_CAMERAS,
    MOST_CLIENTS,
    CameraWatch,
    CameraWatches,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def test_a_camera_that_is_asked_for_again_is_the_same() -> None:
    watches = CameraWatches()
    front = watches.of(b"robot", "front")
    assert watches.of(b"robot", "front") is front
    assert watches.of(b"robot", "rear") is not front
    assert watches.of(b"other", "front") is not front


def test_clients_and_cameras_are_bounded_and_those_in_use_stay() -> None:
    watches = CameraWatches()
    mine = watches.of(b"mine", "front")
    for number in range(3 * MOST_CLIENTS):
        for camera in range(MOST_CAMERAS + 2 if number < 3 else 1):
            watches.of(b"client-%d" % number, f"camera-{camera}")
        assert watches.of(b"mine", "front") is mine
    assert len(watches._clients) == MOST_CLIENTS
    assert max(len(cameras) for cameras in watches._clients.values()) <= MOST_CAMERAS


def test_an_older_image_that_comes_late_is_no_repeat() -> None:
    watch = CameraWatch()
    for captured_ns in (100, 90, 80, 70, 60):
        watch.check(IMAGE, captured_ns, moving=True)


def test_repeats_while_standing_do_not_count_as_those_while_moving() -> None:
    watch = CameraWatch()
    standing = FROZEN_STANDING_AFTER - FROZEN_AFTER
    for captured_ns in range(standing):
        watch.check(IMAGE, captured_ns, moving=False)
    for captured_ns in range(100, 100 + FROZEN_AFTER - 1):
        watch.check(IMAGE, captured_ns, moving=True)
    with pytest.raises(ImplausibleError, match="while the robot moves") as caught:
        watch.check(IMAGE, 200, moving=True)
    assert caught.value.cause == "camera_frozen"


def test_a_robot_that_stays_where_it_is_though_told_to_drive_has_a_frozen_camera() -> None:
    watch = CameraWatch()
    for captured_ns in range(FROZEN_STANDING_AFTER):
        watch.check(IMAGE, captured_ns, moving=False)
    for moving in (False, True):
        with pytest.raises(ImplausibleError, match=r"20 later images .* is told to"):
            watch.check(IMAGE, 100, moving)
    watch.check(255 - IMAGE, 101, moving=False)
    watch.check(255 - IMAGE, 102, moving=False)
