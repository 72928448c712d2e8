"""Arrays from files that somebody else may have written."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from limpet.contracts.errors import DataError


def read_arrays(file: Path | str) -> dict[str, NDArray[Any]]:
    """All arrays of an npz by name.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not an npz that can be read: {error}") from error


def map_array(file: Path, name: str) -> NDArray[Any]:
    """One array of an npz that `np.savez` wrote, mapped into memory: only what is used is read.

    Raises:
        DataError: It cannot be read, lacks the array, or is compressed.
    """
    try:
        with zipfile.ZipFile(file) as archive, file.open("rb") as raw:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed")
            raw.seek(member.header_offset)
            # A local header is 30 bytes, whose last four tell the lengths of name and extra field.
            lengths = struct.unpack("<HH", raw.read(30)[-4:])
            raw.seek(sum(lengths), os.SEEK_CUR)
            npy_format.read_magic(raw)
            shape, fortran_order, dtype = npy_format.read_array_header_1_0(raw)
            if fortran_order or dtype.hasobject:
                raise ValueError(f"{name} is {dtype}, wanted plain numbers in C order")
            return np.memmap(file, dtype, "r", raw.tell(), shape)
    except (OSError, ValueError, KeyError, EOFError, struct.error, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not an npz that can be read: {error}") from error
