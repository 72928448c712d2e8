"""Sizes that repeat become CUDA graphs on TensorRT's engine, and where they cannot."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import helper

from limpet.contracts.bundle import GOLDEN, MODEL, Bundle, write_bundle
from limpet.contracts.golden import Golden
from limpet.runtime.engines.trt import MOST_RECORDED, REPEATS
from tests.bundles import identity_bundle, onnx_bytes
from tests.runtime.engines.fake_gpu import FakeDevice
from tests.runtime.engines.trt_engines import assert_right, frames, opened


@pytest.mark.parametrize("shares_memory", [False, True])
def test_sizes_that_repeat_are_recorded_and_replayed_with_new_values(
    bundle: Bundle, shares_memory: bool
) -> None:
    device = FakeDevice(shares_memory=shares_memory)
    engine, library = opened(bundle, device)
    for turn in range(REPEATS + 4):
        inputs = frames(2, 3, seed=turn)
        assert_right(engine.run(inputs), inputs)
    assert device.calls["begin_recording"] == device.calls["end_recording"] == 1
    assert device.calls["replay"] == 4
    assert library.contexts == 2


def test_other_sizes_between_do_not_disturb_what_was_recorded(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    for turn in range(REPEATS + 3):
        for size in ((2, 3), (1, 7 + turn), (1, 1)):
            inputs = frames(*size, seed=turn)
            assert_right(engine.run(inputs), inputs)
    assert device.held["records"] == 2


def test_only_so_many_sizes_get_a_context_of_their_own(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, library = opened(bundle, device)
    for rows in range(1, MOST_RECORDED + 4):
        for _ in range(REPEATS + 1):
            engine.run(frames(1, rows))
    assert library.contexts == MOST_RECORDED + 1
    assert device.held["records"] == MOST_RECORDED


def test_fixed_sizes_are_recorded_without_another_context(tmp_path: Path) -> None:
    bundle = fixed_bundle(tmp_path / "fixed")
    device = FakeDevice()
    engine, library = opened(bundle, device)
    for value in range(REPEATS + 2):
        x = np.full((1, 4), value, np.float32)
        np.testing.assert_array_equal(engine.run({"x": x})["y"], x)
    assert library.contexts == 1
    assert device.calls["replay"] == 3


def fixed_bundle(path: Path) -> Bundle:
    """An identity whose batch is 1."""
    manifest = identity_bundle(path.parent / "any").manifest
    x, y = (
        msgspec.structs.replace(spec, shape=[1, 4])
        for spec in (*manifest.inputs, *manifest.outputs)
    )
    model = onnx_bytes([helper.make_node("Identity", ["x"], ["y"])], [x], [y])
    ones = np.ones((1, 4), np.float32)
    golden = Golden(inputs={"x": ones}, outputs={"y": ones}, tolerances={})
    manifest = msgspec.structs.replace(manifest, inputs=[x], outputs=[y])
    return write_bundle(path, manifest, {MODEL: model, GOLDEN: golden.encode()})


def test_a_plan_that_cannot_be_recorded_runs_all_the_same_and_says_so_once(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    device = FakeDevice()
    engine, _ = opened(bundle, device)
    for turn in range(REPEATS + 4):
        device.failing = {"end_recording": "cudaErrorStreamCaptureUnsupported"}
        inputs = frames(2, 3, seed=turn)
        assert_right(engine.run(inputs), inputs)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "without a CUDA graph" in record.message
    assert "cudaErrorStreamCaptureUnsupported" in record.message
    assert device.held["records"] == 0


def test_a_library_that_is_not_ready_to_be_recorded_is_asked_again(bundle: Bundle) -> None:
    device = FakeDevice()
    engine, library = opened(bundle, device, "tensorrt-rtx")
    library.capturable = False
    for _ in range(REPEATS + 2):
        engine.run(frames(1, 2))
    assert device.calls["begin_recording"] == 0
    library.capturable = True
    engine.run(frames(1, 2))
    assert device.calls["replay"] == 1


def test_without_memory_for_more_contexts_it_goes_on_with_one(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    device = FakeDevice()
    engine, library = opened(bundle, device)
    library.most_contexts = 1
    for turn in range(REPEATS + 3):
        inputs = frames(2, 3, seed=turn)
        assert_right(engine.run(inputs), inputs)
    (record,) = caplog.records
    assert "has no memory for another context: out of memory" in record.message
