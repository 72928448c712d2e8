"""The simulated robot that a runtime's node drives."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from limpet.training.navigation.environment import PointGoalEnv, action_of
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.simulator import UNSEEN, Simulator
from limpet.training.navigation.solids import Footprints

TASK = msgspec.structs.replace(UNSEEN, layouts=(3, 4), appearances=1, steps=30)
COMMANDS = [(0.4, 0.3), (0.5, -1.0), (0.2, 0.0)]


@pytest.fixture
def simulator(scenes: SceneLibrary) -> Simulator:
    return Simulator(TASK, library=scenes)


def test_it_drives_as_the_environment_does_in_metres_per_second(
    simulator: Simulator, scenes: SceneLibrary
) -> None:
    env = PointGoalEnv(TASK, library=scenes)
    pairs = [(simulator.begin(7), env.reset(seed=7)[0])]
    for speed, turn_rate in COMMANDS:
        driven = simulator.drive(speed, turn_rate)
        pairs.append((driven, env.step(action_of(speed, turn_rate, TASK.robot))[0]))
    for found, wanted in pairs:
        assert set(found) == {"image", "goal", "proprioception"}
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)
    np.testing.assert_allclose(driven["proprioception"], COMMANDS[-1], rtol=1e-6)


def test_the_same_number_is_the_same_episode(simulator: Simulator) -> None:
    first, other, again = simulator.begin(1), simulator.begin(2), simulator.begin(1)
    np.testing.assert_array_equal(first["image"], again["image"])
    assert not np.array_equal(first["goal"], other["goal"])


def test_an_episode_is_over_after_its_time(simulator: Simulator) -> None:
    simulator.begin(0)
    for _ in range(TASK.steps - 1):
        simulator.drive(0.0, 0.0)
        assert not simulator.over
    simulator.drive(0.0, 0.0)
    assert simulator.over
    assert not simulator.info["success"]


def test_outlines_lie_on_the_obstacles_edges(simulator: Simulator, scenes: SceneLibrary) -> None:
    """Each point is no further than a hair from its obstacle, and a step inside lies within it."""
    simulator.begin(0)
    outlines = simulator.obstacles()
    footprints = scenes.layout(3).footprints
    assert outlines.shape == (len(footprints.table), 20, 2)
    assert footprints.clearance(outlines.reshape(-1, 2)).max() < 1e-6
    middles = outlines.mean(axis=1)
    np.testing.assert_allclose(middles, footprints.table[:, :2], atol=1e-9)
    outside = middles[:, None] + (outlines - middles[:, None]) * 1.001 + 1e-12
    for row, points in zip(footprints.table, outside, strict=True):
        assert Footprints(row[None]).clearance(points).min() > 0.0
