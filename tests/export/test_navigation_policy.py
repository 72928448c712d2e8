"""An image encoder with its policy, from RUN to a bundle that drives."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import DataError
from limpet.contracts.golden import PREPARED, check_golden
from limpet.contracts.manifest import ActionDecoding, MemoryDecoding
from limpet.export.navigation import open_navigation_run
from limpet.export.package import export_run
from limpet.runtime.engines import open_engine
from limpet.training.navigation.policy import Actor, write_actor
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.policy_train import FOLDER, RECORD, PolicyRecord
from limpet.training.navigation.robot import Robot
from limpet.training.navigation.train import train_navigation
from limpet.training.run import CHECKPOINT, WEIGHTS
from tests.command_line import limpet
from tests.navigation_frames import CONFIG, write_pairs

ROBOT = Robot()


def write_policy(run: Path, config: PolicyConfig, memory: int = 6) -> None:
    """A policy with fresh weights, as training would leave it."""
    torch.manual_seed(0)
    (run / FOLDER).mkdir()
    write_actor(run / FOLDER / WEIGHTS, Actor(128, 16, ROBOT, memory=memory))
    record = PolicyRecord(
        config=config,
        figures={"success": 0.5},
        seconds=1.0,
        versions={},
        metrics={"unseen SR": 0.4},
    )
    (run / FOLDER / RECORD).write_bytes(msgspec.json.encode(record))


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("navigation")
    config = msgspec.structs.replace(CONFIG, embedding=128)
    train_navigation(write_pairs(folder / "pairs"), folder / "run", config)
    return folder / "run"


@pytest.fixture(scope="module")
def run(encoder_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("policy") / "run"
    shutil.copytree(encoder_run, run)
    write_policy(run, PolicyConfig())
    return run


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "driver"
    assert export_run(run, out).passed
    return read_bundle(out)


def test_the_manifest_says_how_an_action_is_meant(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert [spec.describe() for spec in manifest.inputs] == [
        "image float32 [batch, 3, 32, 32]",
        "goal float32 [batch, 3]",
        "proprioception float32 [batch, 2]",
        "memory float32 [batch, 6]",
    ]
    assert [spec.name for spec in manifest.outputs] == ["embedding", "action", "next_memory"]
    action = manifest.decoding.action  # type: ignore[union-attr]
    assert action == ActionDecoding(
        largest_speed=pytest.approx(ROBOT.speed),
        largest_turn_rate=pytest.approx(ROBOT.turn_rate),
        memory=MemoryDecoding(step_s=pytest.approx(1 / ROBOT.control_hz)),
    )
    assert manifest.provenance.metrics["unseen SR"] == 0.4
    assert manifest.provenance.metrics["policy training: success"] == 0.5
    assert "policy" in manifest.provenance.configuration


def test_the_embedding_space_is_that_of_the_encoder_alone(
    encoder_run: Path, bundle: Bundle, tmp_path: Path
) -> None:
    alone = export_run(encoder_run, tmp_path / "eye")
    assert alone.space_id == bundle.manifest.space_id


def test_golden_data_proves_preprocessing_embedding_and_action(run: Path, bundle: Bundle) -> None:
    golden, engine = bundle.golden(), open_engine(bundle)
    parity = check_golden(golden, bundle.manifest, engine.run)
    assert parity.passed
    names = [check.name for check in parity.checks]
    assert names == [PREPARED, "embedding cosine", "action", "next_memory"]
    rng = np.random.default_rng(0)
    inputs = {
        spec.name: rng.standard_normal((5, *spec.shape[1:])).astype(np.float32)  # type: ignore[arg-type]
        for spec in bundle.manifest.inputs
    }
    with torch.no_grad():
        wanted = open_navigation_run(run).module(*(torch.from_numpy(x) for x in inputs.values()))
    found = engine.run(inputs)
    for name, value in zip(("embedding", "action", "next_memory"), wanted, strict=True):
        np.testing.assert_allclose(found[name], value.numpy(), atol=1e-4)
    assert (np.abs(found["action"]) <= [ROBOT.speed + 1e-6, ROBOT.turn_rate + 1e-6]).all()


def test_the_bundle_is_verified(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert limpet(capsys, "verify", bundle.path).code == 0


def test_evaluate_drives_by_the_bundles_own_graph(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "unseen", layouts=2, poses=12, views=2)
    line = ["evaluate", "navigation", bundle.path, "--data", data, "--episodes", "1"]
    driving = limpet(capsys, *line, "--json", "-").report["driving"]
    assert list(driving) == ["layouts", "overall", "by_appearance"]
    assert driving["overall"]["episodes"] == 1
    assert list(driving["by_appearance"]) == ["0"]
    assert 0.0 <= driving["overall"]["spl"]["low"] <= driving["overall"]["sr"]["high"] <= 1.0


def test_a_policy_may_know_the_moment_alone(encoder_run: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder_run, tmp_path / "run")
    write_policy(tmp_path / "run", PolicyConfig(memory=0), memory=0)
    assert export_run(tmp_path / "run", tmp_path / "driver").passed
    manifest = read_bundle(tmp_path / "driver").manifest
    assert [spec.name for spec in manifest.outputs] == ["embedding", "action"]
    assert manifest.decoding.action.memory is None  # type: ignore[union-attr]


def test_the_bundle_carries_the_figures_that_evaluate_recorded(
    run: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = tmp_path / "run"
    shutil.copytree(run, measured)
    data = write_pairs(tmp_path / "unseen", layouts=2, poses=12, views=2)
    options = ["--data", data, "--episodes", "1", "--record"]
    report = limpet(capsys, "evaluate", "navigation", measured, *options, "--json", "-").report
    export_run(measured, tmp_path / "driver")
    metrics = read_bundle(tmp_path / "driver").manifest.provenance.metrics
    where = "unseen layouts 5000 to 5099, unseen appearances, 1 episodes"
    assert metrics[f"{where}: success rate"] == report["driving"]["overall"]["sr"]["mean"]
    spearman = report["embedding"]["spearman"]
    assert metrics["unseen, 24 poses: Spearman"] == pytest.approx(spearman, abs=1e-4)
    refused = limpet(capsys, "evaluate", "navigation", bundle.path, *options)
    assert refused.code == 2
    assert "evaluate its RUN with --record" in refused.err


def test_an_interrupted_policy_is_not_exported_as_an_encoder_alone(
    encoder_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(encoder_run, run)
    (run / FOLDER).mkdir()
    (run / FOLDER / CHECKPOINT).write_bytes(b"")
    with pytest.raises(DataError, match="interrupted training"):
        export_run(run, tmp_path / "driver")


def test_a_policy_that_drives_by_lidar_is_refused(encoder_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(encoder_run, run)
    write_policy(run, PolicyConfig(sense="lidar"))
    with pytest.raises(DataError, match="drives by lidar"):
        export_run(run, tmp_path / "driver")
