"""Configuration files of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.contracts.errors import ConfigError
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.settings import read_settings


def read(tmp_path: Path, text: str) -> AnomalyConfig:
    file = tmp_path / "anomaly.toml"
    file.write_text(text)
    return read_settings(file, AnomalyConfig)


def test_keys_left_out_have_their_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, 'baseline = "training"\nsteps = 7\n')
    assert (config.baseline, config.steps) == ("training", 7)
    assert config.frame_rows == AnomalyConfig().frame_rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# rows\nwindow_row = 64\n", r"anomaly.toml:2: .*unknown field `window_row`"),
        ('steps = 5\nbatch = "many"\n', r"anomaly.toml:2: Expected `int`, got `str`"),
        ("frame_rows = 8\n", r"anomaly.toml:1: Expected `int` >= 16"),
        ("steps = 5\nsteps = = 6\n", r"anomaly.toml:2: not valid TOML"),
        ("weakest = 3.0\nstrongest = 2.0\n", r"weakest 3.0 is above strongest 2.0"),
    ],
)
def test_an_error_says_file_line_and_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_a_misspelt_key_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "frame_row = 64\n")
    assert caught.value.hint == "did you mean 'frame_rows'?"


def test_an_absent_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml:1: cannot be read"):
        read_settings(tmp_path / "nowhere.toml", AnomalyConfig)
