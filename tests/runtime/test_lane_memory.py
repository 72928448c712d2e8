"""The memory of a same-host lane: blocks are given out once, and all come back."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from limpet.contracts.lane import (
    BLOCK_HEAD_BYTES,
    Block,
)
from limpet.runtime.lane_memory import SUPPORTED, Area

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="lanes need Linux: memfd and its seals")


def test_blocks_never_overlap_and_all_room_comes_back() -> None:
    size = 64 * 1024
    memory = mmap.mmap(-1, 2 * size)
    area = Area(memory, size, size)
    draw = np.random.default_rng(0)
    held: dict[Block, bytes] = {}
    refused = 0
    for number in range(3000):
        if held and draw.random() < 0.5:
            block = list(held)[draw.integers(len(held))]
            assert bytes(area.read(block, len(held[block]))) == held.pop(block)
            area.free(block)
            continue
        frame = bytes([number % 256]) * int(draw.integers(1, 20_000))
        block = area.put(frame)
        if block is None:
            refused += 1
            continue
        assert block.offset % BLOCK_HEAD_BYTES == 0
        held[block] = frame
    assert refused > 10
    for block, frame in held.items():
        assert bytes(area.read(block, len(frame))) == frame
        area.free(block)
    assert area.taken == 0
    whole = area.put(bytes(size - BLOCK_HEAD_BYTES))
    assert whole is not None
    assert whole.offset == size
    assert memory[:size] == bytes(size), "the other side's area is untouched"
