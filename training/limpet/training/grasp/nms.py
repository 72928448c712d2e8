"""Grasps without those that are nearly the same as a better one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def suppress(
    rows: NDArray[Any], translation_m: float = 0.03, rotation_rad: float = np.pi / 6
) -> NDArray[np.intp]:
    """Indices of the grasps that stay, best first. (g, 17) → (k,)"""
    order = np.argsort(-rows[:, 0], kind="stable")
    rotation, place = rows[order, 4:13], rows[order, 13:16]
    least = 1 + 2 * np.cos(rotation_rad)  # of the trace of the turn between two rotations
    left = np.ones(len(order), bool)
    kept = []
    for index in range(len(order)):
        if left[index]:
            kept.append(index)
            near = np.linalg.norm(place - place[index], axis=1) < translation_m
            left &= ~(near & (rotation @ rotation[index] > least))
    return order[kept]
