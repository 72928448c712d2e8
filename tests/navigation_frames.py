"""Small frames without a renderer: a scan of three ranges, painted as three stripes.

The nearer, the taller the bright stripe; its colour and the dark one are an appearance's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.images import ImagePreprocessing
from limpet.training.navigation.camera import Lidar
from limpet.training.navigation.config import NavigationConfig

SIDE = 32
CONFIG = NavigationConfig(
    width=4, embedding=16, batch=16, steps=4, image=ImagePreprocessing(width=SIDE, height=SIDE)
)
"""The smallest encoder that sees something."""
LIDAR = Lidar(beams=60)


def paint(ranges: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Three stripes on a background. (3,) → (SIDE, SIDE, 3)"""
    floor, wall = rng.integers(0, 60, 3), rng.integers(120, 256, 3)
    image = np.tile(floor, (SIDE, SIDE, 1))
    for stripe, near in enumerate(ranges):
        columns = slice(stripe * SIDE // 3, (stripe + 1) * SIDE // 3)
        tall = round(SIDE * (1.0 - near / 4.0))
        image[(SIDE - tall) // 2 : (SIDE + tall) // 2, columns] = wall
    return image.astype(np.uint8)


def scan(ranges: NDArray[np.floating]) -> NDArray[np.float32]:
    """Ranges to the left, ahead and to the right, as a LiDAR sees them; 1 m elsewhere. (B,)"""
    bearing = np.degrees((LIDAR.angles + np.pi) % (2 * np.pi) - np.pi)
    beams = np.ones(LIDAR.beams)
    for (low, high), one in zip(((15, 48), (-15, 15), (-48, -15)), ranges, strict=True):
        beams[(bearing >= low) & (bearing <= high)] = one
    return beams.astype(np.float32)


def write_pairs(folder: Path, layouts: int = 3, poses: int = 24, views: int = 3) -> Path:
    """A folder of pairs, as `limpet.training.navigation.pairs` writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.json").write_text("{}\n")
    for layout in range(layouts):
        rng = np.random.default_rng([layout, poses])
        ranges = rng.uniform(0.3, 3.5, (poses, 3))
        images = [[paint(one, rng) for _ in range(views)] for one in ranges]
        goals = np.stack([rng.uniform(0, 5, poses), rng.uniform(-3, 3, poses)], axis=1)
        np.savez(
            folder / f"layout-{layout:05}.npz",
            images=np.array(images),
            appearances=np.tile(np.arange(views, dtype=np.int32), (poses, 1)),
            lidar=np.stack([scan(one) for one in ranges]),
            goals=goals.astype(np.float32),
            poses=np.zeros((poses, 3)),
        )
    return folder
