"""The policy's network: what it takes and gives, its file, encoder and policy as one module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from limpet.contracts.errors import DataError
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder
from limpet.training.navigation.environment import speeds_of
from limpet.training.navigation.policy import (
    Actor,
    NavigationModel,
    closeness,
    read_actor,
    unit_size,
    write_actor,
)
from limpet.training.navigation.robot import Robot

ROBOT = Robot()


def observed(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    bearing = rng.uniform(-np.pi, np.pi, number)
    goal = np.stack([rng.uniform(0, 8, number), np.cos(bearing), np.sin(bearing)], axis=1)
    motion = rng.uniform(-1, 1, (number, 2))
    return torch.from_numpy(goal).float(), torch.from_numpy(motion).float()


def test_speeds_are_those_of_the_environments_action() -> None:
    actor = Actor(4, 8, ROBOT, memory=6)
    goal, motion = observed(20)
    features, memory = torch.randn(20, 4), torch.rand(20, 6)
    with torch.no_grad():
        speeds, kept = actor(features, goal, motion, memory)
        state = actor.state(actor.inputs(features, goal, motion), memory)
        actions = actor.act(state)
    assert torch.equal(kept, actor.memory_of(state))
    wanted = [speeds_of(action, ROBOT) for action in actions.numpy()]
    np.testing.assert_allclose(speeds, wanted, atol=1e-6)
    assert (speeds[:, 0] >= 0).all()
    assert (speeds[:, 0] <= ROBOT.speed).all()
    assert (speeds[:, 1].abs() <= ROBOT.turn_rate).all()


def test_what_is_remembered_step_by_step_is_what_training_computes_at_once() -> None:
    torch.manual_seed(0)
    actor = Actor(4, 8, ROBOT, memory=6)
    inputs, memory = torch.randn(9, 3, actor.inputs_size), torch.rand(3, 6)
    with torch.no_grad():
        at_once = actor.states(inputs, memory)
        for step, seen in enumerate(inputs):
            state = actor.state(seen, memory)
            memory = actor.memory_of(state)
            np.testing.assert_allclose(state, at_once[step], atol=1e-6)
    assert at_once.shape == (9, 3, actor.state_size)
    assert float(memory.abs().max()) <= 1.0


def test_a_policy_remembers_what_it_sees_no_more() -> None:
    torch.manual_seed(0)
    actor = Actor(4, 8, ROBOT, memory=6)
    goal, motion = observed(1)
    now, one, other = torch.zeros(1, 4), torch.randn(1, 4), torch.randn(1, 4)
    driven = []
    with torch.no_grad():
        for before in (one, other):
            memory = torch.zeros(1, 6)
            for seen in (before, now, now):
                speeds, memory = actor(seen, goal, motion, memory)
            driven.append(speeds)
    assert not torch.allclose(driven[0], driven[1], atol=1e-4)


def test_inputs_are_of_about_unit_size_however_far_the_goal() -> None:
    actor = Actor(128, 8, ROBOT)
    goal, motion = observed(4)
    goal[:, 0] = torch.tensor([0.0, 1.0, 8.0, 90.0])
    embedding = torch.nn.functional.normalize(torch.randn(4, 128), dim=1)
    inputs = actor.inputs(unit_size(embedding), goal, motion)
    assert inputs.shape == (4, actor.inputs_size)
    assert float(inputs.abs().max()) < 6.0
    assert float(inputs[:, :128].std()) == pytest.approx(1.0, abs=0.1)


def test_a_nearer_obstacle_is_closer() -> None:
    assert closeness(torch.tensor([0.0, 0.5, 6.0])).tolist() == pytest.approx(
        [1, 0.6065, 0.0025], abs=1e-4
    )


@pytest.mark.parametrize("memory", [0, 7])
def test_an_actor_is_read_as_it_was_written(tmp_path: Path, memory: int) -> None:
    actor = Actor(5, 8, Robot(speed=0.3, turn_rate=0.9), memory=memory)
    write_actor(tmp_path / "weights.safetensors", actor)
    read = read_actor(tmp_path / "weights.safetensors")
    assert (read.features, read.memory) == (5, memory)
    assert {n: v.tolist() for n, v in read.state_dict().items()} == {
        n: v.tolist() for n, v in actor.state_dict().items()
    }


@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights.safetensors"
    if content:
        file.write_bytes(content)
    with pytest.raises(DataError, match="holds no policy"):
        read_actor(file)


@pytest.mark.parametrize("size", [0, 7])
def test_the_model_drives_by_its_own_embedding(size: int) -> None:
    encoder = Encoder(NavigationConfig(width=4)).eval()
    actor = Actor(128, 8, ROBOT, memory=size)
    goal, motion = observed(3)
    image, memory = torch.randn(3, 3, 128, 128), torch.rand(3, size)
    given = (image, goal, motion, memory) if size else (image, goal, motion)
    with torch.no_grad():
        embedding, *driven = NavigationModel(encoder, actor)(*given)
        wanted = actor(unit_size(encoder(image)), goal, motion, memory)
    assert len(driven) == 1 + bool(size)
    assert all(torch.equal(a, b) for a, b in zip(driven, wanted, strict=False))
    np.testing.assert_allclose(embedding.norm(dim=1), 1.0, atol=1e-6)
