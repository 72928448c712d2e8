"""The fake TensorRT beside the real one, where that is installed."""

from __future__ import annotations

import pytest

from tests.runtime.engines import fake_tensorrt


def test_the_fake_has_no_name_that_the_real_library_lacks() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'limpet[tensorrt]'")
    for fake, real in (
        (fake_tensorrt.FakeEngine, trt.ICudaEngine),
        (fake_tensorrt.FakeContext, trt.IExecutionContext),
        (fake_tensorrt.FakeRuntimeConfig, trt.IRuntimeConfig),
        (fake_tensorrt.FakeRuntimeCache, trt.IRuntimeCache),
    ):
        public = {name for name in vars(fake) if not name.startswith("_")}
        assert public <= set(dir(real))
    assert {one.name for one in fake_tensorrt.DataType} <= set(trt.DataType.__members__)
    assert {one.name for one in fake_tensorrt.TensorIOMode} == set(trt.TensorIOMode.__members__)
    assert {one.name for one in fake_tensorrt.TensorLocation} == set(trt.TensorLocation.__members__)
    assert hasattr(trt.IExecutionContext, "is_stream_capturable")
    assert hasattr(trt.Runtime, "deserialize_cuda_engine")
