"""Colours, style and lines of limpet's pictures. Dimension legend: n rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 6000
"""Points of a line at most: of more rows, the extremes of each stretch are drawn."""

INK, FAINT, SIGNAL, SCORE = "#1f2933", "#7b8794", "#2b6cb0", "#3e4c59"
TRUTH, FOUND, OUTSIDE, TRAINING = "#f6c453", "#c53030", "#8d99a6", "#eef1f5"

STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#cbd2d9",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def line(axis: Axes, x_n: NDArray[Any], y_n: NDArray[np.float64], **style: Any) -> None:
    """Draws values (n,) at positions (n,); of many rows the extremes of each stretch."""
    axis.plot(*_extremes(x_n, y_n), solid_joinstyle="round", **style)


def _extremes(x_n: NDArray[Any], y_n: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The lowest and highest value of each stretch, where there are more than `POINTS` rows."""
    if len(y_n) <= POINTS:
        return x_n, y_n
    edges = np.linspace(0, len(y_n), POINTS // 2 + 1).astype(np.intp)
    low = np.fmin.reduceat(y_n, edges[:-1])
    high = np.fmax.reduceat(y_n, edges[:-1])
    return np.repeat(x_n[edges[:-1]], 2), np.column_stack([low, high]).ravel()
