"""Tensor specifications: what a model takes and gives, checked at every edge.

A dimension is a fixed size (int) or a named dynamic axis (str). An axis of one name has
one size throughout a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import TensorError

Array = NDArray[Any]
Tensors = Mapping[str, Array]

DTYPES = (
    "float64", "float32", "float16",
    "int64", "int32", "int16", "int8",
    "uint64", "uint32", "uint16", "uint8", "bool",
)  # fmt: skip
"""Element types that may cross the wire or enter a model, by their NumPy names."""


_NAMES = {np.dtype(name): name for name in DTYPES}


def dtype_name(dtype: np.dtype[Any]) -> str:
    """NumPy's name of a dtype. A look-up: `dtype.name` computes it anew, which takes 3 µs."""
    return _NAMES.get(dtype) or str(dtype.name)


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output tensor of a model.

    Attributes:
        name: Name in the ONNX graph and on the wire.
        dtype: One of `DTYPES`.
        shape: Sizes; a string names a dynamic axis (`batch`).
        unit: Physical unit, empty for none (`m`, `rad/s`, `1` for dimensionless).
        frame: Coordinate frame the values are in, empty where none applies.
        range: Smallest and largest meaningful value; None where unbounded.
    """

    name: str
    dtype: str
    shape: list[int | str]
    unit: str = ""
    frame: str = ""
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise TensorError(
                f"tensor {self.name!r}: dtype {self.dtype!r} is not one of {', '.join(DTYPES)}"
            )
        for axis, size in enumerate(self.shape):
            if isinstance(size, int) and size < 1:
                raise TensorError(f"tensor {self.name!r}: axis {axis} has size {size}, wanted >= 1")

    def describe(self) -> str:
        """`rows float32 [batch, 64, 8]`, for messages."""
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"


def check_tensors(specs: Sequence[TensorSpec], tensors: Tensors, what: str) -> dict[str, int]:
    """Checks that `tensors` are exactly those that `specs` describe.

    Args:
        specs: What is wanted.
        tensors: What was found, by name.
        what: Where they come from, for the message (`request`, `golden.npz inputs`).

    Returns:
        The size of each named dynamic axis.

    Raises:
        TensorError: A tensor is missing, unknown, or of another dtype or shape.
    """
    axes: dict[str, int] = {}
    for spec in specs:
        array = tensors.get(spec.name)
        if array is None:
            raise TensorError(
                f"{what}: tensor {spec.name!r} is missing, found {sorted(tensors) or 'none'}",
                f"wanted: {'; '.join(s.describe() for s in specs)}",
            )
        if dtype_name(array.dtype) != spec.dtype:
            raise TensorError(
                f"{what}: tensor {spec.name!r} is {dtype_name(array.dtype)}, wanted {spec.dtype}"
            )
        if not _fits(spec.shape, array.shape, axes):
            raise TensorError(
                f"{what}: tensor {spec.name!r} has shape {list(array.shape)}, "
                f"wanted [{', '.join(map(str, spec.shape))}]" + (f" with {axes}" if axes else "")
            )
    if len(tensors) != len(specs):
        unknown = sorted(set(tensors) - {spec.name for spec in specs})
        raise TensorError(
            f"{what}: unknown tensor {', '.join(map(repr, unknown))}",
            f"wanted: {'; '.join(s.describe() for s in specs)}",
        )
    return axes


def _fits(wanted: Sequence[int | str], found: Sequence[int], axes: dict[str, int]) -> bool:
    """Whether sizes are those wanted; notes those of named axes. A loop: `all` takes twice as long,
    a strict `zip` half as long again.
    """
    if len(found) != len(wanted):
        return False
    for axis, got in enumerate(found):
        want = wanted[axis]
        if (axes.setdefault(want, got) if isinstance(want, str) else want) != got:
            return False
    return True


def little_endian_contiguous(array: Array) -> Array:
    """The array as C-order little-endian memory, copied only where it is not already."""
    if array.dtype.str[0] == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array)
