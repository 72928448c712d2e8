"""Training a policy: it learns, resumes to the same weights, refuses what it should."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import torch

from limpet.contracts.errors import DataError, UsageError
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder
from limpet.training.navigation.policy import Actor, read_actor
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.policy_train import (
    PolicyRecord,
    Schedule,
    train_policy,
)
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.run import CHECKPOINT, WEIGHTS
from tests.training.navigation.tiny_policies import IMITATION, weights

TINY = msgspec.structs.replace(
    IMITATION, sense="lidar", steps=48, critic_steps=4, batch_size=8, checkpoint_steps=24
)


def train_until(
    stage: int,
    run: Path,
    config: PolicyConfig,
    scenes: SceneLibrary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trains, and is killed when a stage begins."""
    begin_stage = Schedule.begin_stage

    def killed(self: Schedule, begun: int) -> None:
        if begun == stage:
            raise KeyboardInterrupt
        begin_stage(self, begun)

    with monkeypatch.context() as patch:
        patch.setattr(Schedule, "begin_stage", killed)
        with pytest.raises(KeyboardInterrupt):
            train_policy(run, config, library=scenes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, scenes: SceneLibrary) -> tuple[Path, Actor]:
    run = tmp_path_factory.mktemp("policy")
    return run, train_policy(run, TINY, library=scenes)


def test_a_policy_is_left_in_the_run(trained: tuple[Path, Actor]) -> None:
    run, actor = trained
    folder = run / "policy"
    assert weights(read_actor(folder / WEIGHTS)) == weights(actor)
    record = msgspec.json.decode((folder / "policy.json").read_bytes(), type=PolicyRecord)
    assert record.config == TINY
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [48, 72, 96, 120]
    assert [line["episodes"] for line in lines] == [4, 2, 2, 2]
    assert ["action_error" in line for line in lines] == [True, True, False, False]
    assert ["critic_loss" in line for line in lines] == [False, False, True, True]
    assert not (folder / CHECKPOINT).exists()


def test_training_moves_the_policy_and_follows_from_the_seed(
    trained: tuple[Path, Actor], tmp_path: Path, scenes: SceneLibrary
) -> None:
    other = msgspec.structs.replace(TINY, seed=1)
    assert weights(train_policy(tmp_path, other, library=scenes)) != weights(trained[1])


@pytest.mark.parametrize("stage", [1, 3])
def test_an_interrupted_training_goes_on_to_the_same_weights(
    trained: tuple[Path, Actor],
    tmp_path: Path,
    scenes: SceneLibrary,
    monkeypatch: pytest.MonkeyPatch,
    stage: int,
) -> None:
    train_until(stage, tmp_path, TINY, scenes, monkeypatch)
    with pytest.raises(UsageError, match="holds an interrupted training"):
        train_policy(tmp_path, TINY, library=scenes)
    other = msgspec.structs.replace(TINY, discount=0.9)
    with pytest.raises(DataError, match="begun with another configuration"):
        train_policy(tmp_path, other, library=scenes, resume=True)
    if stage == 3:
        other = msgspec.structs.replace(TINY, rounds=2)
        with pytest.raises(DataError, match="begun with another configuration"):
            train_policy(tmp_path, other, library=scenes, resume=True)
    resumed = train_policy(tmp_path, TINY, library=scenes, resume=True)
    assert weights(resumed) == weights(trained[1])


@pytest.mark.parametrize("rounds", [1, 3])
def test_rounds_may_be_added_or_left_out_before_the_last_one_is_learnt_from(
    tmp_path: Path, scenes: SceneLibrary, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    begun, wanted = (msgspec.structs.replace(TINY, steps=0, rounds=n) for n in (2, rounds))
    train_until(1, tmp_path / "a", begun, scenes, monkeypatch)
    resumed = train_policy(tmp_path / "a", wanted, library=scenes, resume=True)
    assert weights(resumed) == weights(train_policy(tmp_path / "b", wanted, library=scenes))


def test_a_finished_policy_is_not_replaced(trained: tuple[Path, Actor]) -> None:
    with pytest.raises(UsageError, match="holds a policy already"):
        train_policy(trained[0], TINY)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, scenes: SceneLibrary) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / CHECKPOINT).write_bytes(b"half of it")
    with pytest.raises(DataError, match="is no checkpoint of this policy"):
        train_policy(tmp_path, TINY, library=scenes, resume=True)


def test_a_policy_that_drives_by_embedding_wants_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs an encoder"):
        train_policy(tmp_path, msgspec.structs.replace(TINY, sense="embedding"))


def test_a_policy_learns_on_a_frozen_encoder(tmp_path: Path, scenes: SceneLibrary) -> None:
    encoder = Encoder(NavigationConfig(width=4)).eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    config = msgspec.structs.replace(TINY, sense="embedding", steps=24, demonstrated_steps=16)
    actor = train_policy(tmp_path, config, encoder, library=scenes)
    assert actor.features == 128
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_a_blind_policy_has_no_features(tmp_path: Path, scenes: SceneLibrary) -> None:
    config = msgspec.structs.replace(TINY, sense="nothing", steps=0)
    assert train_policy(tmp_path, config, library=scenes).features == 0


def test_a_policy_can_know_the_moment_alone(tmp_path: Path, scenes: SceneLibrary) -> None:
    config = msgspec.structs.replace(TINY, memory=0, steps=24)
    actor = train_policy(tmp_path, config, library=scenes)
    assert actor.state_size == actor.inputs_size


def test_a_policy_can_learn_to_see_as_well(tmp_path: Path, scenes: SceneLibrary) -> None:
    config = msgspec.structs.replace(TINY, sense="pixels", steps=8, demonstrated_steps=8)
    actor = train_policy(tmp_path, config, library=scenes)
    read = read_actor(tmp_path / "policy" / WEIGHTS)
    assert weights(read) == weights(actor)
    inputs = torch.randn(2, actor.inputs_size)
    memory = torch.zeros(2, actor.memory)
    with torch.no_grad():
        driven = read.act(read.state(inputs, memory))
        inputs[:, : actor.features] = 0.0
        assert not torch.equal(driven, read.act(read.state(inputs, memory)))
