"""A layout from above with the ways that were driven through it, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from limpet.training.navigation.layouts import Layout

FREE, OBSTACLE, START = (255, 255, 255), (110, 110, 110), (40, 40, 40)
ARRIVED, FAILED = (30, 120, 200), (200, 60, 40)
GOAL_RADIUS_M = 0.3


def draw_map(
    layout: Layout,
    paths: Sequence[ArrayLike],
    goals: Sequence[tuple[float, float]],
    arrived: Sequence[bool],
    pixels_per_m: int = 40,
) -> NDArray[np.uint8]:
    """Obstacles grey; each way from its dot to its goal's ring, blue where it arrived, else red.

    Args:
        layout: What was driven through.
        paths: Places of the robot of each way: x, y (m). (N, 2)
        goals: x, y (m) of each.
        arrived: Whether each came to its goal.
        pixels_per_m: Scale.

    Returns:
        RGB; x to the right, y upwards. uint8 (H, W, 3)
    """
    width_m, depth_m = layout.plan.size
    columns, rows = round(width_m * pixels_per_m), round(depth_m * pixels_per_m)
    x = (np.arange(columns) + 0.5) / pixels_per_m
    y = (np.arange(rows)[::-1] + 0.5) / pixels_per_m
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    blocked = (layout.footprints.clearance(points) == 0.0).reshape(rows, columns)
    image = Image.fromarray(np.where(blocked[..., None], OBSTACLE, FREE).astype(np.uint8))
    draw = ImageDraw.Draw(image)

    def pixels(point: ArrayLike) -> tuple[float, float]:
        at_x, at_y = np.asarray(point, float)
        return float(at_x * pixels_per_m), float(rows - at_y * pixels_per_m)

    for path, goal, there in zip(paths, goals, arrived, strict=True):
        color = ARRIVED if there else FAILED
        way = [pixels(place) for place in np.asarray(path, float)]
        draw.line(way, fill=color, width=max(1, pixels_per_m // 16), joint="curve")
        draw.circle(way[0], pixels_per_m / 10, fill=START)
        draw.circle(pixels(goal), GOAL_RADIUS_M * pixels_per_m, outline=color, width=2)
    return np.asarray(image)
