"""The messages as a whole, and `WIRE.md`, which must say of each what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from limpet.contracts import messages, stream_messages
from limpet.contracts.errors import Cause, RejectCode
from limpet.contracts.message_base import (
    MAX_RANK,
    MAX_TENSORS,
    VERSION,
    Message,
    TensorHeader,
    TensorMessage,
)
from limpet.contracts.messages import (
    MESSAGES,
    ChannelShare,
    LaneOffer,
    MemoryInfo,
    ModelInfo,
    Published,
    Reply,
    Request,
)
from limpet.contracts.signals import LAST_SCORED, RowState
from limpet.contracts.tensors import DTYPES, TensorSpec
from limpet.contracts.wire import MAX_REPLY_HEADER_BYTES, MAX_REQUEST_HEADER_BYTES
from limpet.runtime.config import ServerSection
from limpet.runtime.inference import FUTURE_NS
from limpet.runtime.io_loop import HANDSHAKE_S, MAX_SUBSCRIPTION_BYTES
from limpet.runtime.replies import MAX_REASON_CHARS
from limpet.runtime.stream import CREDITS, MAX_ROWS
from tests.contracts import wire_golden

WIRE = (Path(messages.__file__).parent / "WIRE.md").read_text(encoding="utf-8")
SMALLER_MAPS: tuple[type[msgspec.Struct], ...] = (
    TensorHeader,
    LaneOffer,
    ModelInfo,
    MemoryInfo,
    TensorSpec,
    ChannelShare,
)
_LIMITS = {2**63 - 1: "2^63-1", 2**62: "2^62", 2**31 - 1: "2^31-1"}


def tag(type_: type[msgspec.Struct]) -> str:
    return str(type_.__struct_config__.tag)


def section(title: str) -> str:
    """The text below a heading of WIRE.md, up to the next one."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", WIRE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"WIRE.md has no heading {title!r}"
    return found[1]


def table(title: str, *, number: int = 0) -> list[list[str]]:
    """The cells of a table below a heading, without its first two lines, text without backticks."""
    tables = re.findall(r"(?:^\|.*\n)+", section(title), re.MULTILINE)
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in tables[number].splitlines()[2:]
    ]


def describe(kind: inspect.Type) -> str:
    """A field's type as WIRE.md writes it."""

    def limits(low: Any, high: Any) -> str:
        return "" if high is None else f" {low or 0}..{_LIMITS.get(high, format(high, 'g'))}"

    if isinstance(kind, inspect.IntType):
        return "int" + limits(kind.ge, kind.le)
    if isinstance(kind, inspect.BoolType):
        return "bool"
    if isinstance(kind, inspect.FloatType):
        return "float" + (limits(f">{kind.gt:g}", kind.le) if kind.gt is not None else "")
    if isinstance(kind, inspect.StrType):
        return "str" + limits(kind.min_length, kind.max_length)
    if isinstance(kind, inspect.ListType):
        return f"[{describe(kind.item_type)}]" + limits(kind.min_length, kind.max_length)
    if isinstance(kind, inspect.TupleType):
        return f"[{', '.join(map(describe, kind.item_types))}]"
    if isinstance(kind, inspect.DictType):
        return f"{{{describe(kind.key_type)}: {describe(kind.value_type)}}}"
    if isinstance(kind, inspect.UnionType):
        return " or ".join(map(describe, kind.types))
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(f'"{value}"' for value in kind.values)
    if isinstance(kind, inspect.NoneType):
        return "nil"
    assert isinstance(kind, inspect.StructType), f"WIRE.md has no words for {kind}"
    return kind.cls.__name__


def described_fields(type_: type[msgspec.Struct]) -> list[tuple[str, str, str]]:
    """Name, type and default of each field as WIRE.md writes them; `v` stands in every message."""
    fields = inspect.type_info(type_)
    assert isinstance(fields, inspect.StructType)
    defaults = {None: "nil", "": '""'}

    def default(field: inspect.Field) -> str:
        if field.required:
            return ""
        if field.default is msgspec.NODEFAULT:  # an `UNSET` of msgspec has no factory either
            return "absent" if field.default_factory is msgspec.NODEFAULT else "[]"
        return defaults.get(field.default, str(field.default))

    return [
        (field.name, describe(field.type), default(field))
        for field in fields.fields
        if field.name != "v"
    ]


# The messages ------------------------------------------------------------------------------------


def test_every_message_is_a_request_a_reply_or_published_and_has_a_type_of_its_own() -> None:
    kinds = [get_args(Request), get_args(Reply), get_args(Published)]
    assert sum(map(len, kinds)) == len(set().union(*kinds)) == len(MESSAGES)
    assert len({tag(type_) for type_ in MESSAGES}) == len(MESSAGES)
    defined = {
        each
        for module in (messages, stream_messages)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Message)
    }
    assert defined - {Message, TensorMessage} == set(MESSAGES)


@pytest.mark.parametrize("type_", MESSAGES, ids=tag)
def test_a_message_says_its_type_and_version(type_: type[Message]) -> None:
    assert re.fullmatch("[a-z]+(_[a-z]+)*", tag(type_))
    config = type_.__struct_config__
    assert config.tag_field == "type"
    assert type_.__struct_fields__[0] == "v"
    assert type_.__struct_defaults__[-len(type_.__struct_fields__)] == VERSION


@pytest.mark.parametrize("type_", [*get_args(Request), *get_args(Reply)], ids=tag)
def test_requests_and_replies_carry_an_id(type_: type[Message]) -> None:
    assert "id" in type_.__struct_fields__


# WIRE.md -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", MESSAGES, ids=tag)
def test_the_specification_has_every_field_of_a_message(type_: type[Message]) -> None:
    rows = table(tag(type_))
    assert [tuple(row[:3]) for row in rows] == described_fields(type_)
    assert all(row[3] for row in rows), "each says what it means"


@pytest.mark.parametrize("type_", SMALLER_MAPS, ids=lambda type_: type_.__name__)
def test_the_specification_has_every_field_of_the_smaller_maps(
    type_: type[msgspec.Struct],
) -> None:
    rows = table("Tensors" if type_ is TensorHeader else type_.__name__)
    assert [tuple(row[:3]) for row in rows] == described_fields(type_)
    assert all(row[3] for row in rows)


def test_the_specification_describes_nothing_else() -> None:
    body = WIRE[WIRE.index("\n## Messages") : WIRE.index("\n## Versions")]
    expected = [tag(type_) for type_ in MESSAGES]
    expected += [type_.__name__ for type_ in SMALLER_MAPS if type_ is not TensorHeader]
    assert sorted(re.findall(r"^### (\w+)", body, re.MULTILINE)) == sorted(expected)


def test_the_specification_gives_each_request_its_replies() -> None:
    rows = table("Requests and replies")
    assert [row[0] for row in rows] == [tag(type_) for type_ in get_args(Request)]
    replies = [row[1] for row in rows]
    others = {reply for row in rows for reply in row[2].split(", ")}
    assert sorted([*replies, *others]) == sorted(tag(type_) for type_ in get_args(Reply))


def test_the_specification_lists_the_element_types() -> None:
    rows = table("Tensors", number=1)
    assert [(row[0], int(row[1])) for row in rows] == [
        (name, 1 if name == "bool" else int(re.sub(r"\D", "", name)) // 8) for name in DTYPES
    ]


def test_the_specification_lists_row_states_and_which_are_scored() -> None:
    assert [tuple(row[:3]) for row in table("Row states")] == [
        (str(state.value), state.name, "yes" if state <= LAST_SCORED else "no")
        for state in RowState
    ]


def test_the_specification_lists_every_reject_code_and_what_to_do() -> None:
    rows = table("Rejections")
    assert [row[0] for row in rows] == list(get_args(RejectCode))
    assert all(row[1] and row[2] for row in rows)


def test_the_specification_lists_every_cause_and_what_to_do() -> None:
    rows = table("Causes")
    assert [row[0] for row in rows] == list(get_args(Cause))
    assert all(row[1] and row[2] for row in rows)


def test_the_specification_gives_the_limits_that_hold() -> None:
    limits = {row[0]: re.sub(r"\D*(\d+).*", r"\1", row[1]) for row in table("Limits")}
    assert {name: int(value) for name, value in limits.items()} == {
        "tensors in a message": MAX_TENSORS,
        "axes of a tensor": MAX_RANK,
        "header of a request": MAX_REQUEST_HEADER_BYTES,
        "header of a reply": MAX_REPLY_HEADER_BYTES,
        "one frame": ServerSection().max_message_mb,
        "unanswered samples of a stream": CREDITS,
        "rows of one samples": MAX_ROWS,
        "alerts in a page": 100,
        "what a subscriber sends at once": MAX_SUBSCRIPTION_BYTES,
        "handshake of a new connection": HANDSHAKE_S,
    }
    assert f"at most {MAX_REASON_CHARS} characters" in section("rejected")
    assert f"More than {FUTURE_NS // 1_000_000} ms in the future" in section("infer")
    assert f"# The wire, version {VERSION}\n" in WIRE
    assert f"This is version {VERSION}." in section("Versions")


def test_the_worked_bytes_are_golden_ones() -> None:
    dumps = re.findall(r"^```bytes\n(.*?)^```", WIRE, re.DOTALL | re.MULTILINE)
    worked = [e["frames"] for e in wire_golden.entries() if e["name"].endswith("worked example")]
    assert len(worked) == len(dumps) == 2
    for dump, frames in zip(dumps, worked, strict=True):
        written = [
            "".join(re.findall(r"^(?: *[0-9a-f]{2}\b)+", frame, re.MULTILINE))
            for frame in dump.split("-- frame\n")
        ]
        assert [frame.replace(" ", "") for frame in written] == frames


def test_the_links_of_the_specification_lead_to_its_headings() -> None:
    headings = re.findall(r"^##+ (.+)$", WIRE, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", WIRE))
    assert links - anchors == set()
