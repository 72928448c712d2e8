"""The bundles that come with the repository are sound, and as good as their figures say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from limpet.contracts.bundle import read_bundle
from limpet.contracts.golden import check_golden
from limpet.export.evaluate_anomaly import evaluate_anomaly
from limpet.runtime.config import load_config
from limpet.runtime.engines import open_engine

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = REPOSITORY / "robot_configs" / "bundles"
RECORDING = (
    REPOSITORY / "runtime" / "limpet" / "runtime" / "demo" / "recordings"
    / "machine_temperature.csv"
)  # fmt: skip
TRAIN_ROWS = 1998


def test_the_anomaly_bundle_computes_here_what_it_did_where_it_was_made() -> None:
    bundle = read_bundle(BUNDLES / "anomaly")
    assert check_golden(bundle.golden(), bundle.manifest, open_engine(bundle, "auto").run).passed


def test_a_command_reports_to_nobody_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    # A library that reports does not where it believes that it is being tested.
    tested = ("CI", "GITHUB_ACTIONS", "TF_BUILD")
    env = {name: value for name, value in os.environ.items() if name not in tested}
    command = [sys.executable, "-m", "limpet.runtime.cli", "verify", str(BUNDLES / "anomaly")]
    done = subprocess.run(
        command, env={**env, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert list(tmp_path.rglob("*")) == []


def test_the_anomaly_bundle_is_small_and_says_where_it_comes_from() -> None:
    bundle = read_bundle(BUNDLES / "anomaly")
    assert sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file()) < 1 << 20
    provenance = bundle.manifest.provenance
    assert "limpet train anomaly" in provenance.command
    assert [(data.name, data.rows) for data in provenance.data] == [(RECORDING.name, TRAIN_ROWS)]


def test_the_anomaly_bundle_finds_the_failures_of_its_machine_that_it_never_saw() -> None:
    report = evaluate_anomaly(BUNDLES / "anomaly", RECORDING, from_row=TRAIN_ROWS)
    assert report.mean.auroc > 0.8
    assert report.events.detected >= report.events.labelled - 1
    assert report.events.alert_share_of_normal < 0.25


def test_a_shipped_configuration_serves_the_anomaly_bundle() -> None:
    (model,) = load_config(REPOSITORY / "robot_configs" / "press_temperature.toml").models
    assert Path(model.bundle).resolve() == BUNDLES / "anomaly"


def test_the_navigation_bundle_computes_here_what_it_did_where_it_was_made() -> None:
    bundle = read_bundle(BUNDLES / "navigation")
    assert check_golden(bundle.golden(), bundle.manifest, open_engine(bundle, "auto").run).passed


def test_the_navigation_bundle_is_small_drives_and_says_where_it_comes_from() -> None:
    bundle = read_bundle(BUNDLES / "navigation")
    assert sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file()) < 3e6
    assert [spec.name for spec in bundle.manifest.outputs] == [
        "embedding", "action", "next_memory",
    ]  # fmt: skip
    provenance = bundle.manifest.provenance
    assert "limpet train navigation" in provenance.command
    assert any("success rate" in name for name in provenance.metrics)
