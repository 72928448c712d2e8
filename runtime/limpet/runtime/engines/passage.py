"""One way through a plan: an execution context, recorded where its sizes repeat."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from limpet.contracts.errors import EngineError
from limpet.runtime.engines.device import Device
from limpet.runtime.engines.pinned import PinnedTensor

log = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]


class Passage:
    """An execution context and, for sizes that repeat, a record of what it does.

    A record holds the addresses and sizes it was made with, and TensorRT leaves undefined what it
    does once its context was changed. So a context that was recorded keeps its sizes.

    Args:
        context: The library's execution context.
        device: The GPU.
        stream: Its queue.
        tensors: Of every input and output.
        inputs: Names of the inputs; all others are outputs.
        problem: Says what the library logged last.
    """

    def __init__(
        self,
        context: Any,
        device: Device,
        stream: Any,
        tensors: Mapping[str, PinnedTensor],
        inputs: frozenset[str],
        problem: Callable[[], str],
    ) -> None:
        self._context, self._device, self._stream = context, device, stream
        self._tensors, self._inputs, self._problem = tensors, inputs, problem
        self._shapes: Shapes = {}
        self._records: dict[frozenset[str], Any] = {}
        self._refused = False
        # The first context of an engine has its profile, later ones have to be given it.
        if context.active_optimization_profile != 0:
            self._check(context.set_optimization_profile_async(0, int(stream)), "takes no profile")
            device.wait(stream)
        for name, tensor in tensors.items():
            self._check(context.set_tensor_address(name, tensor.address), f"takes no {name}")

    def set_shapes(self, shapes: Shapes) -> None:
        """Makes the context ready for tensors of these shapes, before anything was recorded."""
        if shapes == self._shapes:
            return
        assert not self._records
        self._shapes = {}
        for name in self._inputs:
            self._check(
                self._context.set_input_shape(name, shapes[name]),
                f"takes no {name} of shape {list(shapes[name])}",
            )
        if missing := self._context.infer_shapes():
            raise EngineError(f"TensorRT lacks the sizes of {', '.join(missing)}")
        for name in self._tensors.keys() - self._inputs:
            found = tuple(self._context.get_tensor_shape(name))
            if found != shapes[name]:
                raise EngineError(
                    f"TensorRT gives {name} of shape {list(found)}, the manifest says "
                    f"{list(shapes[name])}",
                    "export the model again",
                )
        self._shapes = shapes

    def run(self, kept: frozenset[str] = frozenset(), *, record: bool = False) -> bool:
        """Puts a run into the stream: inputs in, the computation, outputs out.

        Args:
            kept: Tensors that stay on the device.
            record: Whether this will be asked for again.

        Returns:
            Whether it was recorded just now.
        """
        if kept in self._records:
            self._device.replay(self._records[kept], self._stream)
            return False
        if record and not self._refused and (recorded := self._record(kept)) is not None:
            self._records[kept] = recorded
            self._device.replay(recorded, self._stream)
            return True
        self._enqueue(kept)
        return False

    def close(self) -> None:
        """Gives the records back."""
        for recorded in self._records.values():
            self._device.forget(recorded)
        self._records = {}

    def _enqueue(self, kept: frozenset[str]) -> None:
        for name in self._inputs - kept:
            self._tensors[name].to_device(self._shapes[name], self._stream)
        self._check(self._context.execute_async_v3(int(self._stream)), "does not run")
        for name in self._tensors.keys() - self._inputs - kept:
            self._tensors[name].to_host(self._shapes[name], self._stream)

    def _record(self, kept: frozenset[str]) -> Any:
        """What `_enqueue` does, as a record; None where the plan cannot be recorded (yet)."""
        # TensorRT for RTX goes on compiling kernels after the first runs, and says so.
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(int(self._stream)):
            return None
        recorded = None
        try:
            self._device.begin_recording(self._stream)
            try:
                self._enqueue(kept)
            finally:
                recorded = self._device.end_recording(self._stream)
        except EngineError as error:
            self._refused = True
            log.warning("runs without a CUDA graph: %s", error.message)
            if recorded is not None:
                self._device.forget(recorded)
            return None
        return recorded

    def _check(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(f"TensorRT {what}: {self._problem() or 'it does not say why'}")
