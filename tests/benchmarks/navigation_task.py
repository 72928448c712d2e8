"""How hard PointGoal is: hand-written drivers on the same episodes.

    python -m tests.benchmarks.navigation_task --json tests/benchmarks/results/navigation_task.json

The protocol wants a blind driver at a success rate (SR) of at most 0.5 and an oracle at 0.85 or
more. `planner` knows the map: the upper bound. `gaps` reacts to LiDAR and goal, without a map and
almost without memory. `greedy` is blind; `bumping` is blind with a bumper. SPL is the mean of
success · shortest / max(driven, shortest).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from limpet.contracts.reports import format_table, write_json
from limpet.runtime.machine import describe_machine
from limpet.training.navigation.controllers import (
    Bumping,
    Controller,
    Gaps,
    Greedy,
    Planner,
    plan_way,
)
from limpet.training.navigation.environment import PointGoalConfig, PointGoalEnv, action_of
from limpet.training.navigation.robot import polar

LAYOUTS = (5000, 5100)


def drivers(env: PointGoalEnv, number: int) -> dict[str, Callable[[], Controller]]:
    """What makes each driver for the episode that `env` has just begun."""
    config, episode = env.config, env.episode
    layout, start = env.scenes.layout(episode.layout), np.array(episode.start[:2])
    return {
        "planner": lambda: Planner(
            config.robot, plan_way(layout, config.robot, start, episode.goal)
        ),
        "gaps": lambda: Gaps(config.robot, config.lidar),
        "bumping": lambda: Bumping(config.robot, np.random.default_rng(number)),
        "greedy": lambda: Greedy(config.robot),
    }


def drive(env: PointGoalEnv, controller: Controller) -> dict[str, Any]:
    """One episode to its end."""
    touched, contacts = False, 0
    while True:
        goal = polar(env.pose, env.episode.goal)
        v, omega = controller.speeds(env.pose, goal, env.observed["lidar"], touched)
        *_, terminated, truncated, info = env.step(action_of(v, omega, env.config.robot))
        touched, contacts = info["contacts"] > contacts, info["contacts"]
        if terminated or truncated:
            return info


def main() -> None:
    """Measures, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    config = PointGoalConfig(layouts=LAYOUTS, senses=("lidar", "goal", "proprioception"))
    env = PointGoalEnv(config)
    ends: dict[str, list[dict[str, Any]]] = {}
    episodes = []
    for number in range(options.episodes):
        env.reset(seed=number)
        episode = env.episode
        episodes.append(episode)
        for name, make in drivers(env, number).items():
            env.reset(seed=number, options={"episode": episode})
            ends.setdefault(name, []).append(drive(env, make()))
    rows = [
        {
            "driver": name,
            "sr": float(np.mean([info["success"] for info in infos])),
            "spl": float(np.mean([info["spl"] for info in infos])),
            "contacts": float(np.mean([info["contacts"] for info in infos])),
        }
        for name, infos in ends.items()
    ]
    print(
        format_table(
            ["driver", "SR", "SPL", "contacts"],
            [
                [row["driver"], f"{row['sr']:.3f}", f"{row['spl']:.3f}", f"{row['contacts']:.1f}"]
                for row in rows
            ],
        )
    )
    straight = [np.hypot(*np.subtract(e.start[:2], e.goal)) for e in episodes]
    shortest = np.array([e.shortest_m for e in episodes])
    report = {
        "machine": describe_machine(),
        "episodes": options.episodes,
        "layouts": LAYOUTS,
        "rules": config.episodes,
        "shortest_m": float(shortest.mean()),
        "detour": float((shortest / straight).mean()),
        "rows": rows,
    }
    write_json(options.json_file, report)


if __name__ == "__main__":
    main()
