"""A picture of a cloud and the grasps in it: as the camera sees it, and from above.

Dimension legend: n points, g grasps, k corners of a gripper's outline.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import MissingExtraError, UsageError
from limpet.contracts.grasps import DEPTH, SCORE, TRANSLATION, WIDTH, rotations_of
from limpet.contracts.grippers import Gripper
from limpet.contracts.planes import Plane, thin
from limpet.runtime.demo.drawing import FAINT, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

SHOWN = 20
"""Grasps drawn, the best."""
STEM_M = 0.04
"""Length of the line behind the base that shows the approach."""
_POINTS = 60_000
_AROUND = 0.2  # of the size of what stands out: shown around it
_LEAST_AROUND = 0.1


def outlines(rows: Float32, gripper: Gripper) -> Float64:
    """Each gripper as one line: tip, finger, base, stem and back, finger, tip. (g, k, 3)"""
    half, depth = rows[:, WIDTH] / 2, rows[:, DEPTH]
    back, behind = -gripper.base_m, -gripper.base_m - STEM_M
    corners: list[tuple[float | Float32, int]] = [
        (depth, -1), (back, -1), (back, 0), (behind, 0), (back, 0), (back, 1), (depth, 1)
    ]  # fmt: skip
    own = np.zeros((len(rows), len(corners), 3))
    for index, (along, side) in enumerate(corners):
        own[:, index, 0] = along
        own[:, index, 1] = side * half
    turned = np.einsum("gij,gkj->gki", rotations_of(rows).astype(np.float64), own)
    placed: Float64 = turned + rows[:, None, TRANSLATION]
    return placed


def draw_grasps(
    path: Path,
    cloud: Float32,
    observed: Float32,
    candidates: Float32,
    rows: Float32,
    gripper: Gripper,
    plane: Plane | None,
    title: str,
) -> None:
    """Draws the cloud, coloured by distance, and the best grasps, and writes it as PNG.

    Args:
        path: The picture.
        cloud: What the reference camera saw, in its frame. (n, 3)
        observed: What of all views lies around the foreground; all of the cloud where it is empty.
        candidates: What stands out, which the picture is about. (n, 3)
        rows: Grasps, score descending. (g, 17)
        gripper: Its sizes.
        plane: The table; without one the second view is along the camera's y axis.
        title: Above it.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UsageError: The picture cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("dashboard", "matplotlib") from error
    best = rows[:SHOWN]
    lines = outlines(best, gripper)
    focus = observed if len(observed) else cloud
    cloud = thin(cloud, _POINTS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 6.2), dpi=110, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=11, fontweight="bold")
        seen, above = figure.subplots(1, 2)
        axes = np.array([[1.0, 0, 0], [0, 0, -1.0]]) if plane is None else _upright(plane)
        height = -focus[:, 1] if plane is None else plane.heights(focus)
        objects = candidates if len(candidates) else focus
        near, far = (float(x) for x in np.quantile(focus[:, 2], (0.01, 0.99)))
        cloud = cloud[np.argsort(-cloud[:, 2], kind="stable")]  # what is near hides what is far
        _panel(seen, _perspective(cloud), cloud[:, 2], _perspective(lines), best[:, SCORE],
               _perspective(objects), (near, far))  # fmt: skip
        seen.set_title("as the camera sees it", fontsize=9, color=FAINT)
        low, high = (float(x) for x in np.quantile(height, (0.01, 0.99)))
        order = np.argsort(height, kind="stable")  # what is above hides what is below
        _panel(above, focus[order] @ axes.T, -height[order], lines @ axes.T, best[:, SCORE],
               objects @ axes.T, (-max(high, low + 1e-3), -low))  # fmt: skip
        name = "along the camera's y axis" if plane is None else "from above the table"
        above.set_title(f"{name}, metres", fontsize=9, color=FAINT)
        try:
            figure.savefig(path, dpi=110)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be written: {error}", "name a .png file") from error


def _perspective(points: NDArray[np.floating]) -> Float64:
    """Where points of the camera's frame are in its image, y up. (..., 3) → (..., 2)"""
    flat: Float64 = points[..., :2] / np.maximum(points[..., 2:], 1e-3) * [1.0, -1.0]
    return flat


def _upright(plane: Plane) -> Float64:
    """Axes on the table seen from above, the camera's x axis to the right. (2, 3)"""
    right = np.array([1.0, 0, 0])
    right -= (right @ plane.normal) * plane.normal
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(plane.normal, right)])


def _panel(
    axis: Axes,
    points: NDArray[np.floating],
    colour: NDArray[np.floating],
    lines: Float64,
    scores: Float32,
    focus: NDArray[np.floating],
    limits: tuple[float, float],
) -> None:
    from matplotlib.collections import LineCollection

    x, y = points.T
    axis.scatter(
        x, y, c=colour, s=60_000 / max(len(points), 6_000), cmap="GnBu_r", linewidths=0,
        vmin=limits[0], vmax=limits[1] + 0.3 * (limits[1] - limits[0]),
    )  # fmt: skip
    found = LineCollection([*lines[::-1]], cmap="YlOrRd", linewidths=1.6)
    found.set_array(scores[::-1])
    if len(scores):
        found.set_clim(min(0.0, float(scores.min())), max(1.0, float(scores.max())))
    axis.add_collection(found)
    (left, right), (bottom, top) = (
        (float(low), float(high)) for low, high in np.quantile(focus, (0.01, 0.99), 0).T
    )
    around = max(_LEAST_AROUND, _AROUND * max(right - left, top - bottom))
    axis.set_xlim(left - around, right + around)
    axis.set_ylim(bottom - around, top + around)
    axis.set_aspect("equal")
    axis.set_facecolor("#eef3f8")
