"""Evaluation: paired episodes, intervals, the picture of trips."""

from __future__ import annotations

import pytest

from limpet.contracts.errors import UsageError
from limpet.training.navigation.environment import PointGoalConfig
from limpet.training.navigation.policy import Actor
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.policy_evaluation import (
    HELD_OUT,
    UNSEEN,
    evaluate_policy,
)
from limpet.training.navigation.robot import Robot
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import Nothing, Scan

TASK = PointGoalConfig(layouts=(3, 5), appearances=2, steps=30)


def test_every_policy_meets_the_same_episodes(scenes: SceneLibrary) -> None:
    blind = evaluate_policy(
        Actor(0, 8, Robot()), Nothing(), TASK, episodes=5, at_once=2, library=scenes
    )
    scan = Scan(TASK.lidar)
    seeing = evaluate_policy(
        Actor(scan.features, 8, Robot()), scan, TASK, episodes=5, at_once=3, library=scenes
    )
    for one, other in zip(blind.trips, seeing.trips, strict=True):
        same = ("number", "layout", "appearance", "goal")
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]
        assert one.path[0] == other.path[0]
        assert len(one.path) == one.steps + 1
    assert [trip.number for trip in blind.trips] == [*range(5)]
    assert {trip.layout for trip in blind.trips} == {3, 4}
    assert [blind.by_appearance[seed].episodes for seed in (0, 1)] == [3, 2]


def test_success_is_counted(scenes: SceneLibrary) -> None:
    easy = PointGoalConfig(layouts=(3, 4), appearances=1, steps=2, success_radius_m=10.0)
    found = evaluate_policy(
        Actor(0, 8, Robot()), Nothing(), easy, episodes=3, library=scenes
    ).overall
    assert (found.episodes, found.sr.mean) == (3, 1.0)
    assert found.spl.mean == pytest.approx(1.0)


def test_what_is_reported_was_never_seen_in_training() -> None:
    seen = range(*PolicyConfig().task.layouts)
    assert not {*range(*UNSEEN.layouts)} & ({*seen} | {*range(*HELD_OUT.layouts)})
    assert not {*range(*HELD_OUT.layouts)} & {*seen}
    assert (UNSEEN.appearance_set, HELD_OUT.appearance_set) == ("test", "policy")


def test_no_episodes_are_refused() -> None:
    with pytest.raises(UsageError, match="wanted 1 or more"):
        evaluate_policy(Actor(0, 8, Robot()), Nothing(), TASK, episodes=0)
