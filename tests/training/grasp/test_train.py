"""From scenes to a RUN: what is written, learnt, resumed, and shared among processes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from limpet.contracts.clouds import CloudPreprocessing
from limpet.contracts.errors import DataError, ImpossibleHereError, UsageError
from limpet.training.fit import TrainingInterruptedError
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.encoder import GraspEncoder, load_grasp_run
from limpet.training.grasp.objective import Objective
from limpet.training.grasp.train import train_grasp
from limpet.training.run import SAMPLE
from limpet.training.settings import read_settings
from tests.command_line import limpet
from tests.training.grasp.tiny import EXTENTS_M, SMALL, open_tiny, write_tiny
from tests.training.grasp.two_ranks import one_step
from tests.training.test_distributed import torchrun


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny")


def train(data: Path, out: Path, config: GraspConfig = SMALL, *, resume: bool = False) -> None:
    train_grasp(data, out, config, cache=data.parent / "cache", resume=resume)


@pytest.mark.parametrize("kind", ["two", "one", "prefused"])
def test_every_arm_trains_to_a_run_that_loads(data: Path, tmp_path: Path, kind: str) -> None:
    config = msgspec.structs.replace(SMALL, input=kind, steps=2)
    report = train_grasp(data, tmp_path / "run", config, cache=data.parent / "cache")
    assert (report.scenes, report.samples) == (2, 6)
    assert {"loss", "validation_label_ap", "validation_good"} <= report.metrics.keys()
    encoder, record = load_grasp_run(tmp_path / "run")
    assert encoder.config == config
    assert record.preprocessing == config.cloud
    with np.load(tmp_path / "run" / SAMPLE) as sample:
        points = torch.from_numpy(sample["points"])
    assert points.shape == (2 if kind == "two" else 1, 512, 3)
    with torch.no_grad():
        seeds = encoder(points)[1]
    assert seeds.shape == (SMALL.seeds, 3)


def test_points_where_nothing_holds_are_pushed_away_from_nothing(data: Path) -> None:
    samples, labels = open_tiny(data)
    objective, encoder = Objective(samples, labels, SMALL), GraspEncoder(SMALL)
    apart = objective.of(encoder, samples[0], np.random.default_rng(0))["dis"]
    of_scene = labels[samples[0].scene]
    for rows in np.split(np.arange(len(of_scene.shares)), len(EXTENTS_M)):
        held = rows[of_scene.shares[rows].any(1)]
        of_scene.shares[held[1:]] = 0  # one point of each object is left, alike to itself
    alike = objective.of(encoder, samples[0], np.random.default_rng(0))["dis"]
    assert apart > 0
    assert alike == 0


@pytest.mark.parametrize("switch", ["sim_ali", "cyl_reg", "alt_att", "contrast", "dissimilar"])
def test_each_part_of_the_method_can_be_left_out(data: Path, switch: str) -> None:
    samples, labels = open_tiny(data)

    def loss(config: GraspConfig) -> dict[str, float]:
        config = msgspec.structs.replace(config, single_share=0.0, unlike_deg=0.0)
        parts = Objective(samples, labels, config).loss(
            GraspEncoder(config), np.random.default_rng(0)
        )
        return {name: float(part.detach()) for name, part in parts.items()}

    whole, without = loss(SMALL), loss(msgspec.structs.replace(SMALL, **{switch: False}))
    assert whole["loss"] != without["loss"]
    part = {"contrast": "con", "dissimilar": "dis"}.get(switch)
    if part is not None:
        assert whole[part] > 0.0
        assert without[part] == 0.0


def test_training_lowers_the_loss_and_finds_directions_that_suit(
    data: Path, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(SMALL, steps=80, learning_rate=3e-3)
    before = train_grasp(
        data,
        tmp_path / "fresh",
        msgspec.structs.replace(config, steps=1),
        cache=data.parent / "cache",
    )
    after = train_grasp(data, tmp_path / "run", config, cache=data.parent / "cache")
    assert after.metrics["loss"] < 0.5 * before.metrics["loss"]
    assert after.metrics["validation_label_ap"] > 1.3 * before.metrics["validation_label_ap"]


def test_a_run_that_was_interrupted_and_resumed_gives_the_same_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(data, tmp_path / "whole")
    loss, steps = Objective.loss, 0

    def interrupt(self: Objective, *given: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "loss", interrupt)
        with pytest.raises(TrainingInterruptedError):
            train(data, tmp_path / "broken")
    with pytest.raises(DataError, match="is not finished"):
        load_grasp_run(tmp_path / "broken")
    with pytest.raises(UsageError, match="begun with another"):
        train(data, tmp_path / "broken", msgspec.structs.replace(SMALL, batch=3), resume=True)
    train(data, tmp_path / "broken", resume=True)
    whole, resumed = (
        (tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "broken")
    )
    assert whole == resumed


def test_two_ranks_step_as_a_single_process_does(data: Path, tmp_path: Path) -> None:
    done = torchrun(Path(__file__).with_name("two_ranks.py"), tmp_path)
    assert done.returncode == 0, done.stderr
    wanted = one_step(data)
    for rank in (0, 1):
        found = load_file(tmp_path / f"rank{rank}.safetensors")
        assert found.keys() == wanted.keys()
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name].float(), atol=1e-5, rtol=1e-3)


def test_the_command_trains_and_says_what_comes_next(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.toml"
    config.write_text(
        "cloud = { type = 'cloud', points = 512, candidates = 128 }\n"
        "channels = 32\nseeds = 32\ngroup = 16\ngroup_channels = 16\npairs = 3\n"
    )
    line = ["train", "grasp", "--data", data, "--config", config, "--steps", 1]
    line += ["--cache", data.parent / "cache"]
    done = limpet(capsys, *line, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "fitted on 6 samples of 2 scenes" in done.out
    assert done.out.endswith(f"limpet export {tmp_path / 'run'} --out BUNDLE\n")
    report = json.loads(limpet(capsys, *line, "--out", tmp_path / "other", "--json", "-").out)
    assert [*report] == ["run", "scenes", "samples", "weights", "metrics", "warnings", "seconds"]
    again = limpet(capsys, *line, "--out", tmp_path / "run")
    assert again.code == 2
    assert "--force replaces it" in again.err
    lost = limpet(capsys, *line, "--data", tmp_path / "gone", "--out", tmp_path / "third")
    assert lost.code == 1
    assert "has no scenes/scene_0000" in lost.err


def test_a_data_set_without_training_scenes_is_refused(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "tests-only", scenes=(100,))
    with pytest.raises(DataError, match="none of scenes 0 to 89"):
        train_grasp(data, tmp_path / "run", SMALL, cache=tmp_path / "cache")


def test_a_device_that_is_not_there_is_impossible_here(data: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ImpossibleHereError, match="no GPU"):
        train_grasp(data, tmp_path / "run", SMALL, device="cuda", cache=data.parent / "cache")


def test_the_reference_recipe_is_a_configuration() -> None:
    from limpet.training import grasp

    recipe = read_settings(Path(next(iter(grasp.__path__))) / "reference.toml", GraspConfig)
    assert recipe.input == "two"
    assert recipe.cloud == CloudPreprocessing()


def test_a_configuration_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 16"):
        GraspConfig(cloud=CloudPreprocessing(points=512, candidates=100))
    with pytest.raises(ValueError, match="taken from"):
        GraspConfig(cloud=CloudPreprocessing(points=512, candidates=128))
