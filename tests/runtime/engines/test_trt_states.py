"""States of streams that TensorRT's engine keeps on the device."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import EngineError
from tests.bundles import identity_bundle, tiny_scorer
from tests.runtime.engines.fake_gpu import FakeDevice
from tests.runtime.engines.trt_engines import MEMORY, frames, opened


def test_streams_keep_their_state_on_the_device(bundle: Bundle) -> None:
    """As with the state outside, in whatever company each stream's frames come."""
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    states = [engine.new_state() for _ in range(3)]
    outside = np.zeros((3, 2), np.float32)
    rng = np.random.default_rng(1)
    for turn in range(12):
        some = rng.permutation(3)[: 1 + turn % 3]
        inputs = frames(len(some), 4, seed=turn)
        if turn == 7:  # a stream begins anew
            states[some[0]].clear()
            outside[some[0]] = 0.0
        inputs["state"] = outside[some]
        wanted = tiny_scorer(inputs, memory=MEMORY)
        del inputs["state"]
        device.calls.clear()
        found = engine.run_kept(inputs, [states[index] for index in some])
        outside[some] = wanted["next_state"]
        assert list(found) == ["embedding", "score"]
        np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-5)
        assert device.calls["to_device"] <= 2
        assert device.calls["to_host"] <= 2
    assert device.held["records"] > 0


def test_more_streams_than_a_plan_takes_at_once_run_in_parts(bundle: Bundle) -> None:
    engine, _ = opened(bundle, FakeDevice())
    states = [engine.new_state() for _ in range(100)]
    inputs = frames(100, 2)
    inputs["state"][:] = 0.0
    first = tiny_scorer(inputs, memory=MEMORY)
    second = tiny_scorer({**inputs, "state": first["next_state"]}, memory=MEMORY)
    without = {name: inputs[name] for name in ("samples", "present")}
    for wanted in (first, second):
        found = engine.run_kept(without, states)
        np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-5)


def test_a_state_goes_with_its_stream(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    before = device.held["device"]
    state = engine.new_state()
    assert device.held["device"] == before + 1
    del state
    gc.collect()
    assert device.held["device"] == before


def test_a_model_without_a_state_keeps_none(tmp_path: Path) -> None:
    engine, _ = opened(identity_bundle(tmp_path / "identity"), FakeDevice())
    with pytest.raises(EngineError, match="keeps no state"):
        engine.new_state()


def test_states_of_another_number_than_rows_are_refused(bundle: Bundle) -> None:
    engine, _ = opened(bundle, FakeDevice())
    inputs = frames(2, 3)
    del inputs["state"]
    with pytest.raises(EngineError, match="2 rows, 1 states"):
        engine.run_kept(inputs, [engine.new_state()])
