"""Policies that learn from the same drives: what they share, and that a kill changes nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from limpet.contracts.errors import DataError, UsageError
from limpet.training.navigation import common_drives
from limpet.training.navigation.common_drives import Learner, Pupil, train_together
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder
from limpet.training.navigation.policy import Actor
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.senses import Embedding, Nothing, Scan
from limpet.training.run import CHECKPOINT
from tests.training.navigation.tiny_policies import IMITATION, weights

TINY = msgspec.structs.replace(IMITATION, rounds=2, environments=4)


def pupils() -> dict[str, Pupil]:
    encoder = Encoder(NavigationConfig(width=4)).eval()
    return {
        "oracle": Pupil(Scan(TINY.task.lidar)),
        "ours": Pupil(Embedding(encoder)),
        "other": Pupil(Embedding(encoder), seed=1),
        "blind": Pupil(Nothing()),
    }


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, scenes: SceneLibrary
) -> tuple[Path, dict[str, Actor]]:
    folder = tmp_path_factory.mktemp("common")
    return folder, train_together(folder, pupils(), TINY, scenes)


def test_each_policy_is_left_with_its_own_perception(
    trained: tuple[Path, dict[str, Actor]],
) -> None:
    folder, actors = trained
    assert {name: actor.features for name, actor in actors.items()} == {
        "oracle": 60, "ours": 128, "other": 128, "blind": 0,
    }  # fmt: skip
    assert weights(actors["ours"]) != weights(actors["other"])
    assert not list(folder.glob(f"*/{CHECKPOINT}"))
    assert len(list(folder.glob("drives-*"))) == 3


@pytest.mark.parametrize("learnt", [1, 6, 11])
def test_a_killed_training_goes_on_to_the_same_weights(
    trained: tuple[Path, dict[str, Actor]],
    tmp_path: Path,
    scenes: SceneLibrary,
    monkeypatch: pytest.MonkeyPatch,
    learnt: int,
) -> None:
    learn, calls = Learner.learn, 0

    def killed(self: Learner, *args: object) -> None:
        nonlocal calls
        if calls == learnt:
            raise KeyboardInterrupt
        calls += 1
        learn(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", killed)
        with pytest.raises(KeyboardInterrupt):
            train_together(tmp_path, pupils(), TINY, scenes)
    resumed = train_together(tmp_path, pupils(), TINY, scenes)
    for name, actor in trained[1].items():
        assert weights(resumed[name]) == weights(actor)


def test_each_drives_environments_of_its_own(
    tmp_path: Path, scenes: SceneLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven: dict[int, set[int]] = {}
    act = Actor.act

    def counted(self: Actor, state: object) -> object:
        driven.setdefault(id(self), set()).add(len(state))  # type: ignore[arg-type]
        return act(self, state)  # type: ignore[arg-type]

    def unlearning(self: Learner, *args: object) -> None:
        return None

    with monkeypatch.context() as patch:
        patch.setattr(Actor, "act", counted)
        patch.setattr(common_drives.Learner, "learn", unlearning)
        three = dict(list(pupils().items())[:3])
        train_together(tmp_path, three, TINY, scenes)
    # Four environments among three policies: the first has two.
    assert sorted(max(sizes) for sizes in driven.values()) == [1, 1, 2]


def test_what_cannot_be_shared_is_refused(
    trained: tuple[Path, dict[str, Actor]], tmp_path: Path, scenes: SceneLibrary
) -> None:
    with pytest.raises(UsageError, match="4 policies in 2 environments"):
        train_together(tmp_path, pupils(), msgspec.structs.replace(TINY, environments=2), scenes)
    with pytest.raises(UsageError, match="reinforcement"):
        train_together(tmp_path, pupils(), msgspec.structs.replace(TINY, steps=5), scenes)
    with pytest.raises(UsageError, match="tells of other policies"):
        train_together(trained[0], {"blind": Pupil(Nothing())}, TINY, scenes)


@pytest.mark.parametrize("file", ["drives-00.safetensors", f"ours/{CHECKPOINT}"])
def test_damage_is_refused(tmp_path: Path, scenes: SceneLibrary, file: str) -> None:
    head = common_drives.Head(config=TINY, seeds={n: p.seed for n, p in pupils().items()})
    common_drives._begin(tmp_path, head)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"not tensors")
    with pytest.raises(DataError, match="begin anew"):
        train_together(tmp_path, pupils(), TINY, scenes)
