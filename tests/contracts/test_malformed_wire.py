"""What is wrong with the bytes of a message is said with where, and never another error."""

from __future__ import annotations

import contextlib
import math
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.contracts import messages
from limpet.contracts.errors import VersionError, WireError
from limpet.contracts.message_base import MAX_RANK, MAX_TENSORS
from limpet.contracts.messages import ALERT_TOPIC, Request
from limpet.contracts.stream_messages import Samples
from limpet.contracts.wire import (
    MAX_REPLY_HEADER_BYTES,
    MAX_REQUEST_HEADER_BYTES,
    decode_published,
    decode_reply,
    decode_request,
    encode,
    peek_id,
)
from tests.contracts import wire_golden
from tests.contracts.wire_headers import VALUES, decode, header, tensor

GOLDEN = wire_golden.entries()


def test_the_unchanged_header_of_these_tests_is_a_request() -> None:
    request, tensors = decode_request([header(), VALUES])
    assert isinstance(request, Samples)
    assert tensors["values"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"", "header: Input data was truncated", id="empty"),
        pytest.param(header()[:-1], "header: Input data was truncated", id="cut short"),
        pytest.param(
            header() + b"\0",
            f"header: MessagePack data is malformed: trailing characters (byte {len(header())})",
            id="too long",
        ),
        pytest.param(
            b"\xc1",
            "header: MessagePack data is malformed: invalid opcode '\\xc1' (byte 0)",
            id="never used code",
        ),
        pytest.param(b"\x07", "header: Expected `object`, got `int`", id="number"),
        pytest.param(b"\x91\x80", "header: Expected `object`, got `array`", id="array"),
        pytest.param(
            b"\xdf\xff\xff\xff\xff", "header: Input data was truncated", id="absurd map size"
        ),
        pytest.param(
            b"\xdb\xff\xff\xff\xff", "header: Input data was truncated", id="absurd text size"
        ),
        pytest.param(
            header(type=...), "header: Object missing required field `type`", id="no type"
        ),
        pytest.param(
            header(type="nope"), "header: Invalid value 'nope' - at `$.type`", id="unknown type"
        ),
        pytest.param(
            header(type=3), "header: Expected `str`, got `int` - at `$.type`", id="type of type"
        ),
        pytest.param(
            header(type="scores"), "header: Invalid value 'scores' - at `$.type`", id="a reply"
        ),
        pytest.param(header(v="1"), "header: Expected `int`, got `str` - at `$.v`", id="version"),
        pytest.param(header(id=...), "header: Object missing required field `id`", id="no id"),
        pytest.param(header(id=0), "header: Expected `int` >= 1 - at `$.id`", id="id zero"),
        pytest.param(header(id=-1), "header: Expected `int` >= 1 - at `$.id`", id="id negative"),
        pytest.param(
            header(id=2**63),
            "header: Expected `int` <= 9223372036854775807 - at `$.id`",
            id="id too large",
        ),
        pytest.param(header(id=1.0), "header: Expected `int`, got `float` - at `$.id`", id="float"),
        pytest.param(header(id=True), "header: Expected `int`, got `bool` - at `$.id`", id="bool"),
        pytest.param(
            header(stream=""), "header: Expected `str` of length >= 1 - at `$.stream`", id="no name"
        ),
        pytest.param(
            header(stream="s" * 129),
            "header: Expected `str` of length <= 128 - at `$.stream`",
            id="long name",
        ),
        pytest.param(
            header(sequence=-1), "header: Expected `int` >= 0 - at `$.sequence`", id="sequence"
        ),
        pytest.param(
            header(first_time_ns=2**63),
            "header: Expected `int` <= 9223372036854775807 - at `$.first_time_ns`",
            id="time",
        ),
        pytest.param(
            header(rate_hz=math.nan), "header: Expected `float` > 0.0 - at `$.rate_hz`", id="nan"
        ),
        pytest.param(
            header(rate_hz=math.inf),
            "header: Expected `float` <= 1000000000.0 - at `$.rate_hz`",
            id="inf",
        ),
        pytest.param(
            header(rate_hz=0.0), "header: Expected `float` > 0.0 - at `$.rate_hz`", id="rate"
        ),
        pytest.param(
            header(tensors=[tensor()] * (MAX_TENSORS + 1)),
            "header: Expected `array` of length <= 16 - at `$.tensors`",
            id="too many tensors",
        ),
        pytest.param(
            header(tensors=[["values", "float32", [2, 3]]]),
            "header: Expected `object`, got `array` - at `$.tensors[0]`",
            id="tensor that is no map",
        ),
        pytest.param(
            header(tensors=[tensor(shape=[2] * (MAX_RANK + 1))]),
            "header: Expected `array` of length <= 8 - at `$.tensors[0].shape`",
            id="too many axes",
        ),
        pytest.param(
            header(tensors=[tensor(shape=[0, 3])]),
            "header: Expected `int` >= 1 - at `$.tensors[0].shape[0]`",
            id="axis of zero",
        ),
        pytest.param(
            header(tensors=[tensor(shape=[2, -3])]),
            "header: Expected `int` >= 1 - at `$.tensors[0].shape[1]`",
            id="negative axis",
        ),
        pytest.param(
            header(tensors=[tensor(shape=[2**31])]),
            "header: Expected `int` <= 2147483647 - at `$.tensors[0].shape[0]`",
            id="overflowing axis",
        ),
        pytest.param(
            header(tensors=[tensor(shape=[2**31 - 1] * 3)]),
            "tensor 'values': frame of 24 bytes, float32 [2147483647, 2147483647, 2147483647] "
            f"takes {4 * (2**31 - 1) ** 3}",
            id="overflowing product",
        ),
        pytest.param(
            header(tensors=[tensor(shape=[2**16] * 4)]),
            "tensor 'values': frame of 24 bytes, float32 [65536, 65536, 65536, 65536] "
            "takes 73786976294838206464",
            id="product that is zero in 64 bits",
        ),
        pytest.param(
            header(tensors=[tensor(shape=[7])]),
            "tensor 'values': frame of 24 bytes, float32 [7] takes 28",
            id="frame too short",
        ),
        pytest.param(
            header(tensors=[tensor(shape=[])]),
            "tensor 'values': frame of 24 bytes, float32 [] takes 4",
            id="frame too long",
        ),
        pytest.param(
            header(tensors=[tensor(dtype="object")]),
            "tensor 'values': dtype 'object' is not one of float64, float32, float16, int64, int32,"
            " int16, int8, uint64, uint32, uint16, uint8, bool",
            id="element type",
        ),
        pytest.param(
            header(tensors=[]), "header announces 0 tensors, 1 frames follow", id="frame too many"
        ),
        pytest.param(
            header(tensors=[tensor(), tensor(name="more")]),
            "header announces 2 tensors, 1 frames follow",
            id="frame too few",
        ),
        pytest.param(
            header(tensors=[tensor(dtype="bool", shape=[24])]),
            "tensor 'values': a bool is neither 0 nor 1",
            id="bool",
        ),
    ],
)
def test_what_is_wrong_with_a_message_is_said_with_where(raw: bytes, expected: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_request([raw, VALUES])
    assert not isinstance(caught.value, VersionError)
    assert str(caught.value) == expected


def test_a_message_without_any_frame_is_refused() -> None:
    with pytest.raises(WireError, match="empty message, wanted a msgpack header frame"):
        decode_request([])
    with pytest.raises(WireError, match="empty message"):
        decode_published([ALERT_TOPIC])


def test_a_tensor_may_not_come_twice() -> None:
    with pytest.raises(WireError, match="tensor 'values' comes twice"):
        decode_request([header(tensors=[tensor(), tensor()]), VALUES, VALUES])


@pytest.mark.parametrize("count", [MAX_TENSORS + 1, 5000])
def test_frames_are_not_even_counted_beyond_the_most_that_a_message_has(count: int) -> None:
    with pytest.raises(WireError, match=r"^more than 16 frames follow the header$"):
        decode_request([header(), *[b""] * count])


def test_a_message_that_carries_no_tensors_has_one_frame() -> None:
    frames = encode(messages.Ping(id=1, client_time_ns=2))
    with pytest.raises(WireError, match="header announces 0 tensors, 1 frames follow"):
        decode_request([*frames, b""])


def test_a_header_is_read_up_to_its_largest_size() -> None:
    for limit, reader, base in (
        (MAX_REQUEST_HEADER_BYTES, decode_request, messages.Hello(id=1, client="c")),
        (
            MAX_REPLY_HEADER_BYTES,
            decode_reply,
            messages.Pong(id=1, client_time_ns=0, server_time_ns=0),
        ),
    ):
        fields = {**msgspec.to_builtins(base), "padding": ""}
        size = limit - len(msgspec.msgpack.encode(fields)) - 4  # the text's length takes 5 bytes
        largest = msgspec.msgpack.encode({**fields, "padding": bytes(size)})
        assert limit - 3 <= len(largest) <= limit
        assert reader([largest])[0] == base
        with pytest.raises(WireError, match=f"header of {limit + 1} bytes, at most {limit} are"):
            reader([bytes(limit + 1)])


@pytest.mark.parametrize("depth", [2000, 20_000, 60_000])
@pytest.mark.parametrize("key", ["stream", "something_unknown"])
def test_deep_msgpack_is_refused(key: str, depth: int) -> None:
    deep = b"\x91" * depth + b"\xc0"
    raw = header(**{key: ...})
    raw = bytes([raw[0] + 1]) + raw[1:] + bytes([0xA0 + len(key)]) + key.encode() + deep
    with pytest.raises(WireError, match=r"^header: "):
        decode_request([raw, VALUES])
    with pytest.raises(WireError, match=r"^header: "):
        decode_request([deep])
    assert peek_id([deep]) == 0


def test_keys_that_this_version_does_not_know_are_passed_over() -> None:
    request, _ = decode_request([header(colour="blue", nested={"a": [1, {"b": None}]}), VALUES])
    assert request == decode_request([header(), VALUES])[0]


@pytest.mark.parametrize("found", [0, 2, 2**64 - 1, -1])
def test_another_version_is_named_whatever_else_the_message_holds(found: int) -> None:
    for raw in (
        header(v=found),
        header(v=found, type="teleport"),
        header(v=found, id="abc", stream=3),
        msgspec.msgpack.encode({"v": found}),
    ):
        with pytest.raises(VersionError) as caught:
            decode_request([raw])
        assert caught.value.message == (
            f"message of protocol version {found}, this limpet speaks 1"
        )
        assert caught.value.hint == "install the same limpet on both sides"


def test_the_id_is_read_from_a_message_that_is_wrong_otherwise() -> None:
    for raw in (
        header(id=7, type="nope"),
        header(id=7, v="1"),
        header(id=7, v=2),
        header(id=7, rate_hz=0, tensors=3),
        msgspec.msgpack.encode({"id": 7}),
        msgspec.msgpack.encode({"id": 7, "more": bytes(MAX_REQUEST_HEADER_BYTES)}),
    ):
        assert peek_id([raw, b"whatever"]) == 7


def test_where_no_id_is_to_be_read_it_is_zero() -> None:
    for wrong in (0, -1, 2**63, 2**64 - 1, 1.0, "7", None, True, [7]):
        assert peek_id([header(id=wrong)]) == 0
    for raw in (
        b"",
        b"\x07",
        b"\xc1",
        header(id=...),
        header(id=7)[:-1],
        b"\x82\xa2id\x07\xa1\xff",
    ):
        assert peek_id([raw]) == 0
    assert peek_id([]) == 0


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_random_bytes_are_a_message_or_a_wire_error(frames: list[bytes]) -> None:
    for reader in (decode_request, decode_reply, decode_published):
        with contextlib.suppress(WireError):
            reader(frames)
    assert peek_id(frames) >= 0


def test_every_truncation_of_a_golden_request_is_refused() -> None:
    for entry in GOLDEN:
        if wire_golden.TYPES[entry["header"]["type"]] not in get_args(Request):
            continue
        frames = [bytes.fromhex(frame) for frame in entry["frames"]]
        for number, frame in enumerate(frames):
            for length in range(len(frame)):
                with pytest.raises(WireError):
                    decode_request([*frames[:number], frame[:length], *frames[number + 1 :]])
        if len(frames) > 1:
            with pytest.raises(WireError, match=r"tensors, \d+ frames follow"):
                decode_request(frames[:-1])


def test_every_changed_byte_of_a_golden_message_gives_a_message_or_a_wire_error() -> None:
    refused = 0
    for entry in GOLDEN:
        type_ = wire_golden.TYPES[entry["header"]["type"]]
        raw, *tensors = [bytes.fromhex(frame) for frame in entry["frames"]]
        for position in range(len(raw)):
            for value in (0x00, 0x7F, 0x80, 0xC1, 0xDF, 0xFF, raw[position] ^ 1):
                changed = raw[:position] + bytes([value]) + raw[position + 1 :]
                try:
                    decode(type_, [changed, *tensors])
                except WireError:
                    refused += 1
    assert refused > 1000
