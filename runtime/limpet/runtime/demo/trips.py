"""Ways that a robot drove: kept as npz, drawn from above.

Dimension legend: k obstacles, p corners of each; n places of the robot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.tensors import Array
from limpet.runtime.demo.drawing import FAINT, FOUND, INK, OUTSIDE, SIGNAL, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {True: SIGNAL, False: FOUND, None: OUTSIDE}
"""Of a way that led to its goal, of one that did not, of one that was broken off."""
PER_ROW = 3
"""Layouts side by side."""


@dataclass(frozen=True, kw_only=True)
class Trip:
    """One way driven, for a picture.

    Attributes:
        path: Places of the robot, m. (n, 2)
        goal: Where it had to go, m. (2,)
        success: Whether it came there; None where the episode did not end.
        obstacles: What stood in its way. (k, p, 2)
    """

    path: NDArray[np.float64]
    goal: NDArray[np.float64]
    success: bool | None
    obstacles: NDArray[np.float64]


def write_trips(path: Path, trips: Iterable[Trip]) -> None:
    """Writes ways driven as npz."""
    arrays: dict[str, Array] = {}
    for index, trip in enumerate(trips):
        arrays |= {f"{index}/path": trip.path, f"{index}/goal": trip.goal}
        arrays[f"{index}/obstacles"] = trip.obstacles
        arrays[f"{index}/success"] = np.array(-1 if trip.success is None else int(trip.success))
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_trips(path: Path) -> list[Trip]:
    """Reads what `write_trips` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        count = len({name.partition("/")[0] for name in archive.files})
        return [
            Trip(
                path=archive[f"{index}/path"],
                goal=archive[f"{index}/goal"],
                success=(None, False, True)[int(archive[f"{index}/success"]) + 1],
                obstacles=archive[f"{index}/obstacles"],
            )
            for index in range(count)
        ]


def draw_trips(path: Path, trips: Sequence[Trip], title: str) -> None:
    """Draws each layout from above with the ways through it, and writes it as PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layouts: list[list[Trip]] = []
    for trip in trips:
        same = (found for found in layouts if np.array_equal(found[0].obstacles, trip.obstacles))
        if (found := next(same, None)) is not None:
            found.append(trip)
        else:
            layouts.append([trip])
    columns = max(1, min(PER_ROW, len(layouts)))
    rows = max(1, -(-len(layouts) // columns))
    width = 8.0 if columns == 1 else 5.0
    with mpl.rc_context(STYLE):
        size = (width * columns, 0.8 * width * rows + 0.5)
        figure = Figure(figsize=size, dpi=130, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=12, fontweight="bold")
        for index, layout in enumerate(layouts):
            _draw_layout(figure.add_subplot(rows, columns, index + 1), layout)
        figure.savefig(path, dpi=130)


def _draw_layout(axis: Axes, trips: Sequence[Trip]) -> None:
    from matplotlib.collections import PolyCollection

    obstacles = PolyCollection([*trips[0].obstacles], facecolor="#cbd2d9", edgecolor=FAINT)
    obstacles.set_linewidth(0.4)
    axis.add_collection(obstacles)
    for trip in trips:
        color = COLORS[trip.success]
        axis.plot(*trip.path.T, color=color, linewidth=1.6, solid_joinstyle="round", zorder=3)
        axis.scatter(trip.path[:1, 0], trip.path[:1, 1], s=22, color=INK, zorder=4, linewidths=0)
        axis.scatter(
            trip.goal[:1], trip.goal[1:], s=90, color=color, marker="*", zorder=4, linewidths=0
        )
    arrived = sum(trip.success is True for trip in trips)
    ended = sum(trip.success is not None for trip in trips)
    axis.set_title(f"{arrived} of {ended} arrived; dot: start, star: goal", fontsize=9, color=FAINT)
    axis.set_aspect("equal")
    axis.autoscale_view()
    axis.set_xlabel("m", color=FAINT)
