"""What an encoder is trained and measured on: poses, each seen in one appearance or several.

Frames come from a folder of pairs (`limpet.training.navigation.pairs`), or from a user's own
recordings (`limpet.training.navigation.logs`), where each pose is seen once.

Dimension legend: n poses, k views of each, b poses of a batch, B beams, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.bundle import files_sha256
from limpet.contracts.errors import DataError
from limpet.contracts.images import ImagePreprocessing
from limpet.contracts.manifest import DataDigest
from limpet.training.navigation.camera import Lidar
from limpet.training.navigation.files import map_array
from limpet.training.navigation.logs import LogRules, read_log

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Indices = NDArray[np.intp]

PAIRS = "pairs.json"
LAYOUTS = "layout-*.npz"


@dataclass(frozen=True)
class Frames:
    """All frames of a data set; images stay on disk where they came in pairs.

    Attributes:
        name: The data set's name.
        images: uint8 (n, k, H, W, 3) of each part, RGB.
        lidar: Ranges, m; NaN where the LiDAR does not look. (n, B)
        goals: Distance (m) and bearing (rad); None where nothing is known of goals. (n, 2)
        layouts: Number of the part that a pose is in. (n,)
        sensor: The beams of `lidar`.
        files: What it was read from.
    """

    name: str
    images: Sequence[Uint8]
    lidar: Float32
    goals: Float32 | None
    layouts: Indices
    sensor: Lidar
    files: Sequence[Path]

    def __len__(self) -> int:
        return len(self.lidar)

    @property
    def views(self) -> int:
        """Appearances of each pose, k."""
        return int(self.images[0].shape[1])

    def digest(self) -> DataDigest:
        """The files' SHA-256 and the number of images."""
        return DataDigest(
            name=self.name, sha256=files_sha256(self.files), rows=len(self) * self.views
        )

    def take(self, poses: Indices, views: Indices) -> Uint8:
        """Images of some poses, each in one of its views. (b, H, W, 3)"""
        starts = np.searchsorted(self.layouts, np.arange(len(self.images)))
        out = np.empty((len(poses), *self.images[0].shape[2:]), np.uint8)
        for row, (pose, view) in enumerate(zip(poses, views, strict=True)):
            layout = self.layouts[pose]
            out[row] = self.images[layout][pose - starts[layout], view]
        return out


def open_frames(path: Path | str, image: ImagePreprocessing) -> Frames:
    """Opens a folder of pairs, one recording, or a folder of recordings.

    Args:
        path: The folder or file.
        image: Whose size images have (pairs), or are brought to (recordings).

    Raises:
        DataError: Nothing there can be read, or the images are of another size.
        MissingExtraError: A bag, and rosbags is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"{path} does not exist",
            "wanted a folder of pairs (python -m limpet.training.navigation.pairs --out DIR) or a "
            "recording: a folder with images/ and lidar.npz, or a bag",
        )
    frames = _pairs(path) if (path / PAIRS).is_file() else _recordings(path, image)
    found, wanted = {part.shape[2:4] for part in frames.images}, (image.height, image.width)
    if found != {wanted}:
        raise DataError(
            f"{path} has images of {sorted(found)} rows and columns, wanted {wanted}",
            "set image.height and image.width in the configuration, or collect others",
        )
    return frames


def _pairs(path: Path) -> Frames:
    files = sorted(path.glob(LAYOUTS))
    if not files:
        raise DataError(f"{path} holds no {LAYOUTS}", "collect it again: its pairs are missing")
    lidar = [np.array(map_array(file, "lidar")) for file in files]
    images = [map_array(file, "images") for file in files]
    for file, scans, seen in zip(files, lidar, images, strict=True):
        if seen.ndim != 5 or len(scans) != len(seen) or seen.shape[1] != images[0].shape[1]:
            raise DataError(
                f"{file} holds images {list(seen.shape)} and scans {list(scans.shape)}, wanted "
                f"[poses, {images[0].shape[1]}, rows, columns, 3] and [poses, beams]"
            )
    return Frames(
        name=path.name,
        images=images,
        lidar=np.concatenate(lidar),
        goals=np.concatenate([np.array(map_array(file, "goals")) for file in files]),
        layouts=np.repeat(np.arange(len(files)), [len(scans) for scans in lidar]),
        sensor=Lidar(beams=lidar[0].shape[1]),
        files=files,
    )


def _recordings(path: Path, image: ImagePreprocessing) -> Frames:
    rules = LogRules(width=image.width, height=image.height)
    recordings = [path] if path.is_file() or _is_recording(path) else _recordings_in(path)
    logs = [read_log(recording, rules) for recording in recordings]
    return Frames(
        name=path.name,
        images=[log.images[:, None] for log in logs],
        lidar=np.concatenate([log.lidar for log in logs]),
        goals=None,
        layouts=np.repeat(np.arange(len(logs)), [len(log.images) for log in logs]),
        sensor=rules.lidar,
        files=sorted(
            file
            for recording in recordings
            for file in ([recording] if recording.is_file() else recording.rglob("*"))
            if file.is_file()
        ),
    )


def _is_recording(path: Path) -> bool:
    return (path / "images").is_dir() or (path / "metadata.yaml").is_file()


def _recordings_in(path: Path) -> list[Path]:
    found = sorted(
        inside
        for inside in path.iterdir()
        if _is_recording(inside) or inside.suffix.lower() in (".mcap", ".bag")
    )
    if not found:
        raise DataError(
            f"{path} holds neither pairs ({PAIRS}) nor recordings",
            "wanted a folder of pairs, a folder with images/ and lidar.npz, a bag, or a folder of "
            "such recordings",
        )
    return found
