"""How well a policy drives: the same episodes for every policy, in layouts and appearances by set.

Success rate (SR), and SPL = mean of success · shortest / max(driven, shortest) (Anderson et al.
2018, "On Evaluation of Embodied Navigation Agents"). An episode's noise follows from its number, so
that two policies meet the same episodes in all that they do not change themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from limpet.contracts.errors import UsageError
from limpet.training.intervals import Interval, bootstrap, wilson
from limpet.training.navigation.environment import (
    Observation,
    PointGoalConfig,
    PointGoalEnv,
    Sense,
)
from limpet.training.navigation.policy import Actor
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import Perception, inputs_of
from limpet.training.threads import one_thread

UNSEEN = PointGoalConfig(layouts=(5000, 5100), appearance_set="test", appearances=10)
"""What figures to report come from: neither layouts nor appearances were ever trained in."""
HELD_OUT = PointGoalConfig(layouts=(4000, 4040), appearance_set="policy", appearances=10)
"""What anything is chosen by: layouts of its own, appearances of the policy's training."""

Float32 = NDArray[np.float32]

Drive = Callable[[Sequence[Observation], Float32], tuple[Float32, Float32]]
"""From observations, and what was remembered before each (zeros at first), to the environment's
actions, each within ±1, and what to remember. n, (n, M) → (n, 2), (n, M)"""


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """One episode driven.

    Attributes:
        number: Of the episode; the same number is the same episode.
        layout, appearance: Seeds.
        success, spl: How it ended.
        contacts: Commands that ended in contact.
        steps: Commands.
        path: Where the robot was: x, y (m) before each command and last. (steps + 1, 2)
        goal: x, y (m).
    """

    number: int
    layout: int
    appearance: int
    success: bool
    spl: float
    contacts: int
    steps: int
    goal: tuple[float, float]
    path: list[tuple[float, float]]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of some trips.

    Attributes:
        episodes: How many.
        sr: Success rate, Wilson's interval.
        spl: Bootstrap interval.
        contacts: Mean number of contacts.
    """

    episodes: int
    sr: Interval
    spl: Interval
    contacts: float


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What `evaluate_policy` found.

    Attributes:
        task: Where.
        overall: All trips.
        by_appearance: Trips of each appearance, by its seed.
        trips: In the order of their numbers.
    """

    task: PointGoalConfig
    overall: Outcome
    by_appearance: dict[int, Outcome]
    trips: list[Trip]


def evaluate_policy(
    actor: Actor,
    perceive: Perception,
    task: PointGoalConfig = UNSEEN,
    *,
    episodes: int = 200,
    at_once: int = 8,
    library: SceneLibrary | None = None,
) -> Evaluation:
    """Drives episodes by the policy's mean action: as `evaluate_driver`.

    Args:
        actor: The policy.
        perceive: Its features, as in training.
        task: Layouts and appearances; what is observed follows from `perceive`.
        episodes: How many.
        at_once: How many are driven together.
        library: Scenes; its textures are those of training.

    Raises:
        UsageError: Fewer episodes than one.
    """

    @torch.inference_mode()
    def drive(seen: Sequence[Observation], memory: Float32) -> tuple[Float32, Float32]:
        state = actor.state(inputs_of(actor, perceive, seen), torch.from_numpy(memory))
        return actor.act(state).numpy(), actor.memory_of(state).numpy()

    return evaluate_driver(
        drive,
        perceive.needs,
        task,
        memory=actor.memory,
        episodes=episodes,
        at_once=at_once,
        library=library,
    )


def evaluate_driver(
    drive: Drive,
    needs: Sequence[Sense],
    task: PointGoalConfig = UNSEEN,
    *,
    memory: int = 0,
    episodes: int = 200,
    at_once: int = 8,
    library: SceneLibrary | None = None,
) -> Evaluation:
    """Drives episodes.

    Episode k takes the layout k, and the appearance k, modulo how many there are of each.

    Args:
        drive: What drives.
        needs: What it must observe beside goal and motion.
        task: Layouts and appearances.
        memory: M, numbers that it remembers from one command to the next.
        episodes: How many.
        at_once: How many are driven together.
        library: Scenes.

    Raises:
        UsageError: Fewer episodes than one.
    """
    if episodes < 1:
        raise UsageError(f"{episodes} episodes, wanted 1 or more")
    senses = tuple(dict.fromkeys((*needs, "goal", "proprioception")))
    task = msgspec.structs.replace(task, senses=senses)
    if library is None:
        library = SceneLibrary(painted=2 * at_once)
    trips: list[Trip] = []
    with one_thread():
        # Those of one scene together: it is painted once.
        order = sorted(range(episodes), key=lambda number: _scene_of(number, task)["layout"])
        for start in range(0, episodes, at_once):
            numbers = order[start : start + at_once]
            envs = [PointGoalEnv(task, library=library) for _ in numbers]
            trips += _drive(drive, envs, numbers, memory)
    trips.sort(key=lambda trip: trip.number)
    appearances = sorted({trip.appearance for trip in trips})
    return Evaluation(
        task=task,
        overall=outcome(trips),
        by_appearance={
            seed: outcome([trip for trip in trips if trip.appearance == seed])
            for seed in appearances
        },
        trips=trips,
    )


def _drive(
    drive: Drive, envs: Sequence[PointGoalEnv], numbers: Sequence[int], memory: int
) -> list[Trip]:
    """Some episodes together, each to its end."""
    seen = {
        number: env.reset(seed=number, options=_scene_of(number, env.config))[0]
        for number, env in zip(numbers, envs, strict=True)
    }
    driving = dict(zip(numbers, envs, strict=True))
    paths = {number: [_place(env)] for number, env in driving.items()}
    remembered = {number: np.zeros(memory, np.float32) for number in numbers}
    trips = {}
    while driving:
        actions, memories = drive(
            [seen[number] for number in driving], np.stack([remembered[n] for n in driving])
        )
        remembered = dict(zip(driving, memories, strict=True))
        for (number, env), action in zip(list(driving.items()), actions, strict=True):
            seen[number], _, terminated, truncated, info = env.step(action)
            paths[number].append(_place(env))
            if terminated or truncated:
                del driving[number]
                trips[number] = Trip(
                    number=number,
                    layout=info["layout"],
                    appearance=info["appearance"],
                    success=bool(info["success"]),
                    spl=float(info["spl"]),
                    contacts=int(info["contacts"]),
                    steps=len(paths[number]) - 1,
                    goal=env.episode.goal,
                    path=paths[number],
                )
    return [trips[number] for number in numbers]


def _scene_of(number: int, task: PointGoalConfig) -> dict[str, int]:
    first, stop = task.layouts
    return {
        "layout": first + number % (stop - first),
        "appearance": number % task.appearances,
    }


def _place(env: PointGoalEnv) -> tuple[float, float]:
    return float(env.pose[0]), float(env.pose[1])


def outcome(trips: Sequence[Trip]) -> Outcome:
    """Figures of some trips, with 95 % intervals."""
    spl = np.array([trip.spl for trip in trips])
    return Outcome(
        episodes=len(trips),
        sr=wilson(sum(trip.success for trip in trips), len(trips)),
        spl=bootstrap(spl),
        contacts=float(np.mean([trip.contacts for trip in trips])),
    )
