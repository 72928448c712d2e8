"""The contact sheet: what scenes look like, what depth, labels and LiDAR say of them.

    python -m tests.benchmarks.navigation_sheet --data ../shared/data \
        --out tests/benchmarks/results/navigation_scenes.png

A row is one pose. Columns: six appearances (two of each set: encoder, policy, test), depth, labels,
and from above the floor plan with the LiDAR's returns around the robot. Photographs are without
the sensor's noise, for which a PNG pays dearly.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from limpet.training.navigation.camera import Camera, Lidar
from limpet.training.navigation.geometry import SceneGeometry
from limpet.training.navigation.layouts import Layout
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.solids import LABELS
from limpet.training.navigation.textures import SETS

LAYOUTS, TILE, GAP = (21, 8, 33, 26), 128, 4
CAMERA = Camera(pitch_jitter_deg=0.0, height_jitter_m=0.0)
LIDAR = Lidar(beams=360)


def viewpoint(layout: Layout, geometry: SceneGeometry, rng: np.random.Generator) -> np.ndarray:
    """A pose from which much is seen: of many, the one with most labels in view."""
    space = layout.free_space(0.3)
    places = space.centers(rng.choice(space.cells, 60))
    poses = np.column_stack([places, rng.uniform(-math.pi, math.pi, 60)])
    small = Camera(width=32, height=32, pitch_jitter_deg=0.0, height_jitter_m=0.0)
    seen = geometry.look(poses, small)
    labels = geometry.labels[seen.triangles].reshape(60, -1)
    things = [len(np.unique(row[row > LABELS.index("ceiling")])) for row in labels]
    open_view = np.minimum(np.median(seen.depth.reshape(60, -1), axis=1), 3.0)
    best: np.ndarray = poses[int(np.argmax(np.array(things) + open_view))]
    return best


def colored(values: np.ndarray, name: str) -> np.ndarray:
    """Values 0 to 1 in a colour map. uint8 (…, 3)"""
    return (255 * matplotlib.colormaps[name](values)[..., :3]).astype(np.uint8)


def from_above(layout: Layout, pose: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """8 m × 8 m around the robot, which looks up: obstacles grey, LiDAR red, robot blue."""
    across = (np.arange(TILE) + 0.5) / TILE * 8.0 - 4.0
    right, ahead = np.meshgrid(across, -across)
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    points = np.stack([cos * ahead + sin * right, sin * ahead - cos * right], axis=-1) + pose[:2]
    clear = layout.footprints.clearance(points.reshape(-1, 2)).reshape(TILE, TILE)
    image = np.full((TILE, TILE, 3), 255, np.uint8)
    image[clear == 0.0] = 120
    image[np.hypot(right, ahead) < 0.18] = (40, 90, 220)
    seen = ranges < LIDAR.range_m
    columns = -np.sin(LIDAR.angles[seen]) * ranges[seen]
    rows = -np.cos(LIDAR.angles[seen]) * ranges[seen]
    x, y = (((at + 4.0) / 8.0 * TILE).astype(int) for at in (columns, rows))
    inside = (x >= 0) & (x < TILE) & (y >= 0) & (y < TILE)
    image[y[inside], x[inside]] = (220, 30, 30)
    return image


def main() -> None:
    """Renders and writes the PNG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with textures/")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    textures = None if options.data is None else options.data / "textures"
    scenes, plain = SceneLibrary(textures), SceneLibrary()
    rows = []
    for seed in LAYOUTS:
        geometry, layout = scenes.geometry(seed), scenes.layout(seed)
        rng = np.random.default_rng(seed)
        pose = viewpoint(layout, geometry, rng)
        seen = geometry.look(pose[None], CAMERA, LIDAR)
        tiles = [
            library.painted(seed, which, seed).photograph(seen)[0]
            for which in SETS
            for library in (scenes, plain)
        ]
        tiles.append(colored(np.clip(seen.depth[0] / 6.0, 0, 1), "viridis"))
        tiles.append(colored(geometry.labels[seen.triangles[0]] / (len(LABELS) - 1), "tab20"))
        tiles.append(from_above(layout, pose, LIDAR.measure(seen.ranges, rng)[0]))
        padded = [np.pad(tile, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for tile in tiles]
        rows.append(np.concatenate(padded, axis=1))
    Image.fromarray(np.concatenate(rows)).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
