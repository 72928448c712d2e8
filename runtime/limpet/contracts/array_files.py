"""Reading `.npy` and `.npz` files into columns. Nothing is unpickled.

Dimension legend: s segments, n rows (of a segment where there are some), c channels.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.contracts.recording_columns import (
    LABEL_NAMES,
    NEVER_CHANNELS,
    RATE_NAMES,
    RecordedColumns,
    array_to_columns,
    check_known,
    check_rate,
    join_arrays,
    labels_fit,
    split_key,
    unique_names,
)

Array = NDArray[Any]

NAMES_KEY = "channels"
"""Key of an npz that names the channels."""

DAMAGE = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError,
    RuntimeError, SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy, zipfile and zlib raise on damaged, encrypted or truncated bytes."""


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and element type of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def is_numeric(self) -> bool:
        """Whether the elements are real numbers or booleans."""
        return self.dtype.kind in "biuf"

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def read_npy(
    path: Path, *, ignore: Collection[str] = (), label: str | None = None
) -> RecordedColumns:
    """Reads an array (n,), (n, c) or (s, n, c); its channels are `c0`, `c1`, ….

    Args:
        path: The file.
        ignore: Channels to leave out.
        label: Channel that holds the labels.

    Raises:
        DataError: It is damaged, or holds anything but numbers in one of these shapes.
    """
    with undamaged(path), path.open("rb") as file:
        array = _read_array(path, "the array", file, path.stat().st_size)
    _check_signal(path, "the array", ArrayHeader(array.shape, array.dtype))
    names = [f"c{index}" for index in range(_width(array))]
    check_known(path, "--label", [] if label is None else [label], names)
    return array_to_columns(path, array, names, ignore, label)


def read_npz(
    path: Path, *, key: str | None = None, ignore: Collection[str] = (), label: str | None = None
) -> RecordedColumns:
    """Reads one array (n,), (n, c) or (s, n, c), and its labels, rate and channel names.

    Args:
        path: The file.
        key: The array, or several of one or two dimensions and equal length, separated by
            commas; one of one dimension, and all of several, give the channels their names. By
            default the only numeric one of one or two dimensions; where that holds one number a
            segment of the only one of three, the latter.
        ignore: Channels to leave out.
        label: Key or channel that holds the labels; by default a key of `LABEL_NAMES` with one
            label a row (or one a segment).

    Raises:
        DataError: It is damaged, the array cannot be chosen, or it holds anything but numbers.
    """
    with undamaged(path), zipfile.ZipFile(path) as archive:
        headers = dict(_read_headers(archive))
        chosen = _choose(path, headers, key, label)
        for name in chosen:
            _check_signal(path, repr(name), headers[name])
        arrays = {name: _read_member(path, archive, name) for name in chosen}
        names: tuple[str, ...]
        first = arrays[chosen[0]]
        is_named = key is not None and first.ndim == 1 and NAMES_KEY not in headers
        if len(arrays) > 1 or is_named:
            array, names = join_arrays(path, arrays)
            warnings: tuple[str, ...] = ()
        else:
            array = first
            names, warnings = _names(path, archive, headers, _width(array))
        label_key = _find_label_key(path, headers, chosen, array.shape, names, label)
        labels = _read_member(path, archive, label_key) if label_key else None
        rates = [k for k in headers if k not in chosen and _is_rate(k, headers[k])]
        rate_key = min(rates, key=lambda name: RATE_NAMES.index(name.lower()), default=None)
        rate = _read_member(path, archive, rate_key).item() if rate_key else math.nan
    rate_hz, rate_warnings = check_rate(rate_key, float(rate)) if rate_key else (None, ())
    warnings = (*warnings, *rate_warnings)
    by_name = [k for k in _of_three_dimensions(headers) if k not in chosen]
    if key is None and by_name:
        others = ", ".join(f"--key {k} for {headers[k]}" for k in by_name)
        warnings = (*warnings, f"taking {chosen[0]!r} {headers[chosen[0]]}; say {others}")
    per_segment = [
        f"{k} (one number a segment)"
        for k, header in headers.items()
        if array.ndim == 3 and header.shape == array.shape[:1] and k != label_key
    ]
    return array_to_columns(
        path,
        array,
        names,
        ignore,
        None if label_key else label,
        labels=labels,
        label_key=label_key or "",
        rate_hz=rate_hz,
        left_out=tuple(per_segment),
        warnings=warnings,
    )


def _choose(
    path: Path, headers: Mapping[str, ArrayHeader], key: str | None, label: str | None
) -> list[str]:
    if key is not None:
        chosen = split_key(key, headers)
        unknown = next((name for name in chosen if name not in headers), None)
        if unknown is not None:
            raise _no_choice(path, f"has no array {unknown!r}", headers)
        return chosen
    candidates = [
        name
        for name, header in headers.items()
        if header.is_numeric
        and len(header.shape) in (1, 2)
        and name.lower() not in NEVER_CHANNELS
        and name != label
        and not _is_rate(name, header)
    ]
    if len(candidates) != 1:
        count = len(candidates) or "no"
        raise _no_choice(path, f"has {count} numeric arrays of one or two dimensions", headers)
    segmented = _of_three_dimensions(headers)
    if len(segmented) == 1 and headers[candidates[0]].shape == headers[segmented[0]].shape[:1]:
        return segmented  # one number a segment describes the segments, and is no recording
    return candidates


def _of_three_dimensions(headers: Mapping[str, ArrayHeader]) -> list[str]:
    return [name for name, h in headers.items() if h.is_numeric and len(h.shape) == 3]


def _check_signal(path: Path, what: str, header: ArrayHeader) -> None:
    if not header.is_numeric or len(header.shape) not in (1, 2, 3) or 0 in header.shape:
        raise DataError(
            f"{path}: {what} is {header}, "
            "wanted numbers [rows], [rows, channels] or [segments, rows, channels]"
        )


def _no_choice(path: Path, found: str, headers: Mapping[str, ArrayHeader]) -> DataError:
    listed = "; ".join(f"{name} {header}" for name, header in headers.items()) or "none"
    return DataError(f"{path} {found}", f"say --key NAME; arrays: {listed}")


def _names(
    path: Path, archive: zipfile.ZipFile, headers: Mapping[str, ArrayHeader], width: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the channels, and warnings."""
    numbered = tuple(f"c{index}" for index in range(width))
    header = headers.get(NAMES_KEY)
    if header is None or header.dtype.kind != "U":
        return numbered, ()
    if header.shape != (width,):
        found = f"{NAMES_KEY!r} is {header}, wanted [{width}]"
        return numbered, (f"{found}: channels are numbered instead",)
    return unique_names(_read_member(path, archive, NAMES_KEY).tolist())


def _find_label_key(
    path: Path,
    headers: Mapping[str, ArrayHeader],
    chosen: Collection[str],
    shape: tuple[int, ...],
    channels: Sequence[str],
    label: str | None,
) -> str | None:
    """The key with the labels; None where there is none, or where a channel holds them."""
    if label is not None:
        if label in headers and label not in chosen:
            if not (headers[label].is_numeric and labels_fit(headers[label].shape, shape)):
                raise DataError(
                    f"{path}: --label {label} is {headers[label]}, "
                    f"wanted one number a row of {', '.join(map(repr, chosen))} {list(shape)}"
                )
            return label
        check_known(path, "--label", [label], [*headers, *channels], "keys and channels")
        return None
    for wanted in LABEL_NAMES:
        for name, header in headers.items():
            fits = header.is_numeric and labels_fit(header.shape, shape)
            if name.lower() == wanted and name not in chosen and fits:
                return name
    return None


def _width(array: Array) -> int:
    return 1 if array.ndim == 1 else array.shape[-1]


def _is_rate(name: str, header: ArrayHeader) -> bool:
    is_number = header.is_numeric and math.prod(header.shape) == 1
    return is_number and name.lower() in RATE_NAMES


def _read_headers(archive: zipfile.ZipFile) -> Iterator[tuple[str, ArrayHeader]]:
    for member in archive.namelist():
        if member.endswith(".npy"):
            with archive.open(member) as file:
                yield member.removesuffix(".npy"), _read_header(file)


def _read_member(path: Path, archive: zipfile.ZipFile, key: str) -> Array:
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as file:
        return _read_array(path, repr(key), file, info.file_size)


def _read_header(file: IO[bytes]) -> ArrayHeader:
    if npy_format.read_magic(file) == (1, 0):
        shape, _, dtype = npy_format.read_array_header_1_0(file)
    else:  # 3.0 differs from 2.0 in the encoding of field names, which no recording has
        shape, _, dtype = npy_format.read_array_header_2_0(file)
    return ArrayHeader(shape, dtype)


def _read_array(path: Path, what: str, file: IO[bytes], size: int) -> Array:
    """Reads an array of numbers or of text; `size` is the file's, in bytes."""
    header = _read_header(file)
    if header.dtype.kind != "U" and not header.is_numeric:
        raise DataError(f"{path}: {what} is {header}, wanted real numbers")
    found, wanted = size - file.tell(), math.prod(header.shape) * header.dtype.itemsize
    if found != wanted:  # before memory is taken for it
        raise ValueError(f"{what} {header} needs {wanted} bytes, found {found}")
    file.seek(0)
    array: Array = npy_format.read_array(file, allow_pickle=False)
    file.read(1)  # at the end of a zip member, its checksum is compared
    return array


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Turns what damaged bytes raise into a `DataError`."""
    try:
        yield
    except DAMAGE as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: {error.strerror}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} is no whole {path.suffix} file: {reason}", "write or copy it anew"
        ) from error
