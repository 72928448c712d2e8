"""Every shipped configuration is one that the server takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.runtime.config import load_config

FOLDER = Path(__file__).resolve().parents[2] / "robot_configs"
FILES = sorted(FOLDER.glob("*.toml"))


def test_there_is_a_configuration_for_an_anomaly_monitor() -> None:
    assert "anomaly_monitor.toml" in [path.name for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_configuration_loads_and_stays_on_this_host(path: Path) -> None:
    config = load_config(path)
    assert not config.server.allow_network
    assert {endpoint.partition("://")[0] for endpoint in config.server.listen} == {
        endpoint.partition("://")[0] for endpoint in config.server.publish
    }, "a node finds alerts on its own transport"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_key_that_a_shipped_configuration_shows_as_a_comment_is_one(
    path: Path, tmp_path: Path
) -> None:
    lines = path.read_text().splitlines()
    shown = [line.removeprefix("# ") if _is_example(line) else line for line in lines]
    assert shown != lines
    everything = tmp_path / path.name
    everything.write_text("\n".join(shown))
    load_config(everything)


def _is_example(line: str) -> bool:
    key, equals, _ = line.removeprefix("# ").partition(" = ")
    return line.startswith("# ") and bool(equals) and key.isidentifier()


def test_the_anomaly_monitor_serves_what_export_makes_from_the_repository_root() -> None:
    (model,) = load_config(FOLDER / "anomaly_monitor.toml").models
    assert Path(model.bundle).resolve() == FOLDER.parent / "bundles" / "anomaly"


def test_the_turtlebot_drives_by_the_reference_policy() -> None:
    (model,) = load_config(FOLDER / "turtlebot_nav.toml").models
    assert Path(model.bundle).resolve() == FOLDER / "bundles" / "navigation"
    assert model.name == "navigation"


def test_bin_picking_serves_the_reference_grasps() -> None:
    (model,) = load_config(FOLDER / "bin_picking.toml").models
    assert Path(model.bundle).resolve() == FOLDER / "bundles" / "grasp"
    assert model.name == "grasp"
