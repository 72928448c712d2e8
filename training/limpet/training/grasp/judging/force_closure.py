"""Force closure of two point contacts: the lowest friction coefficient at which a grasp holds.

Two contacts with friction hold an object if the line between them lies inside both friction cones
(Nguyen 1988); a cone's half angle is arctan μ. Whether the surface's normals point out or in is
ignored, as in the public evaluator, whose meshes are not all oriented.

Dimension legend: n grasps, 2 fingers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.training.grasp.surfaces import Contacts, Surface

FRICTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
"""Friction coefficients that the public evaluator tries."""

NONE = -1.0
"""Lowest friction of a grasp that holds at none of them, or fails otherwise."""

_ROUNDING_RAD = 1e-6  # rays are float32: a face tilted by exactly arctan μ still counts


def needed_friction(contacts: Contacts) -> NDArray[np.float64]:
    """Friction coefficient from which each grasp is in force closure, infinite without. (n,)"""
    line = contacts.points[:, 1] - contacts.points[:, 0]  # (n, 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        line = line / np.linalg.norm(line, axis=1, keepdims=True)
        cosines = np.abs(np.einsum("nfk,nk->nf", contacts.normals, line))
        angle = np.arccos(np.clip(cosines.min(1), 0, 1))
        needed = np.tan(np.maximum(angle - _ROUNDING_RAD, 0))
    return np.where(contacts.found, needed, np.inf)


def lowest_friction(
    surface: Surface, centres: NDArray[Any], axes: NDArray[Any], widths_m: NDArray[Any]
) -> NDArray[np.float64]:
    """The lowest of `FRICTIONS` at which each grasp holds, `NONE` where none does. (n,)

    Args:
        surface: The object's.
        centres: Middle between the fingertips, in the surface's frame, m. (n, 3)
        axes: Closing direction, unit length. (n, 3)
        widths_m: Opening. (n,)
    """
    needed = needed_friction(surface.contacts(centres, axes, widths_m))
    steps = np.asarray(FRICTIONS)
    index = np.searchsorted(steps, needed)
    return np.where(index < len(steps), steps[np.minimum(index, len(steps) - 1)], NONE)
