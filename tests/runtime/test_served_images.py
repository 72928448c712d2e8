"""Models that take images, through a server: what is answered, what is refused, and as what."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.errors import FailedError, RejectedError, StaleReplyError
from limpet.contracts.image_model import ImageModel
from limpet.contracts.images import ChannelOrder
from limpet.runtime.client import RobotClient
from limpet.runtime.config import ModelConfig, StreamConfig
from limpet.runtime.sensor import SensorStream
from limpet.runtime.server import Server
from tests.navigation_bundles import policy_bundle, policy_manifest, tiny_policy
from tests.runtime.image_robots import MODEL, VALID_S, ask, count, scene, senses, serving_images
from tests.runtime.serving import PATIENCE_S, obedient, running, server_config


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving_images(tmp_path_factory.mktemp("images")) as served:
        yield served


def refusal(robot: RobotClient, inputs: dict[str, NDArray[Any]], **options: Any) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        ask(robot, inputs, **options)
    return caught.value


# What is answered --------------------------------------------------------------------------------


def test_the_welcome_says_what_a_request_carries(robot: RobotClient) -> None:
    info = {model.name: model for model in robot.hello().models}[MODEL]
    assert info.kind == "navigation"
    assert [spec.describe() for spec in info.inputs] == [
        "image uint8 [rows, columns, 3]",
        "goal float32 [3]",
        "proprioception float32 [2]",
    ]
    assert [spec.name for spec in info.outputs] == ["embedding", "action"]


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (97, 33), (480, 640)])
def test_an_image_of_any_size_gets_what_trainings_preprocessing_gives(
    robot: RobotClient, size: tuple[int, int]
) -> None:
    asked = senses(scene(3, *size))
    expected = ImageModel(policy_manifest(), tiny_policy).infer(asked)
    outputs = ask(robot, asked).outputs
    assert set(outputs) == {"embedding", "action"}
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, atol=1e-6)


def test_an_encoder_alone_takes_images_alone_and_its_answer_is_no_action(
    robot: RobotClient,
) -> None:
    answer = robot.infer("tiny-navigation", {"image": scene()}, timeout_s=PATIENCE_S)
    assert set(answer.outputs) == {"embedding"}
    assert answer.valid_until_ns is None


@pytest.mark.parametrize("order", ["rgb", "bgr", "rgba", "bgra"])
def test_an_image_whose_channel_order_is_named_is_put_right(
    robot: RobotClient, order: ChannelOrder
) -> None:
    image = scene()
    opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
    sent = image if order.startswith("rgb") else image[..., ::-1]
    if order.endswith("a"):
        sent = np.concatenate([sent, opaque], axis=2)
    expected = ask(robot, senses(image)).outputs["embedding"]
    found = ask(robot, senses(sent), channel_order=order).outputs["embedding"]
    np.testing.assert_array_equal(found, expected)


def test_a_grey_image_needs_no_third_axis(robot: RobotClient) -> None:
    grey = scene()[..., 0]
    expected = ask(robot, senses(np.repeat(grey[..., None], 3, axis=2))).outputs["embedding"]
    for image in (grey, grey[..., None]):
        found = ask(robot, senses(image), channel_order="mono").outputs["embedding"]
        np.testing.assert_array_equal(found, expected)


def test_an_action_is_valid_from_the_capture_of_its_image_on(robot: RobotClient) -> None:
    robot.sync_clock()
    captured_ns = time.time_ns() - 1_000_000_000
    answer = ask(robot, senses(), capture_time_ns=captured_ns)
    assert answer.valid_until_ns is not None
    # What lies between the host's two clocks, and the rounding of the measured offset.
    assert abs(answer.valid_until_ns - captured_ns - VALID_S * 1e9) < 1e8


@pytest.mark.parametrize("max_age_s", [None, 2 * VALID_S])
def test_no_action_is_given_for_an_image_older_than_an_action_may_be(
    robot: RobotClient, max_age_s: float | None
) -> None:
    old_ns = time.time_ns() - round((VALID_S + 1) * 1e9)
    with pytest.raises(StaleReplyError, match=r"at most 30000\.0 ms wanted"):
        ask(robot, senses(), capture_time_ns=old_ns, max_age_s=max_age_s)


# What does not fit -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "options", "reason"),
    [
        ({"image": scene().astype(np.float32) / 255}, {}, "image is float32"),
        ({"image": scene().transpose(2, 0, 1).copy()}, {}, "image has shape [3, 48, 64]"),
        ({"image": scene()[..., 0]}, {}, "image has shape [48, 64]"),
        ({"image": scene(0, 4, 4)}, {}, "image has 4 rows and 4 columns"),
        ({"image": scene()}, {"channel_order": "rgba"}, "wanted 4 channels last (rgba)"),
        ({"image": scene()}, {"channel_order": "mono"}, "wanted 1 channels last (mono)"),
        ({"image": scene().astype(np.int16)}, {"channel_order": "bgr"}, "image is int16"),
        ({"goal": np.zeros((1, 3), np.float32)}, {}, "tensor 'goal' has shape [1, 3]"),
        ({"proprioception": np.zeros(2)}, {}, "tensor 'proprioception' is float64"),
        ({"lidar": np.zeros(2)}, {}, "unknown tensor 'lidar'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    robot: RobotClient, changed: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    error = refusal(robot, senses(**changed), **options)
    assert error.code == "bad_input"
    assert error.cause == ""
    assert reason in error.reason
    ask(robot, senses())


@pytest.mark.parametrize("missing", ["image", "goal", "proprioception"])
def test_a_tensor_that_is_missing_is_named(robot: RobotClient, missing: str) -> None:
    inputs = senses()
    del inputs[missing]
    others = sorted(inputs)
    assert f"tensor {missing!r} is missing, found {others}" in refusal(robot, inputs).reason


def test_a_channel_order_that_nobody_knows_is_no_message(robot: RobotClient) -> None:
    error = refusal(robot, senses(), channel_order="gbr")
    assert error.code == "malformed"
    assert "$.channel_order" in error.reason


def test_a_channel_order_for_a_model_without_images_is_refused(robot: RobotClient) -> None:
    with pytest.raises(RejectedError, match="takes no image"):
        robot.infer(
            "identity", {"x": np.zeros((1, 4), np.float32)}, channel_order="bgr", timeout_s=9.0
        )


# What cannot be ----------------------------------------------------------------------------------


def speckled(value: int, share: float = 0.005) -> NDArray[np.uint8]:
    """One value, with noise of two and a few hot or dead pixels."""
    rng = np.random.default_rng(5)
    image = np.clip(value + rng.integers(-2, 3, (32, 32, 3)), 0, 255).astype(np.uint8)
    image[rng.random((32, 32)) < share] = 255 - value
    return image


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        (np.zeros((48, 64, 3), np.uint8), "image_black"),
        (speckled(3), "image_black"),
        (np.full((48, 64, 3), 255, np.uint8), "image_bright"),
        (speckled(254), "image_bright"),
        (np.full((48, 64, 3), 128, np.uint8), "image_flat"),
        (np.full((480, 640, 3), (10, 40, 200), np.uint8), "image_flat"),
    ],
)
def test_an_image_that_shows_nothing_is_named_and_gets_no_action(
    robot: RobotClient, image: NDArray[np.uint8], cause: str
) -> None:
    before = count(robot, f"cause.{cause}")
    error = refusal(robot, senses(image))
    assert (error.code, error.cause) == ("bad_input", cause)
    assert error.hint
    assert count(robot, f"cause.{cause}") == before + 1


def test_an_encoder_alone_embeds_no_image_that_shows_nothing(robot: RobotClient) -> None:
    with pytest.raises(RejectedError) as caught:
        robot.infer("tiny-navigation", {"image": np.zeros_like(scene())}, timeout_s=PATIENCE_S)
    assert caught.value.cause == "image_black"


@pytest.mark.parametrize(
    "image",
    [
        speckled(22),  # a dark room
        speckled(240),  # a white wall in the sun
        np.clip(scene() // 64 + 126, 0, 255).astype(np.uint8),  # fog: contrast of one in 255
    ],
)
def test_a_poor_image_is_still_an_image(robot: RobotClient, image: NDArray[np.uint8]) -> None:
    assert ask(robot, senses(image)).outputs["action"].shape == (2,)


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"goal": [np.nan, 1, 0]}, "goal"),
        ({"goal": [2, np.nan, 0]}, "goal"),
        ({"goal": [np.inf, 1, 0]}, "goal"),
        ({"goal": [-1, 1, 0]}, "goal"),
        ({"goal": [101, 1, 0]}, "goal"),
        ({"goal": [2, 0, 0]}, "goal"),
        ({"goal": [2, 1, 1]}, "goal"),
        ({"proprioception": [np.nan, 0]}, "proprioception"),
        ({"proprioception": [0, np.inf]}, "proprioception"),
        ({"proprioception": [1.1, 0]}, "proprioception"),
        ({"proprioception": [0, -3.1]}, "proprioception"),
    ],
)
def test_a_goal_or_motion_that_cannot_be_gets_no_action(
    robot: RobotClient, changed: dict[str, list[float]], cause: str
) -> None:
    arrays = {name: np.array(value, np.float32) for name, value in changed.items()}
    error = refusal(robot, senses(**arrays))
    assert (error.code, error.cause) == ("bad_input", cause)
    assert error.hint


def test_values_at_the_limits_are_taken(robot: RobotClient) -> None:
    for goal, motion in (([0, 1, 0], [0, 0]), ([100, 0, -1], [1.0, 3.0])):
        arrays = {"goal": np.array(goal), "proprioception": np.array(motion)}
        ask(robot, senses(**{name: x.astype(np.float32) for name, x in arrays.items()}))


def test_a_model_that_computes_no_number_fails_the_request(tmp_path: Path) -> None:
    with serving_images(tmp_path) as fresh_server:
        engine = obedient(fresh_server, MODEL)
        engine.replace = lambda outputs: {**outputs, "action": np.full((1, 2), np.nan, np.float32)}
        with (
            RobotClient(fresh_server.listening[0]) as robot,
            pytest.raises(FailedError, match="'action' with values that are no numbers"),
        ):
            ask(robot, senses())


def test_a_server_of_a_policy_alone_drives_and_scores_no_stream(tmp_path: Path) -> None:
    bundle = policy_bundle(tmp_path / "policy", valid_s=VALID_S).path
    config = server_config(tmp_path)
    config = msgspec.structs.replace(
        config, models=[ModelConfig(bundle=str(bundle))], streams=(StreamConfig(),)
    )
    with running(Server(config)) as alone, RobotClient(alone.listening[0]) as robot:
        assert ask(robot, senses()).outputs["action"].shape == (2,)
        with pytest.raises(RejectedError, match="that scores streams"):
            SensorStream(alone.listening[0], "pump", ["speed"], rate_hz=1.0, model=MODEL)
