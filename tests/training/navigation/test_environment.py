"""The PointGoal environment: Gymnasium's checker, determinism, reward, difficulty's ends."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from limpet.contracts.errors import DataError, UsageError
from limpet.training.navigation.controllers import Controller, Gaps, Greedy, Planner, plan_way
from limpet.training.navigation.environment import (
    ENVIRONMENT_ID,
    PointGoalConfig,
    PointGoalEnv,
    action_of,
    speeds_of,
)
from limpet.training.navigation.episodes import EpisodeRules, sample_episode
from limpet.training.navigation.robot import Robot, polar
from limpet.training.navigation.scenes import SceneLibrary

BLIND = PointGoalConfig(layouts=(3, 5), senses=("goal", "proprioception"))
SCANNING = msgspec.structs.replace(BLIND, senses=("lidar", "goal", "proprioception"))


def drive(env: PointGoalEnv, controller: Controller) -> dict[str, object]:
    """Drives one episode and returns the last info."""
    touched, contacts = False, 0
    while True:
        ranges = env.observed.get("lidar", np.empty(0, np.float32))
        goal = polar(env.pose, env.episode.goal)
        v, omega = controller.speeds(env.pose, goal, ranges, touched)
        *_, terminated, truncated, info = env.step(action_of(v, omega, env.config.robot))
        touched, contacts = info["contacts"] > contacts, info["contacts"]
        if terminated or truncated:
            return info


def test_gymnasiums_own_checker_passes(scenes: SceneLibrary) -> None:
    config = msgspec.structs.replace(
        PointGoalConfig(), layouts=(3, 4), appearance_set="test", appearances=1
    )
    env = gymnasium.make(ENVIRONMENT_ID, config=config, library=scenes, render_mode="rgb_array")
    check_env(env.unwrapped)
    env.reset(seed=0)
    image = env.render()
    assert isinstance(image, np.ndarray)
    assert image.shape == (128, 128, 3)
    env.close()


def test_an_episode_is_the_same_for_a_seed(scenes: SceneLibrary) -> None:
    config = PointGoalConfig(layouts=(3, 4), appearance_set="test", appearances=1)
    runs = []
    for seed in (7, 7, 8):
        env = PointGoalEnv(config, library=scenes)
        env.reset(seed=seed)
        seen = [env.step(np.array([0.5, 0.3], np.float32))[:2] for _ in range(5)]
        runs.append((env.episode, seen))
    assert runs[0][0] == runs[1][0]
    assert runs[0][0] != runs[2][0]
    for (one, reward), (other, again) in zip(runs[0][1], runs[1][1], strict=True):
        assert reward == again
        assert all(np.array_equal(one[sense], other[sense]) for sense in one)


def test_only_what_is_asked_for_is_observed_and_nothing_is_rendered() -> None:
    env = PointGoalEnv(SCANNING)
    observed, _ = env.reset(seed=0)
    assert sorted(observed) == ["goal", "lidar", "proprioception"]
    assert env.scenes.painted.cache_info().misses == 0  # type: ignore[attr-defined]
    blind = PointGoalEnv(BLIND)
    blind.reset(seed=0)
    assert blind.scenes.geometry.cache_info().misses == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(4))
def test_a_planner_arrives_on_a_short_way(scenes: SceneLibrary, seed: int) -> None:
    env = PointGoalEnv(BLIND, library=scenes)
    env.reset(seed=seed)
    layout = scenes.layout(env.episode.layout)
    way = plan_way(layout, env.config.robot, env.pose[:2], env.episode.goal)
    info = drive(env, Planner(env.config.robot, way))
    assert info["success"]
    assert 0.8 < float(info["spl"]) <= 1.0  # type: ignore[arg-type]


def test_a_greedy_driver_runs_into_things_and_is_truncated(scenes: SceneLibrary) -> None:
    env = PointGoalEnv(msgspec.structs.replace(BLIND, steps=120), library=scenes)
    outcomes = []
    for seed in range(4):
        env.reset(seed=seed)
        outcomes.append(drive(env, Greedy(env.config.robot)))
    assert sum(bool(info["success"]) for info in outcomes) <= 1
    assert max(int(info["contacts"]) for info in outcomes) > 20  # type: ignore[call-overload]
    assert all(info["spl"] == 0.0 for info in outcomes if not info["success"])


def test_a_lidar_driver_gets_through_a_door_that_a_greedy_one_misses(scenes: SceneLibrary) -> None:
    env = PointGoalEnv(SCANNING, library=scenes)
    arrived = 0
    for seed in range(5):
        env.reset(seed=seed)
        arrived += bool(drive(env, Gaps(env.config.robot, env.config.lidar))["success"])
    assert arrived >= 3


def test_reward_is_progress_plus_success_and_contact(scenes: SceneLibrary) -> None:
    env = PointGoalEnv(BLIND, library=scenes)
    _, info = env.reset(seed=0)
    layout, config = scenes.layout(env.episode.layout), env.config
    driver = Planner(config.robot, plan_way(layout, config.robot, env.pose[:2], env.episode.goal))
    total, steps, start = 0.0, 0, info["distance_m"]
    while True:
        goal = polar(env.pose, env.episode.goal)
        action = action_of(*driver.speeds(env.pose, goal, np.empty(0, "f4"), False), config.robot)
        _, reward, terminated, _, info = env.step(action)
        total, steps = total + reward, steps + 1
        if terminated:
            break
    wanted = config.progress_reward * (start - info["distance_m"]) + config.success_reward
    wanted += steps * config.step_reward + info["contacts"] * config.contact_reward
    assert total == pytest.approx(wanted)
    assert info["distance_m"] <= config.success_radius_m
    assert info["driven_m"] > 0.8 * info["shortest_m"] - config.success_radius_m


def test_proprioception_tells_of_a_contact(scenes: SceneLibrary) -> None:
    env = PointGoalEnv(BLIND, library=scenes)
    env.reset(seed=1)
    for _ in range(100):
        observed, reward, _, _, info = env.step(np.array([1.0, 0.0], np.float32))
        if info["contacts"]:
            break
    assert info["contacts"] == 1
    assert observed["proprioception"][0] < env.config.robot.speed
    assert reward < env.config.progress_reward * 0.05 + env.config.contact_reward


def test_an_episode_can_be_given(scenes: SceneLibrary) -> None:
    env = PointGoalEnv(BLIND, library=scenes)
    env.reset(seed=0)
    episode = env.episode
    env.reset(seed=5, options={"episode": episode, "appearance": 2})
    assert (env.episode, env.appearance) == (episode, 2)
    assert tuple(env.pose) == episode.start


def test_actions_and_speeds_are_inverse() -> None:
    robot = Robot()
    for v, omega in ((0.0, 0.0), (0.5, -1.5), (0.2, 0.7)):
        assert speeds_of(action_of(v, omega, robot), robot) == pytest.approx((v, omega))
    assert speeds_of(np.array([9.0, -9.0], np.float32), robot) == (0.5, -1.5)


def test_episodes_keep_the_rules(scenes: SceneLibrary) -> None:
    rules = EpisodeRules(nearest_m=3.0, farthest_m=5.0, least_detour=1.2, largest_detour=1.5)
    space, rng = scenes.layout(3).free_space(0.18), np.random.default_rng(0)
    for _ in range(10):
        episode, field = sample_episode(scenes.layout(3), space, rules, rng)
        straight = np.hypot(*np.subtract(episode.start[:2], episode.goal))
        assert 2.9 < episode.shortest_m < 5.1
        assert 1.15 * straight < episode.shortest_m < 1.55 * straight
        assert field.goal == episode.goal


def test_rules_that_nothing_keeps_are_refused(scenes: SceneLibrary) -> None:
    rules = EpisodeRules(nearest_m=80.0, farthest_m=90.0)
    with pytest.raises(DataError, match="layout 3 has no start and goal"):
        sample_episode(
            scenes.layout(3), scenes.layout(3).free_space(0.18), rules, np.random.default_rng(0)
        )


def test_a_wrong_configuration_is_refused() -> None:
    with pytest.raises(UsageError, match="wanted 0 <= first < stop"):
        PointGoalEnv(PointGoalConfig(layouts=(5, 5)))


def test_a_missing_folder_of_textures_is_named(tmp_path: Path) -> None:
    env = PointGoalEnv(PointGoalConfig(layouts=(3, 4)), textures=tmp_path)
    with pytest.raises(DataError, match="texture images"):
        env.reset(seed=0)
