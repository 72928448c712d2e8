"""A graph compiled to a plan. Strongly typed: the graph's own precision is the plan's.

Written against what TensorRT 10 and 11 and TensorRT for RTX 1 have in common.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from limpet.contracts.errors import EngineError
from limpet.contracts.manifest import Manifest
from limpet.runtime.plans.libraries import Library, error_log
from limpet.runtime.plans.profiles import Sizes

EVERY_S = 5.0
"""Seconds between two lines about one phase."""
Report = Callable[[str], None]


def build_plan(
    library: Library,
    model: bytes,
    manifest: Manifest,
    *,
    capability: str,
    profile: Mapping[str, Sizes],
    workspace_bytes: int,
    timing_cache: bytes,
    report: Report,
) -> tuple[bytes, bytes]:
    """Compiles a graph.

    Args:
        library: What compiles.
        model: The ONNX graph.
        manifest: Its manifest.
        capability: Compute capability of the GPU to build for, as `Library.target` gave it.
        profile: Sizes of each dynamic axis.
        workspace_bytes: Most scratch memory that a kernel may use.
        timing_cache: What an earlier build returned, or nothing.
        report: Takes lines of progress.

    Returns:
        The plan and the timing cache, which is empty where the library keeps none.

    Raises:
        EngineError: The library cannot parse or compile the graph; the message is its own.
    """
    trt = library.trt
    logger = error_log(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        problems = "; ".join(
            f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors
        )
        raise EngineError(
            f"{library.name} {library.version} cannot parse {manifest.name}: {problems}",
            "serve it with onnxruntime, or export it at another precision",
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    monitor = config.progress_monitor = _monitor(trt, report)
    if targets := library.targets():
        config.num_compute_capabilities = 1
        config.set_compute_capability(targets[capability], 0)
    cache = None
    if library.name == "tensorrt":  # that for RTX measures nothing: its kernels come when it runs
        cache = config.create_timing_cache(timing_cache)
        config.set_timing_cache(cache, ignore_mismatch=False)
    if profile:
        config.add_optimization_profile(_profile(builder, manifest, profile))
    with _printing_to_stderr():
        plan = _interruptible(lambda: builder.build_serialized_network(network, config), monitor)
    if plan is None:
        raise EngineError(
            f"{library.name} {library.version} cannot compile {manifest.name}: "
            f"{logger.worst or 'it does not say why'}",
            "serve it with onnxruntime, or give it more memory with --workspace-mib",
        )
    kept = b"" if cache is None else bytes(cache.serialize())
    return bytes(plan), kept


def _interruptible(build: Callable[[], Any], monitor: Any) -> Any:
    """Builds in a thread of its own, since Ctrl-C is not seen inside the library's call.

    The library is told to stop, and does at its next step.
    """
    found: list[Any] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(build())
        except BaseException as error:  # noqa: BLE001 (raised where it was asked for)
            failed.append(error)
        finally:
            finished.set()

    # Not `join`: in Python 3.10 and 3.11 one that is interrupted takes the thread for finished.
    finished = threading.Event()
    threading.Thread(target=work, name="build").start()
    try:
        while not finished.wait(EVERY_S):
            monitor.still_at_it()
    except BaseException:
        monitor.cancelled = True
        finished.wait()
        raise
    if failed:
        raise failed[0]
    return found[0]


@contextmanager
def _printing_to_stderr() -> Iterator[None]:
    """Sends what the library's compiler prints to standard error, past any logger: standard output
    is the command's result.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        with contextlib.suppress(AttributeError, OSError):  # no C library to ask: nothing buffered
            ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _strongly_typed(trt: Any) -> int:
    """The flag for it, 0 where every network is (TensorRT 11 may leave it out)."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _profile(builder: Any, manifest: Manifest, sizes: Mapping[str, Sizes]) -> Any:
    profile = builder.create_optimization_profile()
    for spec in manifest.inputs:
        if any(isinstance(size, str) for size in spec.shape):
            shapes = [
                [sizes[size][which] if isinstance(size, str) else size for size in spec.shape]
                for which in range(3)
            ]
            profile.set_shape(spec.name, *shapes)
    return profile


def _monitor(trt: Any, report: Report) -> Any:
    """Reports each phase as it begins, and its steps every few seconds: never a silent hour."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.begun_s = self.told_s = time.monotonic()
            self.cancelled = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            if parent_phase is None:
                self._tell(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if time.monotonic() - self.told_s > EVERY_S:
                self._tell(f"{phase_name}: step {step + 1} of {self.steps.get(phase_name, '?')}")
            return not self.cancelled

        def still_at_it(self) -> None:
            """Says so where the library has been silent: some steps take minutes."""
            now_s = time.monotonic()
            if now_s - self.told_s > EVERY_S:
                doing = next(reversed(list(self.steps)), "building")
                self._tell(f"{doing}: {now_s - self.begun_s:.0f} s so far")

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def _tell(self, line: str) -> None:
            self.told_s = time.monotonic()
            report(line)

    return Monitor()
