"""Packets of a same-host lane: golden bytes, there and back, and what is none."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.contracts import lane
from limpet.contracts.errors import WireError
from limpet.contracts.lane import (
    ALIGNMENT_BYTES,
    BLOCK_HEAD_BYTES,
    IN_MEMORY_FROM_BYTES,
    LANE_VERSION,
    MAX_INLINE_BYTES,
    MAX_PACKET_BYTES,
    MAX_RELEASES,
    TOKEN_BYTES,
    Block,
    pack,
    unpack,
)
from limpet.contracts.message_base import MAX_TENSORS

WIRE = (Path(lane.__file__).parent / "WIRE.md").read_text(encoding="utf-8")
SECTION = WIRE[WIRE.index("\n## Same-host lane") : WIRE.index("\n## Rejections")]
AREA = 32 << 20
IN_REQUESTS, IN_REPLIES = Block(0, 1), Block(AREA, 1)
WORKED = {
    "request": ([b"h", (IN_REQUESTS, 65536)], []),
    "reply": ([b"i", (IN_REPLIES, 65536)], [IN_REQUESTS]),
    "next request": ([b"h", struct.pack("<f", 1.0)], [IN_REPLIES]),
}

blocks = st.builds(Block, st.integers(0, 2**32 - 1), st.integers(1, 2**64 - 1))
in_memory = st.tuples(blocks, st.integers(0, 2**32 - 1))
tensors = st.lists(st.binary(max_size=40) | in_memory, max_size=MAX_TENSORS)


@pytest.mark.parametrize("name", WORKED)
def test_the_packets_of_the_specification_are_those_that_are_written(name: str) -> None:
    written = re.search(rf"^\| {name} \| `([0-9a-f ]+)` \|$", SECTION, re.MULTILINE)
    assert written is not None
    frames, released = WORKED[name]
    assert pack(frames, released).hex() == written[1].replace(" ", "")


@given(header=st.binary(min_size=1, max_size=40), rest=tensors, released=st.lists(blocks))
def test_a_packet_comes_back_from_its_bytes_and_its_frames_are_aligned(
    header: bytes, rest: list[bytes | tuple[Block, int]], released: list[Block]
) -> None:
    packet = pack([header, *rest], released)
    found = unpack(packet)
    assert [f if isinstance(f, tuple) else bytes(f) for f in found.frames] == [header, *rest]
    assert found.released == released
    start = 4 + 16 * len(found.frames) + 12 * len(released)
    for frame in found.frames:
        if not isinstance(frame, tuple):
            start += -start % ALIGNMENT_BYTES
            assert packet[start : start + len(frame)] == frame
            start += len(frame)
    assert start == len(packet)


def test_a_packet_without_frames_sends_its_reader_to_the_socket() -> None:
    assert unpack(pack([], [IN_REQUESTS])) == ([], [IN_REQUESTS])


GOOD = pack([b"header", b"tensor"], [IN_REPLIES])


@given(st.integers(0, len(GOOD) - 1))
def test_a_packet_that_ends_too_early_is_none(length: int) -> None:
    with pytest.raises(WireError):
        unpack(GOOD[:length])


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"\x02" + GOOD[1:], "packet of lane version 2, wanted 1"),
        (GOOD + b"\0", "its frames end at"),
        (b"\x01\x12\0\0" + bytes(18 * 16), "packet of 18 frames and 0 releases, at most 17"),
        (b"\x01\0\x01\x04" + bytes(12 * 1025), "1025 releases"),
        (pack([(IN_REQUESTS, 4)]), "the header of a packet must lie inside it"),
        (b"\x01\x01\0\0" + struct.pack("<IIQ", 2**32 - 1, 0, 0), "its frames end at"),
        (b"", "packet of 0 bytes ends too early"),
    ],
)
def test_what_is_no_packet_says_why(packet: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        unpack(packet)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_a_wire_error(packet: bytes) -> None:
    try:
        found = unpack(packet)
    except WireError:
        return
    assert pack(found.frames, found.released)[:4] == packet[:4]  # type: ignore[arg-type]


def test_the_specification_gives_the_numbers_that_hold() -> None:
    words = " ".join(SECTION.split())
    assert f"version of lanes, {LANE_VERSION} |" in words
    assert f"0 to {MAX_TENSORS + 1} |" in words
    assert f"at most {MAX_RELEASES} |" in words
    assert f"at the next multiple of {ALIGNMENT_BYTES} after zeros" in words
    assert f"Its largest size is {MAX_PACKET_BYTES >> 10} KiB" in words
    assert f"less than {IN_MEMORY_FROM_BYTES >> 10} KiB should" in words
    assert f"less than {MAX_INLINE_BYTES >> 10} KiB together" in words
    assert f"begins at a multiple of {BLOCK_HEAD_BYTES} with its generation" in words
    assert f"the frame begins {BLOCK_HEAD_BYTES} bytes after" in words
    assert f"Send one packet, the {TOKEN_BYTES} bytes" in words
