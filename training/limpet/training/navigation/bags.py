"""Camera and LiDAR out of ROS bags, through `rosbags`: no ROS has to be installed.

Read are ROS 2 bags (a folder with `metadata.yaml`), single `.mcap` files and ROS 1 `.bag` files;
of the camera `sensor_msgs/Image` (rgb8, bgr8, rgba8, bgra8, mono8) or `CompressedImage` (JPEG,
PNG), of the LiDAR `LaserScan`. Times are those of the messages' headers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limpet.contracts.errors import DataError, MissingExtraError, TensorError
from limpet.contracts.images import CHANNELS, ChannelOrder, as_rgb
from limpet.training.navigation.logs import (
    ImageSource,
    LogRules,
    RobotLog,
    Scans,
    paired,
    to_beams,
)

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
SCAN_TYPES = ("sensor_msgs/msg/LaserScan",)
_ORDERS: dict[str, ChannelOrder] = {
    "rgb8": "rgb", "bgr8": "bgr", "rgba8": "rgba", "bgra8": "bgra", "mono8": "mono",
    "8UC3": "bgr", "8UC1": "mono",
}  # fmt: skip


def read_bag(path: Path, rules: LogRules) -> RobotLog:
    """Reads one bag.

    Raises:
        DataError: No bag, no such topic, none or several that could be meant, or a message that
            cannot be read.
        MissingExtraError: rosbags is not installed.
    """
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", error.name or "rosbags") from error

    store = get_typestore(Stores.ROS2_HUMBLE)
    try:
        with AnyReader([path], default_typestore=store) as reader:
            images = _topic(path, reader, "image", rules.image_topic, IMAGE_TYPES)
            scans = _scans(path, reader, _topic(path, reader, "scan", rules.scan_topic, SCAN_TYPES),
                           rules)  # fmt: skip
            return paired(path, _images(path, reader, images), scans, rules)
    except AnyReaderError as error:
        raise DataError(f"{path}: not a bag that can be read: {error}") from error


def _topic(
    path: Path, reader: AnyReader, what: str, named: str | None, types: tuple[str, ...]
) -> list[Connection]:
    """The connections of one topic: the one that is named, else the only one of these types."""
    there = sorted({(c.topic, c.msgtype) for c in reader.connections})
    listing = ", ".join(f"{topic} ({kind})" for topic, kind in there) or "none"
    fitting = sorted({topic for topic, kind in there if kind in types})
    if named is not None:
        if named not in fitting:
            raise DataError(
                f"{path}: no topic {named} of type {' or '.join(types)}; its topics: {listing}",
                f"name another {what}_topic",
            )
        fitting = [named]
    if len(fitting) != 1:
        found = f"{len(fitting)} topics of type" if fitting else "no topic of type"
        raise DataError(
            f"{path}: {found} {' or '.join(types)}; its topics: {listing}",
            f"name one: {what}_topic" if fitting else "record one beside the others",
        )
    return [c for c in reader.connections if c.topic == fitting[0] and c.msgtype in types]


def _stamp_ns(message: Any, received_ns: int) -> int:
    """Time of the header; when the message was received where that is empty."""
    stamp = message.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec) or received_ns


def _scans(path: Path, reader: AnyReader, topic: list[Connection], rules: LogRules) -> Scans:
    times, lidar = [], []
    for connection, received_ns, raw in reader.messages(topic):
        message: Any = reader.deserialize(raw, connection.msgtype)
        ranges = np.asarray(message.ranges, np.float32)
        bearings = message.angle_min + message.angle_increment * np.arange(len(ranges))
        if not len(ranges):
            raise DataError(f"{path}: a scan of {connection.topic} has no ranges")
        valid = (ranges >= message.range_min) & (ranges <= message.range_max)
        lidar.append(to_beams(np.where(valid, ranges, np.inf)[None], bearings, rules)[0])
        times.append(_stamp_ns(message, received_ns))
    if not times:
        raise DataError(f"{path}: {topic[0].topic} has no messages")
    return Scans(times_ns=np.array(times, np.int64), lidar=np.stack(lidar))


def _images(path: Path, reader: AnyReader, topic: list[Connection]) -> Iterator[ImageSource]:
    for connection, received_ns, raw in reader.messages(topic):
        message: Any = reader.deserialize(raw, connection.msgtype)
        where = f"{path}: {connection.topic}"
        yield _stamp_ns(message, received_ns), partial(_pixels, where, message)


def _pixels(where: str, message: Any) -> NDArray[np.uint8]:
    if hasattr(message, "format"):
        try:
            with Image.open(io.BytesIO(bytes(message.data))) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise DataError(f"{where}: {message.format!r} cannot be decoded: {error}") from error
    order = _ORDERS.get(message.encoding)
    if order is None:
        raise DataError(
            f"{where}: encoding {message.encoding!r}, wanted one of {', '.join(_ORDERS)}"
        )
    channels = CHANNELS[order]
    data = np.asarray(message.data, np.uint8)
    if message.step < message.width * channels or data.size < message.height * message.step:
        raise DataError(
            f"{where}: {data.size} bytes in rows of {message.step} for {message.height} rows of "
            f"{message.width} pixels {message.encoding}"
        )
    rows = data[: message.height * message.step].reshape(message.height, message.step)
    pixels = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
    try:
        return as_rgb(pixels, order)
    except TensorError as error:
        raise DataError(f"{where}: {error.message}") from error
