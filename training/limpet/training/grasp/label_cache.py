"""Grasp and collision labels, unpacked once into arrays that are mapped into memory.

GraspNet-1Billion packs the labels of one object into 600 MB of compressed float32. What is used of
them is the friction coefficient in tenths, one byte, and the width, two; a scene's collisions are
one bit a candidate. The files of the data set are read in pieces of a few points, so that nothing
of that size is ever in memory, and what a training step reads is some hundred points.

Dimension legend: P grasp points of an object, V = 300 approach views, A = 12 angles, D = 4 depths.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.contracts.grasp_frames import ANGLES, ANGLES_RAD, DEPTHS, DEPTHS_M, VIEWS

LATTICE = (VIEWS, ANGLES, DEPTHS)
"""Approach views, in-plane angles and depths of a point's candidates."""

CANDIDATES = VIEWS * ANGLES * DEPTHS
"""Candidates of a grasp point."""

_ROWS_AT_ONCE = 32
_LATTICE_TOLERANCE = 1e-3  # radians and metres; labels are float32 or float16


class PackedArray:
    """One array of an npz that is read row by row, in order, without holding it whole.

    Args:
        stream: The array's bytes, as `npy`.
        where: For error messages.

    Attributes:
        shape: Of the whole array.
        dtype: As stored.
    """

    def __init__(self, stream: IO[bytes], where: str) -> None:
        self._stream, self._where = stream, where
        version = npy_format.read_magic(stream)
        read = (
            npy_format.read_array_header_1_0
            if version == (1, 0)
            else npy_format.read_array_header_2_0
        )
        self.shape, fortran_order, self.dtype = read(stream)
        if self.dtype.hasobject:
            raise DataError(f"{where} holds Python objects, wanted numbers")
        if fortran_order and len(self.shape) > 1:
            raise DataError(f"{where} is in Fortran order", "save it in C order: np.savez")

    def take(self, rows: int) -> NDArray[Any]:
        """The next rows, as the array has them. (rows, *shape[1:])

        Raises:
            DataError: The file ends before them.
        """
        count = rows * int(np.prod(self.shape[1:], dtype=np.int64))
        data = self._stream.read(count * self.dtype.itemsize)
        if len(data) != count * self.dtype.itemsize:
            raise DataError(f"{self._where} ends early", "fetch the file again")
        return np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])


@contextmanager
def packed_arrays(file: Path, names: tuple[str, ...] = ()) -> Iterator[dict[str, PackedArray]]:
    """The arrays of an npz, to be read in pieces.

    Args:
        file: The npz.
        names: Arrays that it must have.

    Raises:
        DataError: It cannot be read, or lacks one of `names`.
    """
    streams = []
    try:
        with zipfile.ZipFile(file) as archive:
            found = {
                member.removesuffix(".npy")
                for member in archive.namelist()
                if member.endswith(".npy")
            }
            missing = sorted(set(names) - found)
            if missing:
                raise DataError(
                    f"{file} has no {', '.join(missing)}; arrays: {', '.join(sorted(found))}",
                    "wanted labels as GraspNet-1Billion has them",
                )
            arrays = {}
            for name in sorted(found):
                streams.append(archive.open(f"{name}.npy"))
                arrays[name] = PackedArray(streams[-1], f"{file}, array {name}")
            yield arrays
    except (
        OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise DataError(f"{file}: not an npz that can be read: {error}") from error
    finally:
        for stream in streams:
            stream.close()


def stamped(folder: Path, source: Path, name: str) -> Path:
    """Where a cache of `source` lies: another size or time of the source is another file.

    Raises:
        DataError: The source does not exist.
    """
    try:
        status = source.stat()
    except OSError as error:
        raise DataError(f"{source} does not exist: {error.strerror}") from error
    return (
        folder
        / f"{source.parent.name}-{source.stem}-{status.st_size}-{status.st_mtime_ns}-{name}.npy"
    )


@contextmanager
def written_whole(
    path: Path, dtype: type[np.generic], shape: tuple[int, ...]
) -> Iterator[NDArray[Any]]:
    """A new npy that appears under its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        array = npy_format.open_memmap(scratch, mode="w+", dtype=dtype, shape=shape)
        yield array
        array.flush()
        del array
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def object_arrays(
    file: Path, folder: Path
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float16]]:
    """Points, friction and width of an object's grasp labels, from the cache or into it.

    Args:
        file: `grasp_label/000_labels.npz`: `points` (P, 3), `offsets` (P, V, A, D, 3) of angle,
            depth and width, `scores` (P, V, A, D), and where it has it `collision` (P, V, A, D),
            the gripper against the object itself.
        folder: Of the cache.

    Returns:
        points [m, object frame] (P, 3); friction [tenths, 0 = none or collision] (P, V, A, D);
        width [m] (P, V, A, D). The last two are mapped.

    Raises:
        DataError: The file is damaged or has other arrays.
    """
    places = [stamped(folder, file, name) for name in ("points", "friction", "width")]
    if not all(place.exists() for place in places):
        _unpack_object(file, places)
    points, friction, width = (np.load(place, mmap_mode="r") for place in places)
    return np.asarray(points), friction, width


def _unpack_object(file: Path, places: list[Path]) -> None:
    with packed_arrays(file, ("points", "offsets", "scores")) as arrays:
        points, offsets, scores = (arrays[name] for name in ("points", "offsets", "scores"))
        collision = arrays.get("collision")
        count = points.shape[0] if points.shape else 0
        wanted = {"points": (count, 3), "offsets": (count, *LATTICE, 3)}
        wanted |= {"scores": (count, *LATTICE), "collision": (count, *LATTICE)}
        for name, shape in wanted.items():
            if name in arrays and arrays[name].shape != shape:
                raise DataError(
                    f"{file}: {name} is {arrays[name].shape}, wanted {shape}",
                    "300 approach views, 12 angles and 4 depths a point",
                )
        with (
            written_whole(places[1], np.uint8, (count, *LATTICE)) as friction,
            written_whole(places[2], np.float16, (count, *LATTICE)) as width,
        ):
            for start in range(0, count, _ROWS_AT_ONCE):
                rows = min(_ROWS_AT_ONCE, count - start)
                here = slice(start, start + rows)
                score, offset = scores.take(rows), offsets.take(rows)
                holds = score > 0
                _check_lattice(file, offset, holds)
                if collision is not None:
                    holds &= collision.take(rows) == 0
                friction[here] = np.where(holds, np.rint(score * np.float32(10)), 0)
                width[here] = offset[..., 2]
        with written_whole(places[0], np.float32, (count, 3)) as target:
            target[:] = points.take(count)


def _check_lattice(file: Path, offset: NDArray[Any], holds: NDArray[np.bool_]) -> None:
    """Angles and depths are not kept: they follow from their place. Checks that they do."""
    for axis, name, wanted in ((0, "an angle", ANGLES_RAD[:, None]), (1, "a depth", DEPTHS_M)):
        off = np.where(holds, np.abs(offset[..., axis] - wanted), 0)  # (rows, V, A, D)
        if off.max(initial=0) > _LATTICE_TOLERANCE:
            raise DataError(
                f"{file}: {name} is {off.max():.3g} off the lattice",
                "wanted angles of k·15° and depths of 1, 2, 3 and 4 cm in order",
            )


def collision_bits(file: Path, folder: Path, counts: list[int]) -> list[NDArray[np.uint8]]:
    """Collisions of a scene's objects, eight candidates a byte, from the cache or into it.

    Args:
        file: `collision_label/scene_0000/collision_labels.npz`: `arr_0` … one (P, V, A, D) an
            object, true where the gripper collides.
        folder: Of the cache.
        counts: P of each object.

    Returns:
        For each object (P, V·A·D / 8), mapped; `np.unpackbits` reads it.

    Raises:
        DataError: The file is damaged, or of other objects.
    """
    place = stamped(folder, file, "collisions")
    if not place.exists():
        names = tuple(f"arr_{index}" for index in range(len(counts)))
        with (
            packed_arrays(file, names) as arrays,
            written_whole(place, np.uint8, (sum(counts), CANDIDATES // 8)) as bits,
        ):
            if len(arrays) != len(counts):
                raise DataError(f"{file} is of {len(arrays)} objects, wanted {len(counts)}")
            for name, count, start in zip(names, counts, _starts(counts), strict=True):
                if arrays[name].shape != (count, *LATTICE):
                    raise DataError(
                        f"{file}: {name} is {arrays[name].shape}, wanted {(count, *LATTICE)}",
                        "one value a candidate of the object's grasp label",
                    )
                for row in range(0, count, _ROWS_AT_ONCE):
                    rows = min(_ROWS_AT_ONCE, count - row)
                    collides = arrays[name].take(rows).reshape(rows, -1) != 0
                    bits[start + row : start + row + rows] = np.packbits(collides, axis=1)
    bits = np.load(place, mmap_mode="r")
    return [bits[start : start + n] for start, n in zip(_starts(counts), counts, strict=True)]


def _starts(counts: list[int]) -> list[int]:
    return [0, *np.cumsum(counts).tolist()][: len(counts)]
