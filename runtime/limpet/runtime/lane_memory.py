"""The memory of a same-host lane: blocks that one side gives out and the other reads."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Sequence

from limpet.contracts.errors import WireError
from limpet.contracts.lane import (
    BLOCK_HEAD_BYTES,
    GENERATION,
    IN_MEMORY_FROM_BYTES,
    MAX_INLINE_BYTES,
    Block,
)
from limpet.contracts.wire import Buffer

SUPPORTED = hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")
"""Linux has what a lane takes."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if SUPPORTED else 0


class Area:
    """The part of a lane's memory that one side gives out.

    Args:
        memory: Both areas.
        start: First byte of this one.
        size: Bytes.
    """

    def __init__(self, memory: mmap.mmap, start: int, size: int) -> None:
        self._view = memoryview(memory)
        self._start, self._end = start, start + size
        self._taken: dict[int, tuple[int, int]] = {}  # offset: generation, end
        self._generation = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Lets go of the memory.

        Raises:
            BufferError: Somebody still has a frame of it.
        """
        self._view.release()

    # Giving blocks out ----------------------------------------------------------------------------

    def put(self, frame: Buffer) -> Block | None:
        """Copies a frame into a block of its own; None where there is no room."""
        size = -(-(BLOCK_HEAD_BYTES + len(frame)) // BLOCK_HEAD_BYTES) * BLOCK_HEAD_BYTES
        with self._lock:
            offset = self._gap(size)
            if offset is None:
                return None
            self._generation += 1
            block = Block(offset, self._generation)
            self._taken[offset] = block.generation, offset + size
        GENERATION.pack_into(self._view, offset, block.generation)
        self._view[offset + BLOCK_HEAD_BYTES : offset + BLOCK_HEAD_BYTES + len(frame)] = frame
        return block

    def _gap(self, size: int) -> int | None:
        """The first place where so many bytes are free: memory that was used before is warm."""
        at = self._start
        for offset in sorted(self._taken):
            if offset - at >= size:
                break
            at = self._taken[offset][1]
        return at if self._end - at >= size else None

    def free(self, block: Block) -> None:
        """The other side has said that it will not look at a block any more.

        Raises:
            WireError: It has no such block.
        """
        with self._lock:
            if self._taken.get(block.offset, (0, 0))[0] != block.generation:
                raise WireError(
                    f"release of a block at {block.offset}, generation {block.generation}, that "
                    "was not given out"
                )
            del self._taken[block.offset]

    @property
    def taken(self) -> int:
        """Blocks that are given out."""
        return len(self._taken)

    # Reading the other side's --------------------------------------------------------------------

    def read(self, block: Block, length: int) -> memoryview:
        """The bytes of a frame, which stay those of the memory.

        Raises:
            WireError: The block lies elsewhere, or is not of that generation.
        """
        offset, generation = block
        if offset % BLOCK_HEAD_BYTES or not (
            self._start <= offset and offset + BLOCK_HEAD_BYTES + length <= self._end
        ):
            raise WireError(
                f"block of {length} bytes at {offset}, wanted one at a multiple of "
                f"{BLOCK_HEAD_BYTES} within {self._start} to {self._end}"
            )
        if not self.holds(block):
            found = GENERATION.unpack_from(self._view, offset)[0]
            raise WireError(
                f"block at {offset} is of generation {found}, the packet says {generation}"
            )
        return self._view[offset + BLOCK_HEAD_BYTES : offset + BLOCK_HEAD_BYTES + length]

    def holds(self, block: Block) -> bool:
        """Whether a block that was read has not been reused since."""
        generation: int = GENERATION.unpack_from(self._view, block.offset)[0]
        return generation == block.generation


def make_memory(area_bytes: int) -> tuple[int, mmap.mmap]:
    """Memory for two areas: its descriptor, sealed so that nobody can cut it, and its mapping.

    It has no name: no other process can open it, and it ends with the last process that has it.
    """
    descriptor = os.memfd_create("limpet-lane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, 2 * area_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        return descriptor, mmap.mmap(descriptor, 2 * area_bytes)
    except BaseException:
        os.close(descriptor)
        raise


def map_memory(descriptor: int, area_bytes: int) -> mmap.mmap:
    """Maps memory that the other side has made.

    Raises:
        WireError: It can be cut, which would kill whoever reads it then, or is of another size.
    """
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise WireError("the memory of a lane is not sealed")
    size = os.fstat(descriptor).st_size
    if size != 2 * area_bytes:
        raise WireError(f"the memory of a lane has {size} bytes, wanted {2 * area_bytes}")
    return mmap.mmap(descriptor, size)


def place(frames: Sequence[Buffer], area: Area) -> list[Buffer | tuple[Block, int]] | None:
    """Puts the frames that are too large for a packet into memory; None where there is no room."""
    placed: list[Buffer | tuple[Block, int]] = []
    inline = 0
    for number, frame in enumerate(frames):
        length = len(frame)
        if length < IN_MEMORY_FROM_BYTES and inline + length <= MAX_INLINE_BYTES:
            inline += length
            placed.append(frame)
            continue
        block = None if number == 0 else area.put(frame)
        if block is None:
            for done in placed:
                if isinstance(done, tuple):
                    area.free(done[0])
            return None
        placed.append((block, length))
    return placed
