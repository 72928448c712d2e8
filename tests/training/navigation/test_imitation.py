"""Following a teacher: what is recorded, what is remembered, how trips are cut, what is learnt."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from limpet.training.navigation.environment import Observation, PointGoalConfig, PointGoalEnv
from limpet.training.navigation.fleet import Fleet
from limpet.training.navigation.imitation import Imitator, Trip, record, remembered, windows
from limpet.training.navigation.policy import Actor
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.robot import Robot
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import Scan
from limpet.training.navigation.teacher import (
    KNOWN,
    RESCUE_COMMANDS,
    SECTORS,
    STUCK_COMMANDS,
    Rescue,
)

TASK = PointGoalConfig(
    layouts=(3, 4), appearances=1, steps=12, senses=("lidar", "goal", "proprioception")
)
ROBOT = Robot()


def fleet_of(scenes: SceneLibrary, number: int = 2, task: PointGoalConfig = TASK) -> Fleet:
    envs = [PointGoalEnv(task, library=scenes) for _ in range(number)]
    begun = [0] * number

    def begin(place: int) -> Observation:
        begun[place] += 1
        return envs[place].reset(seed=100 * place + begun[place])[0]

    torch.manual_seed(0)
    scan = Scan(task.lidar)
    return Fleet(envs, Actor(scan.features, 8, ROBOT, memory=5), scan, begin)


def test_a_fleet_s_states_are_those_of_each_trip_driven_alone(scenes: SceneLibrary) -> None:
    fleet = fleet_of(scenes)
    states = [fleet.reset()]
    trips = record(fleet, 40, lambda now, begun: states.append(now) or fleet.hint)  # type: ignore[func-returns-value]
    actor = fleet._actor
    assert [len(trip.taught) for trip in trips] == [12, 12, 8, 8]
    first = trips[0].inputs  # of place 0
    with torch.no_grad():
        alone = actor.states(first[:, None], torch.zeros(1, 5))[:, 0]
    for step in range(12):
        np.testing.assert_allclose(states[1 + step][0], alone[step], atol=1e-6)
    # Where a trip begins its memory is empty, whatever the one before knew.
    again = actor.state(trips[2].inputs[:1], torch.zeros(1, 5)).detach()
    np.testing.assert_allclose(states[1 + 12][0], again[0], atol=1e-6)


def test_a_trip_keeps_what_was_done_and_what_the_teacher_would_have_done(
    scenes: SceneLibrary,
) -> None:
    fleet = fleet_of(scenes, 1)
    still = np.array([[-1.0, 0.0]], np.float32)
    (trip,) = record(fleet, 12, lambda states, begun: still)
    assert trip.actions.tolist() == [[-1.0, 0.0]] * 12
    assert trip.inputs.shape == (13, fleet.seen.shape[1])
    assert trip.known.shape == (12, KNOWN)
    assert not trip.terminated
    near = trip.known[0, :SECTORS]
    assert ((near > 0) & (near <= 1)).all()
    np.testing.assert_allclose(trip.known[:, SECTORS:].norm(dim=1), 1.0, atol=1e-5)
    # The robot did not move, so the teacher wants the same again, but for its noisy LiDAR.
    assert float((trip.taught - trip.taught[0]).abs().max()) < 0.5


def test_what_is_remembered_does_not_leak_from_trip_to_trip() -> None:
    torch.manual_seed(0)
    actor = Actor(3, 8, ROBOT, memory=5)
    lengths = np.array([4, 7, 1])
    inputs = torch.randn(int(lengths.sum()), actor.inputs_size)
    memories = remembered(actor, inputs, lengths)
    for begin, length in zip((0, 4, 11), lengths, strict=True):
        part = inputs[begin : begin + length, None]
        states = actor.states(part, torch.zeros(1, 5)).detach()[:, 0]
        wanted = torch.cat([torch.zeros(1, 5), actor.memory_of(states)[:-1]])
        np.testing.assert_allclose(memories[begin : begin + length], wanted, atol=1e-6)


def test_windows_cover_every_command_once_and_stay_within_a_trip() -> None:
    lengths = np.array([1, 5, 40, 7])
    rng = np.random.default_rng(0)
    for _ in range(20):
        starts, stops = windows(lengths, 8, rng)
        assert ((stops - starts >= 1) & (stops - starts <= 8)).all()
        covered = [place for a, b in zip(starts, stops, strict=True) for place in range(a, b)]
        assert covered == [*range(lengths.sum())]
        begins = np.cumsum(lengths) - lengths
        assert {*begins.tolist()} <= {*starts.tolist()}


def remembering_task(number: int, config: PolicyConfig) -> tuple[Actor, list[Trip]]:
    """Trips whose teacher does at every command what the first input of the trip said."""
    torch.manual_seed(0)
    actor = Actor(1, 16, ROBOT, memory=8 if config.memory else 0)
    rng = np.random.default_rng(0)
    trips = []
    for _ in range(number):
        inputs = torch.zeros(7, actor.inputs_size)
        side = float(rng.choice([-0.8, 0.8]))
        inputs[0, 0] = side
        taught = torch.full((6, 2), side)
        trips.append(Trip(inputs, taught, taught, torch.zeros(6, KNOWN), torch.zeros(6), False))
    return actor, trips


@pytest.mark.parametrize(("memory", "solves"), [(8, True), (0, False)])
def test_a_policy_that_remembers_learns_what_the_moment_does_not_show(
    memory: int, solves: bool
) -> None:
    config = msgspec.structs.replace(
        PolicyConfig(), memory=memory, window=4, windows_per_batch=16, lapses=0.0
    )
    actor, trips = remembering_task(64, config)
    imitator = Imitator(actor, config)
    figures = imitator.learn(trips, 60, np.random.default_rng(0), (0.01, 0.001))
    assert (figures["action_error"] < 0.1) is solves


def test_a_policy_that_stands_is_led_away_for_a_while(scenes: SceneLibrary) -> None:
    envs = [PointGoalEnv(TASK, library=scenes) for _ in range(2)]
    for env in envs:
        env.reset(seed=1)
    rescue = Rescue(envs)
    own, hint = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    begun = np.array([True, True])
    led = []
    for step in range(STUCK_COMMANDS + RESCUE_COMMANDS + 2):
        envs[1].pose[0] += 0.05  # the second robot drives
        led.append(rescue(own, hint, begun)[:, 0].tolist())
        begun = np.zeros(2, bool)
        assert step < STUCK_COMMANDS or led[-1][0] == (step < STUCK_COMMANDS + RESCUE_COMMANDS)
    assert sum(first for first, _ in led) == RESCUE_COMMANDS
    assert not any(second for _, second in led)
