"""TensorRT, and TensorRT for RTX: a plan that was compiled on, or for, this machine's GPU.

Written against what TensorRT 10 and 11 and TensorRT for RTX 1 have in common. All memory is
allocated when a plan is opened, for the largest sizes that it takes. A model has one stream. Sizes
that repeat get a context of their own and are recorded as a CUDA graph.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import EngineError, TensorError
from limpet.contracts.manifest import AnomalyDecoding, Manifest
from limpet.contracts.tensors import Tensors, TensorSpec, check_tensors
from limpet.runtime.engines.device import Device
from limpet.runtime.engines.kernel_cache import KernelCache
from limpet.runtime.engines.nvidia import NvidiaDevice, load_runtime
from limpet.runtime.engines.passage import Passage
from limpet.runtime.engines.pinned import PinnedTensor
from limpet.runtime.engines.plan_tensors import check_plan, shape_of
from limpet.runtime.plans.key import Sidecar, plan_key
from limpet.runtime.plans.libraries import (
    Compiler,
    Library,
    error_log,
    load_library,
    require_gpu,
)
from limpet.runtime.plans.profiles import Sizes
from limpet.runtime.plans.store import PlanStore, compile_command

log = logging.getLogger(__name__)

REPEATS = 3
"""Runs of one size after which it gets a context of its own and is recorded."""
MOST_RECORDED = 4
"""Sizes that get one: each holds its intermediate results in the GPU's memory."""
MOST_COUNTED = 4096
"""Sizes whose runs are counted at a time."""


def open_tensorrt(bundle: Bundle, name: Compiler) -> TensorRTEngine:
    """Opens a bundle's plan on this machine's GPU.

    Raises:
        ImpossibleHereError: There is no GPU, or the library does not know it.
        MissingExtraError: The library or cuda-python is not installed.
        EngineError: There is no plan, or it is for something else: the message names each
            difference, the hint the command that builds one.
    """
    require_gpu(name)
    library = load_library(name)
    capability = library.runs_on()
    plan, sidecar = PlanStore(bundle).read(plan_key(bundle, capability, name, library.version))
    return TensorRTEngine(bundle, library, plan, sidecar, NvidiaDevice(load_runtime()))


class KeptState:
    """What a model remembers of one stream, in the GPU's memory.

    Args:
        device: The GPU.
        size: Bytes.
    """

    def __init__(self, device: Device, size: int) -> None:
        self.address = device.allocate(size)
        self.fresh = True
        """Whether it is to be zeros when it is used next."""
        weakref.finalize(self, device.free, self.address)

    def clear(self) -> None:
        """The stream begins anew."""
        self.fresh = True


class TensorRTEngine:
    """A plan on a GPU; see `Engine`.

    Args:
        bundle: The bundle.
        library: What compiled the plan.
        plan: The plan.
        sidecar: What it is for.
        device: The GPU.

    Raises:
        EngineError: The library or the GPU refuses it.
        BundleError: The plan's inputs or outputs are not those that the manifest states.
    """

    def __init__(
        self, bundle: Bundle, library: Library, plan: bytes, sidecar: Sidecar, device: Device
    ) -> None:
        self.name = f"{library.name}-{sidecar.key.compute_capability}"
        self._manifest, self._device = bundle.manifest, device
        self._command = compile_command(bundle, library.name)
        self._profile = dict(sidecar.profile)
        self._problems = error_log(library.trt)
        # The runtime has to live as long as what it made.
        self._runtime = library.trt.Runtime(self._problems)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"{library.name} {library.version} cannot load the plan of {bundle.path}: "
                f"{self._problems.worst or 'it does not say why'}",
                f"build it anew with: {self._command} --force",
            )
        check_plan(bundle, self._engine, library.trt, self._command)
        self._lock = threading.Lock()
        self._counts: Counter[tuple[tuple[str, int], ...]] = Counter()
        self._most_recorded = MOST_RECORDED
        self._recorded: dict[tuple[tuple[str, int], ...], Passage] = {}
        self._tensors: dict[str, PinnedTensor] = {}
        self._kernels: KernelCache | None = None
        if library.name == "tensorrt-rtx":
            file = PlanStore(bundle).kernel_cache(sidecar.key)
            self._kernels = KernelCache(self._engine, file)
        self._has_run = False
        self._stream: Any = device.open_stream()
        self._passages: list[Passage] = []
        self._close = weakref.finalize(
            self, _close, device, self._stream, self._tensors, self._passages, self._kernels
        )
        try:
            most = {axis: sizes.most for axis, sizes in self._profile.items()}
            for spec in (*bundle.manifest.inputs, *bundle.manifest.outputs):
                elements = int(np.prod(shape_of(spec, most), dtype=np.int64))
                self._tensors[spec.name] = PinnedTensor(device, np.dtype(spec.dtype), elements)
            self._any = self._passage()
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Tensors) -> Tensors:
        """See `Engine.run`. A batch that is too large for the plan is run in parts.

        Raises:
            EngineError: Inputs that do not fit, sizes that the plan was not compiled for, or what
                the library or the GPU says.
        """
        axes = self._check(inputs, self._manifest.inputs)
        most = self._profile["batch"].most if "batch" in self._profile else 0
        batch = axes.get("batch", 0)
        if batch <= most or not _rows_are_apart(self._manifest):
            return self._run(inputs, axes)
        parts = []
        for start in range(0, batch, most):
            part = {name: array[start : start + most] for name, array in inputs.items()}
            parts.append(self._run(part, {**axes, "batch": min(most, batch - start)}))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def new_state(self) -> KeptState:
        """Memory for what the model remembers of one stream, for `run_kept`."""
        spec, _ = self._state_names()
        return KeptState(self._device, self._tensors[spec.name].size(shape_of(spec, {"batch": 1})))

    def run_kept(self, inputs: Tensors, states: Sequence[KeptState]) -> Tensors:
        """Runs the next frames of several streams; their states stay in the GPU's memory.

        Args:
            inputs: All inputs but the state.
            states: That of each row, no two the same; they are changed in place.

        Returns:
            All outputs but the next state.

        Raises:
            EngineError: As `run`; of no stream is the state known then.
        """
        spec, next_state = self._state_names()
        others = [other for other in self._manifest.inputs if other.name != spec.name]
        axes = self._check(inputs, others)
        if axes["batch"] != len(states):
            raise EngineError(f"{self.name} failed: {axes['batch']} rows, {len(states)} states")
        most = self._profile["batch"].most if "batch" in self._profile else len(states)
        parts = []
        for start in range(0, len(states), most):
            part = {name: array[start : start + most] for name, array in inputs.items()}
            here = states[start : start + most]
            parts.append(
                self._run(part, {**axes, "batch": len(here)}, here, (spec.name, next_state))
            )
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Gives all memory back; the engine cannot be used any more."""
        self._close()

    def _run(
        self,
        inputs: Tensors,
        axes: Mapping[str, int],
        states: Sequence[KeptState] = (),
        names: tuple[str, ...] = (),
    ) -> Tensors:
        self._check_sizes(axes)
        manifest, kept = self._manifest, frozenset(names)
        shapes = {spec.name: shape_of(spec, axes) for spec in (*manifest.inputs, *manifest.outputs)}
        with self._lock:
            if not self._close.alive:
                raise EngineError(f"{self.name} failed: it was closed")
            passage, record = self._passage_for(tuple(sorted(axes.items())))
            passage.set_shapes(shapes)
            for name, array in inputs.items():
                self._tensors[name].host(shapes[name])[...] = array
            try:
                if kept:
                    self._move_states(states, names[0], inward=True)
                recorded = passage.run(kept, record=record)
                if kept:
                    self._move_states(states, names[1], inward=False)
            except EngineError:
                with contextlib.suppress(EngineError):  # the first one says what is wrong
                    self._device.wait(self._stream)
                raise
            self._device.wait(self._stream)
            if self._kernels is not None and (recorded or not self._has_run):
                self._kernels.save()  # once for each of a few sizes, while a server starts
            self._has_run = True
            for state in states:
                state.fresh = False
            return {
                spec.name: self._tensors[spec.name].host(shapes[spec.name]).copy()
                for spec in manifest.outputs
                if spec.name not in kept
            }

    def _passage_for(self, sizes: tuple[tuple[str, int], ...]) -> tuple[Passage, bool]:
        """The context for these sizes, and whether its run may be recorded."""
        if (own := self._recorded.get(sizes)) is not None:
            return own, True
        if len(self._counts) >= MOST_COUNTED:
            self._counts.clear()
        self._counts[sizes] += 1
        if self._counts[sizes] < REPEATS or len(self._recorded) >= self._most_recorded:
            return self._any, False
        if not sizes:
            self._recorded[sizes] = self._any
            return self._any, True
        try:
            own = self._recorded[sizes] = self._passage()
        except EngineError as error:
            log.warning("%s: %s", self._manifest.name, error.message)
            self._most_recorded = 0
            return self._any, False
        # Its first run is not recorded: TensorRT has things to do then that a record must not hold.
        return own, False

    def _passage(self) -> Passage:
        kernels = self._kernels
        opening = self._engine.create_execution_context if kernels is None else kernels.open_context
        context = opening()
        if context is None:
            raise EngineError(
                f"{self.name} has no memory for another context: {self._problems.worst}",
                f"compile it for smaller sizes: {self._command} --axis …",
            )
        problems = self._problems  # a reference to `self` would keep it from being closed
        passage = Passage(
            context,
            self._device,
            self._stream,
            self._tensors,
            frozenset(spec.name for spec in self._manifest.inputs),
            lambda: str(problems.worst),
        )
        self._passages.append(passage)
        return passage

    def _move_states(self, states: Sequence[KeptState], name: str, *, inward: bool) -> None:
        """Puts copies into the stream: states to a batch's rows, or a batch's rows to states."""
        spec, _ = self._state_names()
        size = self._tensors[name].size(shape_of(spec, {"batch": 1}))
        for row, state in enumerate(states):
            address = self._tensors[name].address + row * size
            if not inward:
                self._device.within(state.address, address, size, self._stream)
            elif state.fresh:
                self._device.clear(address, size, self._stream)
            else:
                self._device.within(address, state.address, size, self._stream)

    def _state_names(self) -> tuple[TensorSpec, str]:
        """The input that takes a state, and the name of the output that gives the next one."""
        decoding = self._manifest.decoding
        if not isinstance(decoding, AnomalyDecoding):
            raise EngineError(f"model {self._manifest.name!r} keeps no state")
        return self._manifest.inputs[2], decoding.next_state

    def _check(self, inputs: Tensors, specs: Sequence[TensorSpec]) -> dict[str, int]:
        try:
            return check_tensors(specs, inputs, self._manifest.name)
        except TensorError as error:
            raise EngineError(f"{self.name} failed: {error.message}", error.hint) from error

    def _check_sizes(self, axes: Mapping[str, int]) -> None:
        for axis, size in axes.items():
            least, usual, most = self._profile.get(axis, Sizes(size, size, size))
            if not least <= size <= most:
                wanted = f"{min(least, size)}:{usual}:{max(most, size)}"
                raise EngineError(
                    f"{self.name} failed: {axis} {size}, the plan is for {least} to {most}",
                    f"compile it for more: {self._command} --axis {axis}={wanted}",
                )


def _close(
    device: Device,
    stream: Any,
    tensors: dict[str, PinnedTensor],
    passages: list[Passage],
    kernels: KernelCache | None,
) -> None:
    """Gives back what an engine holds, in the order in which it depends on each other."""
    device.wait(stream)
    if kernels is not None:
        kernels.save()
    for passage in passages:
        passage.close()
    passages.clear()
    for tensor in tensors.values():
        tensor.free()
    tensors.clear()
    device.close_stream(stream)


def _rows_are_apart(manifest: Manifest) -> bool:
    """Whether each tensor has a row for each of a batch, so that a batch may be run in parts."""
    return all(spec.shape[:1] == ["batch"] for spec in (*manifest.inputs, *manifest.outputs))
