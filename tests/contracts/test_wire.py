"""The bytes of messages: golden ones, and random ones there and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, given, settings

from limpet.contracts import messages
from limpet.contracts.errors import WireError
from limpet.contracts.message_base import Message, TensorMessage
from limpet.contracts.tensors import DTYPES, Array
from limpet.contracts.wire import decode_request, encode, peek_id
from tests.contracts import wire_golden
from tests.contracts.wire_examples import some_array, some_message
from tests.contracts.wire_headers import VALUES, decode, header

GOLDEN = wire_golden.entries()
each_golden = pytest.mark.parametrize("entry", GOLDEN, ids=lambda entry: entry["name"])

LETTERS = dict(zip(DTYPES, "dfeqihbQIHB?", strict=True))
"""How `struct` calls the element types, so that NumPy need not vouch for itself."""


def assert_same(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """Same names, order, element types, shapes and bits."""
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


# Golden bytes ------------------------------------------------------------------------------------


def read_msgpack(data: bytes) -> Any:
    """Reads what messages are made of, after the specification of msgpack alone."""
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        position += count
        assert position <= len(data)
        return data[position - count : position]

    def number(letter: str) -> Any:
        return struct.unpack(f">{letter}", take(struct.calcsize(letter)))[0]

    def value() -> Any:
        code = number("B")
        if code < 0x80:
            return code
        if code < 0x90:
            return {value(): value() for _ in range(code & 0x0F)}
        if code < 0xA0:
            return [value() for _ in range(code & 0x0F)]
        if code < 0xC0:
            return take(code & 0x1F).decode()
        if code >= 0xE0:
            return code - 0x100
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if code in (0xD9, 0xDA, 0xDB):
            return take(number("BHI"[code - 0xD9])).decode()
        if code in (0xDC, 0xDD):
            return [value() for _ in range(number("HI"[code - 0xDC]))]
        if code in (0xDE, 0xDF):
            return {value(): value() for _ in range(number("HI"[code - 0xDE]))}
        return number(dict(zip(range(0xCA, 0xD4), "fdBHIQbhiq", strict=True))[code])

    found = value()
    assert position == len(data), "nothing may follow"
    return found


def test_every_message_type_and_every_element_type_has_golden_bytes() -> None:
    assert {entry["header"]["type"] for entry in GOLDEN} == set(wire_golden.TYPES)
    tensors = [each for entry in GOLDEN for each in entry["header"].get("tensors", [])]
    assert {each["dtype"] for each in tensors} == set(DTYPES)


@each_golden
def test_a_message_is_written_as_its_golden_bytes(entry: wire_golden.Entry) -> None:
    assert wire_golden.frames_of(entry) == entry["frames"]


@each_golden
def test_golden_bytes_are_read_as_their_message(entry: wire_golden.Entry) -> None:
    expected = wire_golden.message_of(entry)
    frames = [bytes.fromhex(frame) for frame in entry["frames"]]
    message, tensors = decode(type(expected), frames)
    assert message == expected
    assert_same(tensors, wire_golden.tensors_of(entry))


@each_golden
def test_golden_bytes_hold_what_their_entry_says_without_msgspec_and_numpy(
    entry: wire_golden.Entry,
) -> None:
    raw, *frames = [bytes.fromhex(frame) for frame in entry["frames"]]
    found = read_msgpack(raw)
    assert found == entry["header"]
    assert list(found) == list(entry["header"]), "the order in which limpet writes the keys"
    described = found.get("tensors", [])
    for each, values, frame in zip(described, entry["tensors"], frames, strict=True):
        numbers = [float(value) if isinstance(value, str) else value for value in values]
        assert len(numbers) == math.prod(each["shape"])
        assert struct.pack(f"<{len(numbers)}{LETTERS[each['dtype']]}", *numbers) == frame


# There and back ----------------------------------------------------------------------------------


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(some_message())
def test_every_message_comes_back_from_its_bytes(
    example: tuple[Message, dict[str, Array]],
) -> None:
    message, tensors = example
    frames = [bytes(frame) for frame in encode(message, tensors)]
    found, arrays = decode(type(message), frames)
    assert found == message
    if isinstance(found, TensorMessage):
        assert [each.name for each in found.tensors] == list(tensors)
    assert_same(arrays, tensors)
    assert peek_id(frames) == getattr(message, "id", 0)


@given(some_array)
def test_an_array_of_any_memory_order_arrives_in_c_order_and_little_endian(array: Array) -> None:
    ping = messages.Infer(id=1, model="m")
    for turned in (array.T, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">"))):
        _, tensors = decode_request(encode(ping, {"x": turned}))
        assert_same(tensors, {"x": turned.astype(array.dtype, order="C")})


def test_arrays_that_are_in_order_are_sent_without_copies() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    _, frame = encode(messages.Infer(id=1, model="m"), {"x": array})
    assert np.shares_memory(np.frombuffer(frame, np.uint8), array)


@pytest.fixture
def pair() -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """Two connected sockets."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as two:
        one.bind("tcp://127.0.0.1:0")
        two.connect(one.getsockopt_string(zmq.LAST_ENDPOINT))
        yield one, two


def test_decoded_tensors_are_read_only_views_of_the_received_frames(
    pair: tuple[zmq.Socket[bytes], zmq.Socket[bytes]],
) -> None:
    sender, receiver = pair
    sender.send_multipart([header(), VALUES])
    frames = receiver.recv_multipart(copy=False)
    _, tensors = decode_request([frame.buffer for frame in frames])
    assert np.shares_memory(tensors["values"], np.frombuffer(frames[1].buffer, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        tensors["values"][0, 0] = 1.0


def test_a_tensor_without_elements_cannot_be_sent() -> None:
    with pytest.raises(WireError, match=r"tensor 'x' has shape \[3, 0\], wanted an element"):
        encode(messages.Infer(id=1, model="m"), {"x": np.empty((3, 0), np.float32)})


def test_the_tensors_of_a_message_that_is_sent_again_are_announced_anew() -> None:
    request = messages.Infer(id=1, model="m")
    encode(request, {"x": np.zeros(3, np.float32)})
    found, tensors = decode_request(encode(request, {"y": np.zeros((2, 2), np.int8)}))
    assert_same(tensors, {"y": np.zeros((2, 2), np.int8)})
    assert found == request
