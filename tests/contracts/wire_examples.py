"""Random messages of every type, drawn from the types themselves."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec import inspect

from limpet.contracts.message_base import MAX_RANK, MAX_TENSORS, Message, TensorMessage
from limpet.contracts.messages import MESSAGES
from limpet.contracts.tensors import DTYPES, Array, TensorSpec

_INT64 = 2**63 - 1


def _values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a field's type, within its limits."""
    if isinstance(kind, inspect.IntType):
        low = -_INT64 if kind.ge is None else kind.ge
        return st.integers(low, _INT64 if kind.le is None else kind.le)
    if isinstance(kind, inspect.BoolType):
        return st.booleans()
    if isinstance(kind, inspect.FloatType):
        return st.floats(
            kind.ge if kind.gt is None else kind.gt,
            kind.le,
            allow_nan=False,
            exclude_min=kind.gt is not None,
        )
    if isinstance(kind, inspect.StrType):
        return st.text(min_size=kind.min_length or 0, max_size=min(kind.max_length or 20, 128))
    if isinstance(kind, inspect.ListType):
        return st.lists(
            _values(kind.item_type), min_size=kind.min_length or 0, max_size=kind.max_length or 3
        )
    if isinstance(kind, inspect.DictType):
        return st.dictionaries(_values(kind.key_type), _values(kind.value_type), max_size=3)
    if isinstance(kind, inspect.LiteralType):
        return st.sampled_from(kind.values)
    if isinstance(kind, inspect.UnionType):
        return st.one_of([_values(each) for each in kind.types])
    if isinstance(kind, inspect.NoneType):
        return st.none()
    if isinstance(kind, inspect.StructType):
        return _specs if kind.cls is TensorSpec else structs(kind.cls)
    raise NotImplementedError(f"messages have had no field of type {kind} yet")


def structs(type_: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Instances of a struct; a message's tensors are left to `wire.encode`."""
    fields = inspect.type_info(type_)
    assert isinstance(fields, inspect.StructType)
    return st.builds(
        type_,
        **{
            field.name: _values(field.type)
            for field in fields.fields
            if field.name not in ("v", "tensors")
        },
    )


_specs = st.builds(
    TensorSpec,
    name=st.text(max_size=9),
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.one_of(st.integers(1, _INT64), st.text(max_size=9)), max_size=3),
    unit=st.text(max_size=9),
    frame=st.text(max_size=9),
    range=st.none() | st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
)

some_array: st.SearchStrategy[Array] = arrays.arrays(
    st.sampled_from(DTYPES), arrays.array_shapes(min_dims=0, max_dims=MAX_RANK, max_side=3)
)
"""Of any element type that may cross the wire, with any bits in it."""

some_tensors = st.dictionaries(st.text(min_size=1, max_size=128), some_array, max_size=MAX_TENSORS)


@st.composite
def some_message(
    draw: st.DrawFn, types: tuple[type[Message], ...] = MESSAGES
) -> tuple[Message, dict[str, Array]]:
    """A message, and tensors where it may carry some."""
    type_ = draw(st.sampled_from(types))
    message: Message = draw(structs(type_))
    carries = isinstance(message, TensorMessage)
    return message, draw(some_tensors) if carries else {}
