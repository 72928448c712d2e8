"""The bytes of a same-host lane: packets over a Unix socket, large frames in shared memory.

`WIRE.md` specifies them for other languages; `tests/contracts/lane_golden.json` holds golden bytes.

A packet carries the frames of one message (`wire`). A large frame lies in a block of the memory
that both sides have mapped, and the packet says where. Each side has an area of that memory that it
alone gives out; a block begins with its generation, so that whoever reads one sees when it was
reused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from limpet.contracts.errors import WireError
from limpet.contracts.message_base import MAX_TENSORS
from limpet.contracts.wire import Buffer

LANE_VERSION = 1
IN_MEMORY_FROM_BYTES = 64 * 1024
"""Frames at least this large go through the memory; copying smaller ones twice is quicker."""
MAX_INLINE_BYTES = 96 * 1024
"""Largest sum of the frames inside a packet: Linux takes packets up to 208 KiB by default."""
MAX_PACKET_BYTES = 128 * 1024
MAX_RELEASES = 1024
BLOCK_HEAD_BYTES = 64
"""A block begins with its generation in so many bytes, and at a multiple of them."""
ALIGNMENT_BYTES = 8
"""A frame inside a packet begins at a multiple of these, after zeros, so that its values are
aligned as a processor wants them."""
TOKEN_BYTES = 16

_HEAD, _FRAME, _RELEASE = struct.Struct("<BBH"), struct.Struct("<IIQ"), struct.Struct("<IQ")
_ZEROS = [bytes(count) for count in range(ALIGNMENT_BYTES)]
GENERATION = struct.Struct("<Q")
ACCEPTED = struct.Struct("<II")
"""The packet that comes with the memory: the size of either area."""


class Block(NamedTuple):
    """Where a frame lies in the memory.

    Attributes:
        offset: Of the block's head, a multiple of `BLOCK_HEAD_BYTES`.
        generation: What the head holds while the block is the one that was meant, at least 1.
    """

    offset: int
    generation: int


class Packet(NamedTuple):
    """What a packet says.

    Attributes:
        frames: Of one message in order: the bytes, or block and length of those in the memory.
            None at all: the reply comes over the ZeroMQ socket.
        released: Blocks of the receiver's area that the sender will not look at any more.
    """

    frames: list[memoryview | tuple[Block, int]]
    released: list[Block]


def pack(frames: Sequence[Buffer | tuple[Block, int]], released: Sequence[Block] = ()) -> bytes:
    """The bytes of a packet; what `Packet` has."""
    parts: list[Buffer] = [_HEAD.pack(LANE_VERSION, len(frames), len(released))]
    inline: list[Buffer] = []
    length = _HEAD.size + len(frames) * _FRAME.size + len(released) * _RELEASE.size
    for frame in frames:
        if isinstance(frame, tuple):
            block, size = frame
            parts.append(_FRAME.pack(size, block.offset, block.generation))
        else:
            parts.append(_FRAME.pack(len(frame), 0, 0))
            inline += _ZEROS[-length % ALIGNMENT_BYTES], frame
            length = len(frame)
    parts += [_RELEASE.pack(*block) for block in released]
    return b"".join(parts + inline)


def unpack(packet: bytes) -> Packet:
    """Reads a packet.

    Raises:
        WireError: It is none; the message says what is wrong.
    """
    try:
        version, count, releases = _HEAD.unpack_from(packet)
        if version != LANE_VERSION:
            raise WireError(f"packet of lane version {version}, wanted {LANE_VERSION}")
        if count > MAX_TENSORS + 1 or releases > MAX_RELEASES:
            raise WireError(
                f"packet of {count} frames and {releases} releases, at most {MAX_TENSORS + 1} and "
                f"{MAX_RELEASES} are read"
            )
        at = _HEAD.size
        described = [_FRAME.unpack_from(packet, at + i * _FRAME.size) for i in range(count)]
        at += count * _FRAME.size
        released = [
            Block(*_RELEASE.unpack_from(packet, at + i * _RELEASE.size)) for i in range(releases)
        ]
        at += releases * _RELEASE.size
    except struct.error as error:
        raise WireError(f"packet of {len(packet)} bytes ends too early") from error
    view = memoryview(packet)
    frames: list[memoryview | tuple[Block, int]] = []
    for length, offset, generation in described:
        if generation:
            frames.append((Block(offset, generation), length))
        else:
            at += -at % ALIGNMENT_BYTES
            frames.append(view[at : at + length])
            at += length
    if at != len(packet):
        raise WireError(f"packet of {len(packet)} bytes, its frames end at {at}")
    if frames and isinstance(frames[0], tuple):
        raise WireError("the header of a packet must lie inside it")
    return Packet(frames, released)
