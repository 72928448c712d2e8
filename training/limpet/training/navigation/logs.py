"""A user's own recordings of a camera and a LiDAR, brought to the form that training takes.

A folder:

    images/        <time>.png or .jpg; the time is Unix seconds with a point (1700000000.25.png) or
                   nanoseconds without
    lidar.npz      times_ns int64 (m,); ranges float (m, b), m; angle_min and angle_increment, rad
    lidar.csv      or this: a header `time_s` and one bearing (rad) a column, then ranges, m

A ROS 2 bag (a folder with `metadata.yaml`), an `.mcap` or a ROS 1 `.bag`: see `bags`.

Bearings are counter-clockwise from straight ahead. Each image is paired with the scan nearest in
time, unless that is farther away than a maximum gap; those without one are left out and counted.

Dimension legend: n images with a scan, m scans, b beams as recorded, B beams of the result, H rows,
W columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.contracts.image_files import SUFFIXES, read_image
from limpet.contracts.images import check_image, crop_to_aspect, resize_area
from limpet.training.navigation.camera import Lidar
from limpet.training.navigation.files import read_arrays
from limpet.training.navigation.robot import wrapped

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Times = NDArray[np.int64]


class LogRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a recording is read.

    Attributes:
        width, height: Size that images are brought to: cut to the aspect, then area-averaged.
        max_gap_s: Largest distance in time between an image and its scan.
        every_s: Least time between two images that are kept.
        lidar: Beams and range of the result.
        lidar_yaw_rad: How far the LiDAR is turned on the robot, counter-clockwise.
        image_topic, scan_topic: Topics of a bag; left out where it has one of each.
    """

    width: int = 128
    height: int = 128
    max_gap_s: float = 0.1
    every_s: float = 0.0
    lidar: Lidar = Lidar()
    lidar_yaw_rad: float = 0.0
    image_topic: str | None = None
    scan_topic: str | None = None


class RobotLog(msgspec.Struct, frozen=True, kw_only=True):
    """Images, each with the scan nearest in time.

    Attributes:
        images: RGB. uint8 (n, H, W, 3)
        lidar: Ranges, m; NaN where the LiDAR does not look. float32 (n, B)
        times_ns: When the images were taken, Unix. int64 (n,)
        gaps_s: Distance in time to each scan. float64 (n,)
        without_scan: Images left out, since no scan was near enough.
    """

    images: Uint8
    lidar: Float32
    times_ns: Times
    gaps_s: NDArray[np.float64]
    without_scan: int


class Scans(msgspec.Struct, frozen=True, kw_only=True):
    """Scans of one LiDAR, brought to the beams of `LogRules.lidar`."""

    times_ns: Times
    lidar: Float32


ImageSource = tuple[int, Callable[[], Uint8]]
"""When an image was taken (ns), and what loads it."""


def read_log(path: Path | str, rules: LogRules = LogRules()) -> RobotLog:  # noqa: B008 - frozen
    """Reads a folder or a bag.

    Raises:
        DataError: What is missing or cannot be read, and where.
        MissingExtraError: A bag, and rosbags is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if path.is_file() or (path / "metadata.yaml").exists():
        from limpet.training.navigation.bags import read_bag

        return read_bag(path, rules)
    return paired(path, image_files(path), _folder_scans(path, rules), rules)


def paired(path: Path, images: Iterable[ImageSource], scans: Scans, rules: LogRules) -> RobotLog:
    """Pairs images with the scans nearest in time.

    Args:
        path: Where both come from, for errors.
        images: In order of time.
        scans: In any order.
        rules: Size of an image, time between two that are kept, largest gap to a scan.

    Raises:
        DataError: No image has a scan that is near enough, or one cannot be read.
    """
    kept: list[Uint8] = []
    times, gaps, chosen = [], [], []
    without, last = 0, -(2**62)
    order = np.argsort(scans.times_ns, kind="stable")
    sorted_ns = scans.times_ns[order]
    for time_ns, load in images:
        if time_ns - last < rules.every_s * 1e9:
            continue
        after = int(np.searchsorted(sorted_ns, time_ns))
        near = [i for i in (after - 1, after) if 0 <= i < len(sorted_ns)]
        gap_ns, best = min((abs(int(sorted_ns[i]) - time_ns), i) for i in near)
        if gap_ns > rules.max_gap_s * 1e9:
            without += 1
            continue
        image = crop_to_aspect(check_image(load()), rules.width, rules.height)
        small = resize_area(image, rules.height, rules.width)
        kept.append(np.rint(small).astype(np.uint8))
        times.append(time_ns)
        gaps.append(gap_ns / 1e9)
        chosen.append(order[best])
        last = time_ns
    if not kept:
        raise DataError(
            f"{path}: none of {without} images has a scan within {rules.max_gap_s:g} s",
            "do both clocks agree? a larger max_gap_s accepts more",
        )
    return RobotLog(
        images=np.stack(kept),
        lidar=scans.lidar[chosen],
        times_ns=np.array(times, np.int64),
        gaps_s=np.array(gaps),
        without_scan=without,
    )


def to_beams(
    ranges: NDArray[np.floating], bearings: NDArray[np.floating], rules: LogRules
) -> Float32:
    """Ranges as recorded, at the beams of `rules.lidar`: each takes the nearest bearing's.

    A beam is NaN where no bearing is within half its own spacing or one and a half of the
    recording's. What returned nothing (infinite, NaN or beyond range) reads the range. (m, b) →
    (m, B)
    """
    wanted = rules.lidar.angles
    turned = np.asarray(bearings, float) + rules.lidar_yaw_rad
    away = np.abs((wanted[:, None] - turned + math.pi) % (2 * math.pi) - math.pi)  # (B, b)
    nearest = away.argmin(axis=1)
    steps = np.abs(np.diff(turned))
    spacing = max(math.pi / rules.lidar.beams, 1.5 * float(np.median(steps)) if len(steps) else 0)
    most = rules.lidar.range_m
    whole = np.where(np.isfinite(ranges) & (ranges > 0), ranges, most)
    beams = np.minimum(whole, most)[:, nearest].astype(np.float32)
    beams[:, away.min(axis=1) > spacing] = np.nan
    return beams


def image_files(path: Path) -> list[ImageSource]:
    """Images of a folder in order of time, to be loaded one by one."""
    folder = path / "images"
    found = [(_time_ns(file), file) for file in folder.glob("*") if file.suffix.lower() in SUFFIXES]
    if not found:
        raise DataError(
            f"{folder} holds no image",
            "wanted images/<time>.png or .jpg, the time in seconds or ns",
        )

    return [(time_ns, partial(read_image, file)) for time_ns, file in sorted(found)]


def _time_ns(file: Path) -> int:
    try:
        return seconds_ns(file.stem) if "." in file.stem else int(file.stem)
    except ValueError:
        raise DataError(
            f"{file}: its name is no time",
            "name images by Unix seconds with a point (1700000000.25.png) or by nanoseconds",
        ) from None


def seconds_ns(text: str) -> int:
    """Nanoseconds of decimal seconds; as a float they would be rounded to about 200 ns."""
    whole, _, part = text.partition(".")
    return int(whole) * 10**9 + int(f"{part:0<9}"[:9])


def _folder_scans(path: Path, rules: LogRules) -> Scans:
    npz, csv = path / "lidar.npz", path / "lidar.csv"
    if npz.exists():
        return _npz_scans(npz, rules)
    if csv.exists():
        return _csv_scans(csv, rules)
    raise DataError(f"{path} holds neither lidar.npz nor lidar.csv")


def _npz_scans(file: Path, rules: LogRules) -> Scans:
    found = read_arrays(file)
    wanted = ("times_ns", "ranges", "angle_min", "angle_increment")
    if missing := [name for name in wanted if name not in found]:
        raise DataError(
            f"{file}: lacks {', '.join(missing)}, found {', '.join(sorted(found)) or 'nothing'}"
        )
    times, ranges = found["times_ns"], found["ranges"]
    fits = ranges.ndim == 2 and times.shape == ranges.shape[:1] and ranges.size > 0
    if not fits or times.dtype.kind not in "iu" or ranges.dtype.kind != "f":
        raise DataError(
            f"{file}: times_ns is {times.dtype} {list(times.shape)} and ranges {ranges.dtype} "
            f"{list(ranges.shape)}, wanted integers (m,) and floats (m, b), m and b at least 1"
        )
    steps = np.arange(ranges.shape[1])
    bearings = float(found["angle_min"]) + float(found["angle_increment"]) * steps
    return Scans(times_ns=times.astype(np.int64), lidar=to_beams(ranges, bearings, rules))


def _csv_scans(file: Path, rules: LogRules) -> Scans:
    lines = file.read_text(encoding="utf-8").splitlines()
    head = lines[0].split(",") if lines else []
    try:
        bearings = np.array([float(name) for name in head[1:]])
    except ValueError:
        bearings = np.empty(0)
    if not len(bearings) or head[0].strip() != "time_s":
        raise DataError(
            f"{file}:1: found {','.join(head[:4])!r}, wanted time_s and a bearing (rad) a column"
        )
    times, ranges = [], []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split(",")
        try:
            times.append(seconds_ns(cells[0].strip()))
            ranges.append([float(cell) if cell.strip() else math.nan for cell in cells[1:]])
        except ValueError as error:
            raise DataError(f"{file}:{number}: {error}") from error
        if len(cells) != len(head):
            raise DataError(f"{file}:{number}: {len(cells)} columns, the header has {len(head)}")
    if not times:
        raise DataError(f"{file} holds no scan")
    lidar = to_beams(np.array(ranges), np.array([wrapped(b) for b in bearings]), rules)
    return Scans(times_ns=np.array(times, np.int64), lidar=lidar)
