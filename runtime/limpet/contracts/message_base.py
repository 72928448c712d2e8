"""What every message is made of: the version, the types of the fields with their limits, and the
header that announces a tensor.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

VERSION = 1
MAX_TENSORS = 16
MAX_RANK = 8

Id = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
MAX_NAME_LENGTH = 128
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
Size = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


class TensorHeader(msgspec.Struct, frozen=True):
    """What the frame that follows holds."""

    name: Name
    dtype: str
    shape: Annotated[list[Size], msgspec.Meta(max_length=MAX_RANK)]


class Message(msgspec.Struct, kw_only=True, tag_field="type", tag=lambda name: _snake(name)):
    """Every message says which version of the protocol it speaks."""

    v: int = VERSION


class TensorMessage(Message, kw_only=True):
    """A message with tensors; `wire.encode` fills `tensors` in."""

    tensors: Annotated[list[TensorHeader], msgspec.Meta(max_length=MAX_TENSORS)] = []
