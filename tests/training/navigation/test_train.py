"""From frames to a RUN: what is written, repeated, resumed and learnt."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from limpet.contracts.errors import DataError, ImpossibleHereError, UsageError
from limpet.contracts.images import normalize
from limpet.training.navigation import objective
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder, load_encoder
from limpet.training.navigation.evaluation import embed_frames, figures
from limpet.training.navigation.frames import Uint8, open_frames
from limpet.training.navigation.train import train_navigation
from limpet.training.run import SAMPLE, RunFolder
from tests.command_line import limpet
from tests.navigation_frames import CONFIG, write_pairs
from tests.training.navigation.test_frames import write_recording


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs")


def spearman(encoder: Encoder, data: Path) -> float:
    frames = open_frames(data, CONFIG.image)

    @torch.no_grad()
    def embed(images: Uint8) -> np.ndarray:
        return encoder.eval()(torch.from_numpy(normalize(images, CONFIG.image))).numpy()

    return figures(*embed_frames(embed, frames), frames, CONFIG).spearman


def test_a_run_says_what_was_trained_on_what(pairs: Path, tmp_path: Path) -> None:
    report = train_navigation(pairs, tmp_path / "run", CONFIG, command="limpet train …")
    folder = RunFolder(tmp_path / "run")
    record = folder.read_complete()
    assert (record.kind, record.command, record.preprocessing) == (
        "navigation", "limpet train …", CONFIG.image,
    )  # fmt: skip
    assert msgspec.convert(record.config, NavigationConfig) == CONFIG
    assert [digest.rows for digest in record.data] == [72 * 3]
    assert (report.poses, report.views, report.warnings) == (72, 3, [])
    with np.load(folder.path / SAMPLE) as sample:
        assert sample["images"].shape == (4, 32, 32, 3)
    assert not folder.checkpoint.exists()
    assert load_encoder(folder.path).config == CONFIG


@pytest.mark.parametrize("name", ["multi_positive", "ranked", "simclr", "autoencoder"])
def test_every_arm_trains_to_a_run_that_loads(pairs: Path, tmp_path: Path, name: str) -> None:
    config = msgspec.structs.replace(CONFIG, objective=name, precision="bf16")
    train_navigation(pairs, tmp_path / "run", config)
    trained, fresh = load_encoder(tmp_path / "run").state_dict(), Encoder(config).state_dict()
    assert trained.keys() == fresh.keys()
    assert any(not torch.equal(trained[key], fresh[key]) for key in trained if "weight" in key)


def test_training_brings_embeddings_into_the_order_of_unseen_geometry(
    tmp_path: Path,
) -> None:
    config = msgspec.structs.replace(
        CONFIG, objective="ranked", steps=100, batch=32, learning_rate=3e-3
    )
    train_navigation(write_pairs(tmp_path / "pairs", layouts=6), tmp_path / "run", config)
    unseen = write_pairs(tmp_path / "unseen", layouts=1, poses=40)
    trained = spearman(load_encoder(tmp_path / "run"), unseen)
    assert trained > 0.8 > 0.4 > abs(spearman(Encoder(config), unseen))


class Killed(BaseException):
    """Ends training as abruptly as Python can."""


def test_a_run_killed_half_way_and_resumed_gives_the_same_file(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A checkpoint comes every 200 steps.
    config = msgspec.structs.replace(CONFIG, objective="ranked", steps=210, batch=4)
    train_navigation(pairs, tmp_path / "whole", config)
    drawn, draw = 0, objective.Batches.draw

    def kill(batches: objective.Batches, rng: np.random.Generator) -> object:
        nonlocal drawn
        drawn += 1
        if drawn > 205:
            raise Killed
        return draw(batches, rng)

    with monkeypatch.context() as patch:
        patch.setattr(objective.Batches, "draw", kill)
        with pytest.raises(Killed):
            train_navigation(pairs, tmp_path / "killed", config)
    with pytest.raises(DataError, match="is not finished"):
        load_encoder(tmp_path / "killed")
    with pytest.raises(UsageError, match="begun with another"):
        train_navigation(pairs, tmp_path / "killed", CONFIG, resume=True)
    train_navigation(pairs, tmp_path / "killed", config, resume=True)
    whole, resumed = (
        (tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "killed")
    )
    assert whole == resumed


def test_a_recording_of_one_appearance_trains_with_a_warning(tmp_path: Path) -> None:
    log = write_recording(tmp_path / "log")
    report = train_navigation(log, tmp_path / "run", msgspec.structs.replace(CONFIG, batch=4))
    assert (report.poses, report.views) == (4, 1)
    assert "log shows each pose in one appearance" in report.warnings[0]


def test_a_device_that_is_not_there_is_impossible_here(pairs: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ImpossibleHereError, match="no GPU"):
        train_navigation(pairs, tmp_path / "run", CONFIG, device="cuda")


def test_the_command_trains_and_says_what_comes_next(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.toml"
    config.write_text("width = 4\nbatch = 8\nimage = { width = 32, height = 32 }\n")
    line = ["train", "navigation", "--data", pairs, "--config", config, "--steps", 2]
    done = limpet(capsys, *line, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "fitted on 72 poses in 3 appearances each" in done.out
    assert done.out.endswith(f"limpet export {tmp_path / 'run'} --out BUNDLE\n")
    report = limpet(capsys, *line, "--out", tmp_path / "other", "--json", "-").report
    assert list(report) == ["run", "poses", "views", "weights", "metrics", "warnings", "seconds"]
    again = limpet(capsys, *line, "--out", tmp_path / "run")
    assert again.code == 2
    assert "--force replaces it" in again.err
    lost = limpet(capsys, *line, "--data", tmp_path / "gone", "--out", tmp_path / "third")
    assert lost.code == 1
    assert "gone does not exist" in lost.err
