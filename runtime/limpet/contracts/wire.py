"""The bytes of the messages. `WIRE.md` beside this file specifies them for other languages;
`tests/contracts/wire_golden.json` holds golden bytes.

A message is a header frame (msgpack map, `type` and `v` in every one) and, for those that carry
tensors, one frame of raw C-order little-endian memory for each entry of the header's `tensors`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import numpy as np

from limpet.contracts.errors import TensorError, VersionError, WireError
from limpet.contracts.message_base import MAX_TENSORS, VERSION, Message, TensorHeader, TensorMessage
from limpet.contracts.messages import Published, Reply, Request
from limpet.contracts.tensors import DTYPES, Array, Tensors, dtype_name, little_endian_contiguous

MAX_REQUEST_HEADER_BYTES = 64 * 1024
MAX_REPLY_HEADER_BYTES = 4 * 1024 * 1024

AnyMessage = TypeVar("AnyMessage", bound=Message)
Buffer = bytes | bytearray | memoryview

_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(Request)
_reply_decoder = msgspec.msgpack.Decoder(Reply)
_published_decoder = msgspec.msgpack.Decoder(Published)


class _OnlyVersion(msgspec.Struct):
    v: int


class _OnlyId(msgspec.Struct):
    id: int


_version_decoder = msgspec.msgpack.Decoder(_OnlyVersion)
_id_decoder = msgspec.msgpack.Decoder(_OnlyId)
_LITTLE_ENDIAN = {name: np.dtype(name).newbyteorder("<") for name in DTYPES}
_WIRE_NAMES = {dtype: name for name, dtype in _LITTLE_ENDIAN.items()}


def encode(message: Message, tensors: Tensors | None = None) -> list[Buffer]:
    """The frames of a message: header, then one frame a tensor, not copied.

    Args:
        message: Any message; its `tensors` field is filled in here.
        tensors: Arrays of `DTYPES`, copied only where they are not C-order little-endian.

    Raises:
        WireError: A tensor that no message may carry: without elements, or of another dtype.
    """
    if not tensors:
        return [_encoder.encode(message)]
    assert isinstance(message, TensorMessage)
    headers = []
    frames: list[Buffer] = [b""]
    for name, array in tensors.items():
        shape = array.shape
        dtype = _WIRE_NAMES.get(array.dtype)
        if dtype is None or not (shape and array.flags.c_contiguous):
            array = little_endian_contiguous(array)  # makes a scalar (1,)
            dtype = _WIRE_NAMES.get(array.dtype)
            if dtype is None:
                found = dtype_name(array.dtype)
                raise WireError(f"tensor {name!r} is {found}, wanted one of {', '.join(DTYPES)}")
        if array.size == 0:
            raise WireError(f"tensor {name!r} has shape {list(shape)}, wanted an element")
        headers.append(TensorHeader(name, dtype, list(shape)))
        frames.append(memoryview(array).cast("B"))  # type: ignore[arg-type]
    message.tensors = headers
    frames[0] = _encoder.encode(message)
    return frames


def decode_request(frames: Sequence[Buffer]) -> tuple[Request, dict[str, Array]]:
    """Reads what a node sent. The arrays are read-only views of the frames.

    Raises:
        VersionError: Another protocol version.
        WireError: No request of this protocol; the message says what is wrong where.
    """
    request = _decode(frames, _request_decoder, MAX_REQUEST_HEADER_BYTES)
    return request, _decode_tensors(request, frames)


def decode_reply(frames: Sequence[Buffer]) -> tuple[Reply, dict[str, Array]]:
    """Reads what the server answered; otherwise as `decode_request`."""
    reply = _decode(frames, _reply_decoder, MAX_REPLY_HEADER_BYTES)
    return reply, _decode_tensors(reply, frames)


def decode_published(frames: Sequence[Buffer]) -> Published:
    """Reads a published message: topic frame, header frame; raises as `decode_request`."""
    published: Published = _decode(frames[1:], _published_decoder, MAX_REPLY_HEADER_BYTES)
    return published


def peek_id(frames: Sequence[Buffer]) -> int:
    """The id in a header that could not be decoded, 0 where there is none to be read."""
    try:
        found = _id_decoder.decode(frames[0]).id
    except (msgspec.DecodeError, RecursionError, IndexError, UnicodeDecodeError):
        return 0
    return found if 0 < found < 2**63 else 0


def _decode(
    frames: Sequence[Buffer], decoder: msgspec.msgpack.Decoder[AnyMessage], max_bytes: int
) -> AnyMessage:
    if not frames:
        raise WireError("empty message, wanted a msgpack header frame")
    if len(frames[0]) > max_bytes:
        raise WireError(f"header of {len(frames[0])} bytes, at most {max_bytes} are read")
    try:
        message = decoder.decode(frames[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TensorError) as error:
        _check_version(frames[0])
        raise WireError(f"header: {error}") from error
    if message.v != VERSION:
        _check_version(frames[0])
    return message


def _check_version(header: Buffer) -> None:
    try:
        found = _version_decoder.decode(header).v
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if found != VERSION:
        raise VersionError(
            f"message of protocol version {found}, this limpet speaks {VERSION}",
            "install the same limpet on both sides",
        )


def _decode_tensors(message: Message, frames: Sequence[Buffer]) -> dict[str, Array]:
    headers = message.tensors if isinstance(message, TensorMessage) else ()
    if len(frames) - 1 > MAX_TENSORS:
        raise WireError(f"more than {MAX_TENSORS} frames follow the header")
    if len(headers) != len(frames) - 1:
        raise WireError(f"header announces {len(headers)} tensors, {len(frames) - 1} frames follow")
    tensors: dict[str, Array] = {}
    for place, header in enumerate(headers, 1):  # a strict `zip` takes a fifth of all this
        frame = frames[place]
        dtype = _LITTLE_ENDIAN.get(header.dtype)
        if dtype is None:
            raise WireError(
                f"tensor {header.name!r}: dtype {header.dtype!r} is not one of {', '.join(DTYPES)}"
            )
        wanted = math.prod(header.shape) * dtype.itemsize
        if len(frame) != wanted:
            raise WireError(
                f"tensor {header.name!r}: frame of {len(frame)} bytes, "
                f"{header.dtype} {header.shape} takes {wanted}"
            )
        if header.name in tensors:
            raise WireError(f"tensor {header.name!r} comes twice")
        array: Array = np.ndarray(header.shape, dtype, frame)
        if header.dtype == "bool" and array.view(np.uint8).max() > 1:
            raise WireError(f"tensor {header.name!r}: a bool is neither 0 nor 1")
        array.setflags(write=False)
        tensors[header.name] = array
    return tensors
