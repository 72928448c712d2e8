"""Kernels that TensorRT for RTX compiles while a plan runs: kept for the next start."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from limpet.contracts.bundle import Bundle
from limpet.runtime.engines import kernel_cache
from limpet.runtime.engines.trt import REPEATS
from tests.runtime.engines.fake_gpu import FakeDevice
from tests.runtime.engines.trt_engines import assert_right, frames, opened


def test_kernels_that_were_compiled_are_there_at_the_next_start(bundle: Bundle) -> None:
    engine, library = opened(bundle, FakeDevice(), "tensorrt-rtx")
    for _ in range(REPEATS + 2):
        engine.run(frames(1, 2))
    assert library.compiled == 1
    (file,) = (bundle.path / "engines").glob("*.kernels")  # before it is closed: it may be killed
    assert file.with_suffix(".plan").exists()
    engine.run(frames(1, 5))
    engine.close()
    later, library = opened(bundle, FakeDevice(), "tensorrt-rtx")
    for rows in (2, 5):
        inputs = frames(1, rows)
        assert_right(later.run(inputs), inputs)
    assert library.compiled == 0


def test_kernels_are_written_in_one_step_and_only_when_there_are_new_ones(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(kernel_cache, "write_whole", lambda path, content: written.append(content))
    engine, _ = opened(bundle, FakeDevice(), "tensorrt-rtx")
    for _ in range(REPEATS + 5):
        engine.run(frames(1, 2))
    engine.close()
    assert len(written) == 1


@pytest.mark.parametrize("content", [b"", b"of another driver"])
def test_kernels_of_something_else_are_compiled_anew_and_replaced(
    bundle: Bundle, content: bytes
) -> None:
    engine, _ = opened(bundle, FakeDevice(), "tensorrt-rtx")
    engine.run(frames(1, 2))
    (file,) = (bundle.path / "engines").glob("*.kernels")
    right = file.read_bytes()
    file.write_bytes(content)
    later, library = opened(bundle, FakeDevice(), "tensorrt-rtx")
    later.run(frames(1, 2))
    assert library.compiled == 1
    assert file.read_bytes() == right


def test_without_a_place_for_kernels_it_runs_and_says_so(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(kernel_cache, "write_whole", refuse)
    engine, _ = opened(bundle, FakeDevice(), "tensorrt-rtx")
    inputs = frames(1, 2)
    assert_right(engine.run(inputs), inputs)
    assert "compiled again at the next start: Read-only file system" in caplog.text


def test_full_tensorrt_keeps_no_kernels(bundle: Bundle) -> None:
    """Its plans hold them."""
    engine, _ = opened(bundle, FakeDevice(), "tensorrt")
    engine.run(frames(1, 2))
    engine.close()
    assert not list((bundle.path / "engines").glob("*.kernels"))
