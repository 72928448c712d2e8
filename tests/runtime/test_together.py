"""Requests of several clients in one call of the engine: each gets its own."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from limpet.contracts import messages
from limpet.contracts.bundle import GOLDEN, MODEL, write_bundle
from limpet.contracts.golden import Golden
from limpet.contracts.manifest import SCHEMA_VERSION, Manifest
from limpet.contracts.messages import Failed, Infer, Result, Stale
from limpet.contracts.tensors import Tensors, TensorSpec
from limpet.runtime.bench.identity import write_identity_bundle
from limpet.runtime.client import RobotClient
from limpet.runtime.config import ModelConfig
from limpet.runtime.models import ServedModel
from limpet.runtime.run_cost import BATCHES, best_batch
from limpet.runtime.server import Server
from tests.bundles import OPSET, anomaly_bundle, onnx_bytes
from tests.runtime.serving import PATIENCE_S, ObedientEngine, obedient, serving, until

MOST = 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_identity_bundle(tmp_path / "identity")  # rows of any size
    anomaly_bundle(tmp_path / "anomaly")
    with serving(tmp_path, together=True) as served:
        served._models["identity"].together = MOST
        yield served


@pytest.fixture
def engine(server: Server) -> ObedientEngine:
    return obedient(server, "identity")


def tell(client: RobotClient, value: float, size: int = 4, rows: int = 1, **options: int) -> int:
    request = Infer(id=client.next_id(), model="identity", **options)
    inputs = {"x": np.full((rows, size), value, np.float32)}
    client.send(request, inputs, time.monotonic() + PATIENCE_S)
    return request.id


def hear(client: RobotClient) -> tuple[messages.Reply, Tensors]:
    answer = client.receive(time.monotonic() + PATIENCE_S)
    assert answer is not None
    return answer


class Queue:
    """Requests that wait while the engine is held by one that came before them."""

    def __init__(self, server: Server, engine: ObedientEngine, client: RobotClient) -> None:
        self.server, self.engine, self.client = server, engine, client
        self.values: dict[int, float] = {}
        self.sizes: list[tuple[int, ...]] = []
        engine.gate.clear()
        self.first = tell(client, -1.0)
        until(lambda: engine.runs)

    def add(self, value: float, **options: int) -> int:
        number = tell(self.client, value, **options)
        self.values[number] = value
        until(lambda: self.server._workers["identity"].waiting == len(self.values))
        return number

    def answers(self) -> dict[int, messages.Reply]:
        """All of them; each result is that of its own request."""

        def note(outputs: Tensors) -> Tensors:
            self.sizes.append(outputs["y"].shape)
            return outputs

        replace = self.engine.replace
        self.engine.replace = lambda outputs: replace(note(outputs))
        self.engine.gate.set()
        found: dict[int, messages.Reply] = {}
        for _ in range(len(self.values) + 1):
            reply, outputs = hear(self.client)
            assert reply.id not in found
            found[reply.id] = reply
            if isinstance(reply, Result) and reply.id != self.first:
                assert np.all(outputs["y"] == self.values[reply.id])
                assert reply.total_ns >= reply.inference_ns > 0
        del found[self.first]
        del self.sizes[0]
        return found


@pytest.fixture
def queue(server: Server, engine: ObedientEngine) -> Iterator[Queue]:
    with RobotClient(server.listening[0], lane=False) as client:
        yield Queue(server, engine, client)


def test_those_that_wait_run_in_one_call_up_to_the_most(queue: Queue) -> None:
    for value in range(7):
        queue.add(float(value))
    assert all(isinstance(reply, Result) for reply in queue.answers().values())
    assert queue.sizes == [(4, 4), (3, 4)]
    assert queue.server._metrics.counters()["together"] == 7


def test_requests_of_other_sizes_or_of_several_rows_run_by_themselves(queue: Queue) -> None:
    queue.add(1.0)
    queue.add(2.0, size=8)
    queue.add(3.0, rows=2)
    queue.add(4.0)
    queue.add(5.0, size=8)
    assert all(isinstance(reply, Result) for reply in queue.answers().values())
    assert sorted(queue.sizes) == [(2, 4), (2, 4), (2, 8)]


def test_priority_decides_who_is_in_the_first_call(queue: Queue) -> None:
    low = [queue.add(float(value)) for value in range(4)]
    high = queue.add(9.0, priority=1)
    assert list(queue.answers())[:2] == [high, low[0]]
    assert queue.sizes == [(1, 4), (4, 4)], "those of no hurry do not lengthen its call"


def test_one_that_would_be_too_old_costs_the_others_nothing(queue: Queue) -> None:
    queue.server._workers["identity"]._pace.observe(10**10, 1)  # 10 s a call
    now_ns = time.time_ns()
    doomed = queue.add(1.0, capture_time_ns=now_ns, max_age_ns=9 * 10**9)
    fine = [
        queue.add(2.0, capture_time_ns=now_ns, max_age_ns=60 * 10**9),
        queue.add(3.0),
    ]
    answers = queue.answers()
    assert isinstance(answers[doomed], Stale)
    assert all(isinstance(answers[number], Result) for number in fine)
    assert queue.sizes == [(2, 4)]


def test_one_that_fails_fails_alone(queue: Queue) -> None:
    def fail(outputs: Tensors) -> Tensors:
        if (outputs["y"] == 2.0).any():
            raise RuntimeError("two")
        return outputs

    queue.engine.replace = fail
    numbers = {value: queue.add(value) for value in (1.0, 2.0, 3.0)}
    answers = queue.answers()
    assert isinstance(answers[numbers[2.0]], Failed)
    assert all(isinstance(answers[numbers[value]], Result) for value in (1.0, 3.0))


def test_outputs_that_are_not_one_a_request_are_given_to_none(queue: Queue) -> None:
    queue.engine.replace = lambda outputs: {"y": outputs["y"][:1]}
    for value in (5.0, 6.0):
        queue.add(value)
    assert all(isinstance(reply, Result) for reply in queue.answers().values())
    assert queue.sizes == [(2, 4), (1, 4), (1, 4)]


def test_a_model_says_how_many_pay_unless_it_may_not(tmp_path: Path) -> None:
    bundle = str(write_identity_bundle(tmp_path / "identity").path)
    assert ServedModel(ModelConfig(bundle=bundle, together=False)).together == 1
    assert ServedModel(ModelConfig(bundle=bundle)).together in BATCHES
    scores = str(anomaly_bundle(tmp_path / "anomaly").path)
    assert ServedModel(ModelConfig(bundle=scores)).together == 1


@pytest.mark.parametrize("mixing", [True, False])
def test_a_model_that_mixes_its_batch_runs_each_request_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixing: bool
) -> None:
    monkeypatch.setattr("limpet.runtime.models.best_batch", lambda run, deadline_ns: 8)
    axes = ["size"] if mixing else ["size", "axes"]
    specs = [TensorSpec(name=n, dtype="float32", shape=["batch", 4]) for n in ("x", "y")]
    x = np.linspace(-1.0, 2.0, 8, dtype=np.float32).reshape(2, 4)
    level = np.abs(x).max(axis=None if mixing else 1, keepdims=True)
    nodes = [
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node("ReduceMax", axes, ["level"], keepdims=1),
        helper.make_node("Div", ["x", "level"], ["y"]),
    ]
    constants = {} if mixing else {"axes": np.array([1])}
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="normalises",
        kind="custom",
        space_id="normalises",
        inputs=specs[:1],
        outputs=specs[1:],
        opset=OPSET,
    )
    golden = Golden(inputs={"x": x}, outputs={"y": x / level}, tolerances={"y": 1e-6})
    files = {MODEL: onnx_bytes(nodes, specs[:1], specs[1:], constants), GOLDEN: golden.encode()}
    bundle = write_bundle(tmp_path / "bundle", manifest, files)
    model = ServedModel(ModelConfig(bundle=str(bundle.path)))
    assert model.together == (1 if mixing else 8)


@pytest.mark.parametrize(
    ("fixed_ms", "each_ms", "deadline_ms", "expected"),
    [
        (0.0, 0.4, None, 1),
        (2.0, 0.02, None, 32),
        (0.4, 0.2, None, 32),  # 16 cost 0.225 each, 32 0.2125
        (2.6, 7.0, None, 8),  # 4 cost 7.65 each, 8 7.33, 16 7.16
        (2.6, 7.0, 45.0, 4),  # 30.6 ms, and 9.6 alone; 8 take 58.6
        (2.6, 7.0, 5.0, 1),
    ],
)
def test_the_best_batch_shares_a_calls_fixed_cost_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
    fixed_ms: float,
    each_ms: float,
    deadline_ms: float | None,
    expected: int,
) -> None:
    now_ns = 0

    def run(batch: int) -> None:
        nonlocal now_ns
        now_ns += round((fixed_ms + each_ms * batch) * 1e6)

    monkeypatch.setattr("time.perf_counter_ns", lambda: now_ns)
    monkeypatch.setattr("time.monotonic", lambda: now_ns / 1e9)
    deadline_ns = math.inf if deadline_ms is None else deadline_ms * 1e6
    assert best_batch(run, deadline_ns) == expected
    assert now_ns < 1e9, "a second of a server's start"
