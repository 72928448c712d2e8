"""A GPU that exists in this process only, as strict as a real one.

Memory is real memory, so that results can be compared; an address of the one kind is refused where
the other is wanted, and so is one that was given back. What is put into a stream happens when it is
waited for, never before.
"""

from __future__ import annotations

import ctypes
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from limpet.contracts.errors import EngineError

GPU = "sm87"
_ALIAS = 1 << 60
"""Added to an address of pinned memory where the GPU sees it."""

Work = Callable[[], None]


@dataclass(eq=False)
class FakeStream:
    """A queue of work, or of what is being recorded."""

    handle: int
    queue: list[Work] = field(default_factory=list)
    recording: list[Work] | None = None

    def __int__(self) -> int:
        return self.handle

    def put(self, work: Work) -> None:
        (self.queue if self.recording is None else self.recording).append(work)


class FakeDevice:
    """See `Device`.

    Args:
        shares_memory: As a Jetson does.
    """

    def __init__(self, *, shares_memory: bool = False) -> None:
        self.shares_memory = shares_memory
        self.calls: Counter[str] = Counter()
        self.failing: dict[str, str] = {}
        """Name of a method to the error that its next call raises."""
        self._memory: dict[str, dict[int, Any]] = {"device": {}, "pinned": {}}
        self._streams: dict[int, FakeStream] = {}
        self._records: list[list[Work]] = []
        self._handles = itertools.count(1)

    @property
    def held(self) -> dict[str, int]:
        """What has not been given back."""
        memory = {kind: len(blocks) for kind, blocks in self._memory.items()}
        return {**memory, "streams": len(self._streams), "records": len(self._records)}

    def allocate(self, size: int) -> int:
        return self._allocate("device", "allocate", size)

    def allocate_pinned(self, size: int) -> int:
        return self._allocate("pinned", "allocate_pinned", size)

    def free(self, address: int) -> None:
        self._called("free")
        del self._memory["device"][address]

    def free_pinned(self, address: int) -> None:
        self._called("free_pinned")
        del self._memory["pinned"][address]

    def mapped(self, pinned: int) -> int:
        self._called("mapped")
        assert self.shares_memory
        assert pinned in self._memory["pinned"]
        return pinned + _ALIAS

    def open_stream(self) -> FakeStream:
        self._called("open_stream")
        stream = FakeStream(next(self._handles))
        self._streams[stream.handle] = stream
        return stream

    def close_stream(self, stream: FakeStream) -> None:
        self._called("close_stream")
        del self._streams[stream.handle]

    def to_device(self, target: int, pinned: int, size: int, stream: FakeStream) -> None:
        self._copy("to_device", self._seen(target, size), self._pinned(pinned, size), size, stream)

    def to_host(self, pinned: int, source: int, size: int, stream: FakeStream) -> None:
        self._copy("to_host", self._pinned(pinned, size), self._seen(source, size), size, stream)

    def within(self, target: int, source: int, size: int, stream: FakeStream) -> None:
        self._copy("within", self._seen(target, size), self._seen(source, size), size, stream)

    def clear(self, target: int, size: int, stream: FakeStream) -> None:
        self._called("clear")
        address = self._seen(target, size)
        stream.put(lambda: void(ctypes.memset(address, 0, size)))

    def wait(self, stream: FakeStream) -> None:
        self._called("wait")
        assert stream.recording is None, "waiting for a stream that records would never end"
        queue, stream.queue = stream.queue, []
        for work in queue:
            work()

    def begin_recording(self, stream: FakeStream) -> None:
        self._called("begin_recording")
        assert stream.recording is None
        stream.recording = []

    def end_recording(self, stream: FakeStream) -> list[Work]:
        assert stream.recording is not None
        recorded, stream.recording = stream.recording, None  # it ends even where that fails
        self._called("end_recording")
        self._records.append(recorded)
        return recorded

    def replay(self, recorded: list[Work], stream: FakeStream) -> None:
        self._called("replay")
        assert any(recorded is one for one in self._records), "it was given back"
        stream.queue += recorded

    def forget(self, recorded: list[Work]) -> None:
        self._called("forget")
        self._records = [one for one in self._records if one is not recorded]

    def stream(self, handle: int) -> FakeStream:
        """The stream of a handle, as TensorRT finds it."""
        return self._streams[handle]

    def array(self, address: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """What the GPU sees at an address."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        block = (ctypes.c_uint8 * size).from_address(self._seen(address, size))
        return np.ctypeslib.as_array(block).view(dtype).reshape(shape)

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if name in self.failing:
            raise EngineError(f"CUDA: {name}: {self.failing.pop(name)}")

    def _allocate(self, kind: str, name: str, size: int) -> int:
        assert not any(stream.recording is not None for stream in self._streams.values())
        assert size > 0
        self._called(name)
        block = (ctypes.c_uint8 * size)(*itertools.repeat(0xCD, min(size, 64)))
        self._memory[kind][ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def _copy(self, name: str, target: int, source: int, size: int, stream: FakeStream) -> None:
        self._called(name)
        stream.put(lambda: void(ctypes.memmove(target, source, size)))

    def _pinned(self, address: int, size: int) -> int:
        return self._inside("pinned", address, size)

    def _seen(self, address: int, size: int) -> int:
        """Where memory is that the GPU may use."""
        if address >= _ALIAS:
            assert self.shares_memory
            return self._inside("pinned", address - _ALIAS, size)
        return self._inside("device", address, size)

    def _inside(self, kind: str, address: int, size: int) -> int:
        for start, block in self._memory[kind].items():
            if start <= address and address + size <= start + len(block):
                return address
        raise AssertionError(f"{size} bytes at {address:#x} are not in {kind} memory")


def void(_: object) -> None:
    """Work gives nothing back."""
