"""A client's inferences: their results, and why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limpet.contracts.errors import (
    FailedError,
    RejectedError,
)
from limpet.contracts.messages import Rejected
from limpet.runtime.client import RobotClient
from limpet.runtime.server import Server
from tests.runtime.clients import hear, tell, value_of, x
from tests.runtime.serving import PATIENCE_S, ObedientEngine, obedient, serving, until

SECOND = 10**9
HOUR = 3600 * SECOND


@pytest.fixture
def engine(server: Server) -> ObedientEngine:
    return obedient(server, "identity")


def test_an_inference_gives_outputs_and_says_what_made_them(robot: RobotClient) -> None:
    inputs = {"x": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}
    answer = robot.infer("identity", inputs)
    np.testing.assert_array_equal(answer.outputs["y"], inputs["x"])
    assert not answer.outputs["y"].flags.writeable
    assert (answer.space_id, answer.engine) == ("identity", "onnxruntime-cpu")
    assert 0.0 <= answer.queue_s <= answer.total_s < PATIENCE_S
    assert 0.0 < answer.inference_s <= answer.total_s


def test_hello_tells_what_is_served(server: Server, robot: RobotClient) -> None:
    welcome = robot.hello()
    assert welcome.alerts == server.publishing
    assert {m.name: (m.kind, m.channels, m.threshold) for m in welcome.models} == {
        "identity": ("custom", [], None),
        "tiny-anomaly": ("anomaly", ["speed", "current"], 3.0),
    }
    (spec,) = (m.inputs for m in welcome.models if m.name == "identity")
    assert spec[0].describe() == "x float32 [batch, 4]"


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/s"
    with serving(tmp_path, listen=(endpoint,)), RobotClient(endpoint) as robot:
        assert value_of(robot.infer("identity", x(7.0))) == 7.0


def test_arrays_that_are_neither_contiguous_nor_little_endian_arrive_as_they_are(
    robot: RobotClient,
) -> None:
    values = np.arange(24, dtype=">f4").reshape(4, 6)[:, ::2].T  # (3, 4)
    answer = robot.infer("identity", {"x": values})
    np.testing.assert_array_equal(answer.outputs["y"], values)


def test_an_unknown_model_is_refused_with_those_that_are_served(robot: RobotClient) -> None:
    with pytest.raises(RejectedError, match="no model 'grasp'") as caught:
        robot.infer("grasp", x())
    assert (caught.value.code, caught.value.hint) == (
        "unknown_model",
        "served: identity, tiny-anomaly",
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "tensor 'x' is missing, found none"),
        ({"z": np.ones((1, 4), np.float32)}, r"tensor 'x' is missing, found \['z'\]"),
        ({"x": np.ones((1, 4))}, "tensor 'x' is float64, wanted float32"),
        ({"x": np.ones((1, 5), np.float32)}, r"has shape \[1, 5\], wanted \[batch, 4\]"),
        ({"x": np.ones(4, np.float32)}, r"has shape \[4\], wanted \[batch, 4\]"),
        ({"x": np.ones((257, 4), np.float32)}, "batch of 257, at most 256"),
        ({**x(), "z": np.ones(1)}, "unknown tensor 'z'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_and_the_next_ones_served(
    robot: RobotClient, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(RejectedError, match=message) as caught:
        robot.infer("identity", inputs)
    assert caught.value.code == "bad_input"
    assert value_of(robot.infer("identity", x(3.0))) == 3.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_with_a_value_missing_are_refused_and_not_scored(
    robot: RobotClient, value: float
) -> None:
    rows = np.ones((1, 8, 2), np.float32)
    rows[0, 3, 1] = value
    with pytest.raises(RejectedError, match="NaN or infinite values") as caught:
        robot.infer("tiny-anomaly", {"rows": rows})
    assert caught.value.code == "bad_input"


def test_rows_up_to_a_first_score_get_the_score_that_a_stream_of_them_would(
    robot: RobotClient,
) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 8, 2)).astype(np.float32)
    answer = robot.infer("tiny-anomaly", {"rows": rows})
    assert list(answer.outputs) == ["embedding", "score"]
    np.testing.assert_array_equal(answer.outputs["embedding"], rows[:, -1])
    np.testing.assert_allclose(answer.outputs["score"], np.abs(rows[:, -1]).mean(axis=1), rtol=1e-6)


def test_a_client_is_told_which_rows_a_model_that_scores_streams_takes(robot: RobotClient) -> None:
    (model,) = (m for m in robot.hello().models if m.kind == "anomaly")
    assert [spec.describe() for spec in model.inputs] == ["rows float32 [batch, 8, 2]"]
    assert [spec.describe() for spec in model.outputs] == [
        "embedding float32 [batch, 2]",
        "score float32 [batch]",
    ]
    assert model.channels == ["speed", "current"]
    for rows in (np.ones((1, 7, 2), np.float32), np.ones((1, 8, 3), np.float32)):
        with pytest.raises(RejectedError, match=r"wanted \[batch, 8, 2\]"):
            robot.infer("tiny-anomaly", {"rows": rows})
    with pytest.raises(RejectedError, match="tensor 'rows' is missing, found"):
        robot.infer("tiny-anomaly", {"samples": np.ones((1, 8, 2), np.float32)})


def test_an_engine_that_fails_is_a_failed_error(robot: RobotClient, engine: ObedientEngine) -> None:
    engine.failure = ValueError("out of memory")
    with pytest.raises(FailedError, match="internal error, see the log"):
        robot.infer("identity", x())
    engine.failure = None
    assert value_of(robot.infer("identity", x(3.0))) == 3.0


def test_a_full_queue_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    with serving(tmp_path, queue=2) as server, RobotClient(server.listening[0]) as robot:
        engine = obedient(server, "identity")
        engine.gate.clear()
        first = tell(robot)
        until(lambda: engine.runs)
        ids = [tell(robot) for _ in range(3)]
        refused = hear(robot)
        assert isinstance(refused, Rejected)
        assert (refused.id, refused.code) == (ids[2], "overloaded")
        assert refused.reason == (
            "more requests wait for model 'identity' than it can answer in time or than 2"
        )
        engine.gate.set()
        assert [hear(robot).id for _ in range(3)] == [first, *ids[:2]]
