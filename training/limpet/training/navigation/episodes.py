"""PointGoal episodes: where the robot starts, where it has to go, how far that is."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from limpet.contracts.errors import DataError
from limpet.training.navigation.free_space import DistanceField, FreeSpace
from limpet.training.navigation.layouts import Layout

GOALS_TRIED = 30


class EpisodeRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which episodes are drawn.

    Attributes:
        nearest_m, farthest_m: Bounds of the geodesic distance from start to goal.
        least_detour: Least ratio of geodesic to straight distance: what a robot that only knows
            the goal's direction runs into.
        largest_detour: Largest such ratio.
    """

    nearest_m: float = 2.0
    farthest_m: float = 6.0
    least_detour: float = 1.05
    largest_detour: float = 1.4


class Episode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task.

    Attributes:
        layout: Seed of the layout.
        start: x, y (m), yaw (rad).
        goal: x, y (m).
        shortest_m: Geodesic distance from start to goal.
    """

    layout: int
    start: tuple[float, float, float]
    goal: tuple[float, float]
    shortest_m: float


def sample_episode(
    layout: Layout, space: FreeSpace, rules: EpisodeRules, rng: np.random.Generator
) -> tuple[Episode, DistanceField]:
    """Draws an episode: a goal, then a start among the places that the rules allow for it.

    Raises:
        DataError: The layout has none, or hardly any.
    """
    centers = space.centers(space.cells)
    for _ in range(GOALS_TRIED):
        cell = space.cells[rng.integers(len(space.cells))]
        goal_x, goal_y = (float(value) for value in space.centers(cell))
        field = space.distances_to((goal_x, goal_y))
        lengths = field.lengths[space.cells]
        straight = np.hypot(centers[:, 0] - goal_x, centers[:, 1] - goal_y)
        allowed = (lengths >= rules.nearest_m) & (lengths <= rules.farthest_m)
        allowed &= lengths >= rules.least_detour * straight
        allowed &= lengths <= rules.largest_detour * straight
        starts = np.flatnonzero(allowed)
        if len(starts):
            x, y = (float(value) for value in centers[rng.choice(starts)])
            yaw = float(rng.uniform(-math.pi, math.pi))
            shortest = field.at(np.array([x, y]))
            episode = Episode(
                layout=layout.seed, start=(x, y, yaw), goal=(goal_x, goal_y), shortest_m=shortest
            )
            return episode, field
    raise DataError(
        f"layout {layout.seed} has no start and goal within the rules {rules}",
        "widen nearest_m to farthest_m, or least_detour to largest_detour",
    )
