"""A user's own logs: folders and bags, written here, read back."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from limpet.contracts.errors import DataError
from limpet.training.navigation.camera import Lidar
from limpet.training.navigation.logs import LogRules, read_log, to_beams

T0 = 1_700_000_000_000_000_000
RULES = LogRules(width=32, height=32, lidar=Lidar(beams=8, range_m=6.0))
STORE = get_typestore(Stores.ROS2_HUMBLE)


def picture(shade: int, rows: int = 48, columns: int = 64) -> np.ndarray:
    image = np.zeros((rows, columns, 3), np.uint8)
    image[..., 0], image[..., 2] = shade, 255 - shade
    return image


def folder(path: Path, names: list[str], scans: int = 10) -> Path:
    (path / "images").mkdir(parents=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(10 * number)).save(path / "images" / name)
    np.savez(
        path / "lidar.npz",
        times_ns=T0 + np.arange(scans) * 100_000_000,
        ranges=np.arange(scans)[:, None] + np.linspace(0.1, 0.8, 8)[None],
        angle_min=0.0,
        angle_increment=math.pi / 4,
    )
    return path


def test_images_get_the_scan_nearest_in_time(tmp_path: Path) -> None:
    names = [f"{T0 + 40_000_000}.png", "1700000000.26.png", f"{T0 + 5_000_000_000}.png"]
    log = read_log(folder(tmp_path, names), RULES)
    assert log.images.shape == (2, 32, 32, 3)
    assert log.times_ns.tolist() == [T0 + 40_000_000, T0 + 260_000_000]
    assert log.lidar[:, 0] == pytest.approx([0.1, 3.1])
    assert log.gaps_s == pytest.approx([0.04, 0.04])
    assert log.without_scan == 1
    assert log.images[1, 0, 0].tolist() == [10, 0, 245]


def test_a_csv_of_scans_is_read(tmp_path: Path) -> None:
    folder(tmp_path, [f"{T0}.png"])
    (tmp_path / "lidar.npz").unlink()
    head = "time_s," + ",".join(f"{i * math.pi / 4:.6f}" for i in range(8))
    row = "1700000000.000000001,1,2,3,4,5,9,,0.5"
    (tmp_path / "lidar.csv").write_text(f"{head}\n{row}\n")
    log = read_log(tmp_path, RULES)
    assert log.lidar[0].tolist() == [1, 2, 3, 4, 5, 6, 6, 0.5]
    assert log.gaps_s[0] == pytest.approx(1e-9)


def test_images_can_be_thinned_out(tmp_path: Path) -> None:
    names = [f"{T0 + i * 50_000_000}.png" for i in range(10)]
    rules = LogRules(width=32, height=32, every_s=0.2, lidar=RULES.lidar)
    assert len(read_log(folder(tmp_path, names), rules).images) == 3


def test_beams_where_the_lidar_does_not_look_are_unknown() -> None:
    ahead = np.linspace(-math.pi / 2, math.pi / 2, 19)  # half a turn
    beams = to_beams(np.full((1, 19), 2.0), ahead, RULES)[0]
    assert np.isnan(beams).tolist() == [False, False, False, True, True, True, False, False]


def test_a_lidar_mounted_backwards_is_turned() -> None:
    bearings = np.arange(8) * math.pi / 4
    rules = LogRules(lidar=RULES.lidar, lidar_yaw_rad=math.pi)
    ranges = np.array([[1.0, 2, 2, 2, 5, 2, 2, np.inf]])
    assert to_beams(ranges, bearings, rules)[0].tolist() == [5, 2, 2, 6, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: (p / "lidar.npz").unlink(), "neither lidar.npz nor lidar.csv"),
        (lambda p: [f.unlink() for f in (p / "images").iterdir()], "holds no image"),
        (lambda p: (p / "images/one.png").write_bytes(b""), "its name is no time"),
        (lambda p: (p / f"images/{T0 + 1}.png").write_bytes(b"x"), "not an image"),
        (lambda p: np.savez(p / "lidar.npz", ranges=np.ones((2, 3))), "lacks times_ns"),
        (lambda p: (p / "lidar.npz").write_bytes(b"x"), "not an npz"),
        (
            lambda p: np.savez(p / "lidar.npz", ranges=np.ones((2, 3)), times_ns=np.zeros(3, int),
                               angle_min=0.0, angle_increment=0.1),
            r"times_ns is int64 \[3\]",
        ),
    ],
)  # fmt: skip
def test_a_folder_that_lacks_something_is_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(folder(tmp_path / "log", [f"{T0}.png"]))
    with pytest.raises(DataError, match=message):
        read_log(tmp_path / "log", RULES)


def test_clocks_that_disagree_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 1 images has a scan within 0\.1 s"):
        read_log(folder(tmp_path, ["1600000000.0.png"]), RULES)
    with pytest.raises(DataError, match="does not exist"):
        read_log(tmp_path / "nowhere", RULES)


def header(time_ns: int) -> Any:
    time = STORE.types["builtin_interfaces/msg/Time"](*divmod(time_ns, 10**9))
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id="")


def image_message(time_ns: int, pixels: np.ndarray, encoding: str, pad: int = 0) -> Any:
    rows, columns, channels = pixels.shape
    padded = np.pad(pixels.reshape(rows, -1), ((0, 0), (0, pad)))
    return STORE.types["sensor_msgs/msg/Image"](
        header=header(time_ns), height=rows, width=columns, encoding=encoding, is_bigendian=0,
        step=columns * channels + pad, data=padded.ravel(),
    )  # fmt: skip


def jpeg_message(time_ns: int, pixels: np.ndarray) -> Any:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    kind = STORE.types["sensor_msgs/msg/CompressedImage"]
    return kind(header=header(time_ns), format="jpeg", data=data)


def scan_message(time_ns: int, ranges: list[float]) -> Any:
    return STORE.types["sensor_msgs/msg/LaserScan"](
        header=header(time_ns), angle_min=-math.pi, angle_max=math.pi * 0.75,
        angle_increment=math.pi / 4, time_increment=0.0, scan_time=0.1, range_min=0.1,
        range_max=10.0, ranges=np.array(ranges, np.float32), intensities=np.empty(0, np.float32),
    )  # fmt: skip


def write_bag(
    path: Path, messages: list[tuple[str, Any]], plugin: StoragePlugin = StoragePlugin.SQLITE3
) -> Path:
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections: dict[str, Any] = {}
        for number, (topic, message) in enumerate(messages):
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, message.__msgtype__, typestore=STORE
                )
            raw = STORE.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[topic], T0 + number, raw)
    return path


SCANS = [("/scan", scan_message(T0 + i * 100_000_000, [1 + i, 2, 3, 4, 5, 20, 0.05, 8]))
         for i in range(4)]  # fmt: skip


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_bag_is_read_by_the_times_of_its_headers(tmp_path: Path, plugin: StoragePlugin) -> None:
    times = [T0 + 20_000_000, T0 + 190_000_000]
    pixels = picture(200)
    images = [("/camera", image_message(t, pixels[..., ::-1], "bgr8", pad=5)) for t in times]
    bag = write_bag(tmp_path / "bag", [*SCANS, *images], plugin)
    path = next(bag.glob("*.mcap")) if plugin is StoragePlugin.MCAP else bag
    log = read_log(path, RULES)
    assert log.times_ns.tolist() == times
    assert log.images[0, 0, 0].tolist() == [200, 0, 55]
    # The first range looks backwards; what is beyond its limits returned nothing.
    assert log.lidar[0].tolist() == [5, 6, 6, 6, 1, 2, 3, 4]
    assert log.lidar[1, 4] == 3


def test_compressed_images_are_read(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [*SCANS, ("/camera", jpeg_message(T0, picture(100)))])
    np.testing.assert_allclose(read_log(bag, RULES).images[0, 5, 5], [100, 0, 155], atol=6)


@pytest.mark.parametrize(
    ("messages", "rules", "message"),
    [
        (SCANS, {}, r"no topic of type sensor_msgs/msg/Image .*; its topics: /scan"),
        ([("/a", jpeg_message(T0, picture(1)))], {}, "no topic of type sensor_msgs/msg/LaserScan"),
        ([*SCANS, ("/a", jpeg_message(T0, picture(1))), ("/b", jpeg_message(T0, picture(1)))], {},
         r"2 topics of type (?s:.*)name one: image_topic"),
        ([*SCANS, ("/a", jpeg_message(T0, picture(1)))], {"image_topic": "/front"},
         "no topic /front of type"),
        ([*SCANS, ("/a", image_message(T0, picture(1), "bayer_rggb8"))], {},
         "encoding 'bayer_rggb8', wanted one of rgb8"),
        ([*SCANS, ("/a", image_message(T0, picture(1)[..., :2], "rgb8"))], {}, "bytes in rows of"),
    ],
)  # fmt: skip
def test_a_bag_that_lacks_something_is_refused(
    tmp_path: Path, messages: list[tuple[str, Any]], rules: dict[str, Any], message: str
) -> None:
    bag = write_bag(tmp_path / "bag", messages)
    with pytest.raises(DataError, match=message):
        read_log(bag, LogRules(**rules))


def test_one_of_several_cameras_can_be_named(tmp_path: Path) -> None:
    cameras = [("/a", jpeg_message(T0, picture(1))), ("/b", jpeg_message(T0, picture(250)))]
    bag = write_bag(tmp_path / "bag", [*SCANS, *cameras])
    assert read_log(bag, LogRules(image_topic="/b")).images[0, 0, 0, 0] > 240


def test_a_file_that_is_no_bag_is_refused(tmp_path: Path) -> None:
    for name in ("a.mcap", "a.bag", "a.txt"):
        (tmp_path / name).write_bytes(b"nothing that a bag begins with")
        with pytest.raises(DataError, match="not a bag"):
            read_log(tmp_path / name)
