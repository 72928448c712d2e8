"""What an engine asks of a GPU: memory, one queue of work, and work recorded to be done again.

Narrow on purpose. All that needs a GPU is behind it, `nvidia.NvidiaDevice` is the only place that
calls CUDA, and tests drive the rest of the engine with a device of their own.
"""

from __future__ import annotations

from typing import Any, Protocol


class Device(Protocol):
    """A GPU.

    Addresses are plain numbers, 0 is none. A stream is a queue: what is put into it is done later,
    in order, and has been done when `wait` returns.

    Every method raises `EngineError` with the library's own name of what went wrong.

    Attributes:
        shares_memory: Whether the GPU computes in the host's own memory (Jetson): nothing has to be
            copied then.
    """

    shares_memory: bool

    def allocate(self, size: int) -> int:
        """Address of so many bytes of the GPU's memory."""
        ...

    def free(self, address: int) -> None:
        """Gives back what `allocate` gave."""
        ...

    def allocate_pinned(self, size: int) -> int:
        """Address of so many bytes of host memory that stay where they are, so that copying need
        not wait for the processor; mapped for the GPU where it shares memory.
        """
        ...

    def free_pinned(self, address: int) -> None:
        """Gives back what `allocate_pinned` gave."""
        ...

    def mapped(self, pinned: int) -> int:
        """Where the GPU sees pinned memory, on a device that shares it."""
        ...

    def open_stream(self) -> Any:
        """A queue of its own, which waits for no other; `int` of it is its handle."""
        ...

    def close_stream(self, stream: Any) -> None:
        """Gives a stream back; what is in it is done first."""
        ...

    def to_device(self, target: int, pinned: int, size: int, stream: Any) -> None:
        """Puts a copy from pinned memory to the GPU's into the stream."""
        ...

    def to_host(self, pinned: int, source: int, size: int, stream: Any) -> None:
        """Puts a copy from the GPU's memory to pinned memory into the stream."""
        ...

    def within(self, target: int, source: int, size: int, stream: Any) -> None:
        """Puts a copy inside the GPU's memory into the stream."""
        ...

    def clear(self, target: int, size: int, stream: Any) -> None:
        """Puts zeros into the GPU's memory, in the stream's turn."""
        ...

    def wait(self, stream: Any) -> None:
        """Returns when all that is in the stream is done; what failed on the way is raised here."""
        ...

    def begin_recording(self, stream: Any) -> None:
        """From now on what is put into the stream is recorded and not done."""
        ...

    def end_recording(self, stream: Any) -> Any:
        """What was recorded, as `replay` takes it."""
        ...

    def replay(self, recorded: Any, stream: Any) -> None:
        """Puts all of a record into the stream at once."""
        ...

    def forget(self, recorded: Any) -> None:
        """Gives a record back."""
        ...
