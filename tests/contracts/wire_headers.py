"""A header to change, and messages decoded as whoever receives them does."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from limpet.contracts.message_base import Message
from limpet.contracts.messages import Reply, Request
from limpet.contracts.tensors import Array
from limpet.contracts.wire import Buffer, decode_published, decode_reply, decode_request

VALUES = struct.pack("<6f", *range(6))
"""The tensor that `header` announces."""


def header(**changes: Any) -> bytes:
    """The header of a `Samples` with one float32 [2, 3], changed; `...` leaves a key out."""
    fields = {
        "type": "samples",
        "v": 1,
        "tensors": [tensor()],
        "id": 5,
        "stream": "pump",
        "session": "s1",
        "sequence": 0,
        "first_time_ns": 0,
        "rate_hz": 10.0,
        **changes,
    }
    return msgspec.msgpack.encode({k: v for k, v in fields.items() if v is not ...})


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "values", "dtype": "float32", "shape": [2, 3], **changes}


def decode(type_: type[Message], frames: Sequence[Buffer]) -> tuple[Message, Mapping[str, Array]]:
    """Decodes as whoever receives such a message does."""
    if type_ in get_args(Request):
        return decode_request(frames)
    if type_ in get_args(Reply):
        return decode_reply(frames)
    return decode_published([b"topic", *frames]), {}
