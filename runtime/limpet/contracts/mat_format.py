"""The bytes of a MATLAB file of version 5 to 7: its variables, and the numbers in them.

Read here, not by SciPy: its reader crashes the interpreter on damaged bytes (in SciPy 1.17.1 one
flipped bit in the type of an array's numbers is enough), and a robot needs one dependency less.

Source: MathWorks, "MAT-File Format", chapter "Level 5 MAT-File Format".

Layout: a header of 128 bytes, then elements. An element is a tag (type, number of bytes; four
bytes or fewer fit into the tag itself) and its data, padded to eight bytes inside a matrix. A
matrix is the elements flags, dimensions, name, real part and, where complex, imaginary part.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER_BYTES = 128
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_TAG_BYTES = 8
_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6

# Type of an element: NumPy's type of its numbers.
_STORED = {
    _INT8: "i1", 2: "u1", 3: "i2", 4: "u2", _INT32: "i4", _UINT32: "u4", 7: "f4", 9: "f8",
    12: "i8", 13: "u8",
}  # fmt: skip
# Class of a matrix: its name in MATLAB.
_CLASSES = {
    1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 6: "double", 7: "single",
    8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32", 14: "int64",
    15: "uint64", 16: "function", 17: "opaque",
}  # fmt: skip
_NUMERIC_CLASSES = range(6, 16)
_SHAPELESS_CLASSES = (16, 17)
_COMPLEX = 0x08
_MOST_DIMENSIONS = 32


class MatFormatError(ValueError):
    """Bytes that are no MATLAB file of version 5 to 7; the message says where and why."""


@dataclass(frozen=True, eq=False)
class MatVariable:
    """A variable of a file.

    Attributes:
        name: Its name.
        shape: MATLAB's dimensions, two or more; empty for what has none.
        kind: MATLAB's class, `complex` for complex numbers.
        dtype: Type of real numbers as they are stored, which may be smaller than the class.
        data: Their bytes, first dimension fastest.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    dtype: np.dtype[Any] | None = None
    data: memoryview | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_numeric(self) -> bool:
        """Whether it holds real numbers."""
        return self.data is not None

    @property
    def array(self) -> NDArray[Any]:
        """The numbers of a numeric variable, in its shape."""
        assert self.data is not None, f"{self} is not numeric"
        return np.frombuffer(self.data, self.dtype).reshape(self.shape, order="F")

    def __str__(self) -> str:
        return f"{self.name} {self.kind} {list(self.shape)}"


@dataclass(frozen=True)
class _Element:
    type: int
    data: memoryview


def read_variables(content: bytes) -> list[MatVariable]:
    """Reads a whole file.

    Raises:
        MatFormatError: It is damaged, or of another version.
        zlib.error: A compressed variable is damaged.
    """
    if len(content) < _HEADER_BYTES or content[126:128] not in (b"IM", b"MI"):
        raise MatFormatError("no header of a MATLAB file of version 5 to 7")
    order = "<" if content[126:128] == b"IM" else ">"
    (version,) = struct.unpack_from(f"{order}H", content, 124)
    if version != 0x0100:
        raise MatFormatError(f"version 0x{version:04x} in the header, wanted 0x0100")
    variables = []
    for element in _elements(memoryview(content)[_HEADER_BYTES:], order, padded=False):
        if element.type == _COMPRESSED:
            element = _inflate(element.data, order)
        if element.type != _MATRIX:
            raise MatFormatError(f"element of type {element.type}, wanted a matrix")
        variable = _read_matrix(element.data, order)
        if variable.name:  # MATLAB keeps data of its own in a matrix without a name
            variables.append(variable)
    return variables


def is_version_4(content: bytes) -> bool:
    """Whether it begins as a file of version 4: type, rows, columns, complex or not, name."""
    if len(content) < 20 or content[126:128] in (b"IM", b"MI"):
        return False
    headers = (struct.unpack_from(f"{order}5i", content) for order in "<>")
    return any(
        0 <= kind < 5000 and kind // 100 % 10 == 0 and rows >= 0 and columns >= 0
        and has_imaginary in (0, 1) and 1 < name_bytes <= 64
        for kind, rows, columns, has_imaginary, name_bytes in headers
    )  # fmt: skip


def _elements(data: memoryview, order: str, *, padded: bool) -> Iterator[_Element]:
    position = 0
    while position < len(data):
        if len(data) - position < _TAG_BYTES:
            raise MatFormatError(f"{len(data) - position} bytes where a tag needs {_TAG_BYTES}")
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start = position + _TAG_BYTES
        if kind >> 16:  # size and type share the first word, the data is the second
            kind, size, start = kind & 0xFFFF, kind >> 16, position + _TAG_BYTES // 2
            if size > _TAG_BYTES // 2:
                raise MatFormatError(f"small element of {size} bytes")
            position += _TAG_BYTES
        else:
            position = start + size + (-size % 8 if padded else 0)
        if start + size > len(data):
            raise MatFormatError(f"element needs {size} bytes, found {len(data) - start}")
        yield _Element(kind, data[start : start + size])


def _inflate(data: memoryview, order: str) -> _Element:
    """The one element inside a compressed one; no more memory than its tag promises."""
    stream = zlib.decompressobj()
    tag = stream.decompress(data, _TAG_BYTES)
    if len(tag) < _TAG_BYTES:
        raise MatFormatError("compressed element without a tag")
    kind, size = struct.unpack(f"{order}II", tag)
    inside = stream.decompress(stream.unconsumed_tail, size) if size else b""
    beyond = stream.decompress(stream.unconsumed_tail, 1)  # reaches the checksum
    if len(inside) != size or beyond or not stream.eof:
        raise MatFormatError(f"compressed element promises {size} bytes and has another number")
    return _Element(kind, memoryview(inside))


def _read_matrix(data: memoryview, order: str) -> MatVariable:
    parts = _elements(data, order, padded=True)
    flags = _numbers(next(parts, None), _UINT32, order)
    if len(flags) != 2:
        raise MatFormatError("matrix without flags")
    number, is_complex = int(flags[0]) & 0xFF, bool(int(flags[0]) >> 8 & _COMPLEX)
    kind = _CLASSES.get(number)
    if kind is None:
        raise MatFormatError(f"matrix of class {number}, which MATLAB does not have")
    if number in _SHAPELESS_CLASSES:
        return MatVariable(_text(next(parts, None)), (), kind)
    shape = tuple(_numbers(next(parts, None), _INT32, order).tolist())
    if not 2 <= len(shape) <= _MOST_DIMENSIONS or min(shape) < 0:
        raise MatFormatError(f"matrix with dimensions {list(shape)[:_MOST_DIMENSIONS]}")
    name = _text(next(parts, None))
    if number not in _NUMERIC_CLASSES or is_complex:
        return MatVariable(name, shape, "complex" if is_complex else kind)
    real = next(parts, None)
    if real is None or real.type not in _STORED:
        raise MatFormatError(f"{name!r} has no numbers")
    dtype = np.dtype(order + _STORED[real.type])
    wanted = math.prod(shape) * dtype.itemsize
    if len(real.data) != wanted:
        raise MatFormatError(f"{name!r} {list(shape)} needs {wanted} bytes, has {len(real.data)}")
    return MatVariable(name, shape, kind, dtype, real.data)


def _numbers(element: _Element | None, wanted: int, order: str) -> NDArray[Any]:
    if element is None or element.type != wanted:
        raise MatFormatError("matrix without flags or dimensions")
    return np.frombuffer(element.data, order + _STORED[wanted])


def _text(element: _Element | None) -> str:
    if element is None or element.type != _INT8:
        raise MatFormatError("matrix without a name")
    name = bytes(element.data).decode("ascii")
    if name and not name.isidentifier():
        raise MatFormatError(f"{name[:80]!r} is no name of a variable")
    return name
