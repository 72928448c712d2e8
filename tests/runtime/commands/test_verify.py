"""`limpet verify`: a bundle that computes something else does not pass."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from limpet.contracts.bundle import GOLDEN, MODEL, Bundle
from tests.bundles import anomaly_bundle, change_file, identity_bundle
from tests.command_line import limpet

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return anomaly_bundle(tmp_path / "pump")


def test_a_sound_bundle_passes_and_names_engine_and_checks(bundle: Bundle, capsys: Capture) -> None:
    done = limpet(capsys, "verify", bundle.path)
    assert done.code == 0
    assert "onnxruntime-cpu: tiny-anomaly (anomaly, fp32) computes what training computed" in (
        done.out
    )
    for check in ("embedding cosine", "score", "signal score", "alert flips"):
        (line,) = [line for line in done.out.splitlines() if line.startswith(f"{check}  ")]
        assert line.endswith("ok")
    assert done.err == ""


def test_the_report_has_its_documented_keys(bundle: Bundle, capsys: Capture) -> None:
    report = limpet(capsys, "verify", bundle.path, "--json", "-").report
    assert list(report) == [
        *("bundle", "name", "kind", "space_id", "precision", "engine", "passed", "checks"),
    ]
    assert report["passed"] is True
    assert report["engine"] == "onnxruntime-cpu"
    assert [list(check) for check in report["checks"]] == [
        ["name", "measured", "bound", "passed"]
    ] * 5


def test_a_report_in_a_file_leaves_the_text_on_standard_output(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    done = limpet(capsys, "verify", bundle.path, "--json", tmp_path / "report.json")
    assert "computes what training computed" in done.out
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes())["passed"] is True


def test_a_report_that_cannot_be_written_is_a_usage_error_before_any_work(
    bundle: Bundle, capsys: Capture
) -> None:
    (bundle.path / "golden.npz").write_bytes(b"damaged")
    done = limpet(capsys, "verify", bundle.path, "--json", bundle.path / "no" / "report.json")
    assert done.code == 2
    assert "cannot be written: No such file or directory" in done.err


def test_golden_outputs_that_are_wrong_fail_though_properly_sealed(
    bundle: Bundle, capsys: Capture
) -> None:
    golden = bundle.golden()
    wrong = {**golden.outputs, "score": golden.outputs["score"] + np.float32(0.01)}
    change_file(bundle, GOLDEN, dataclasses.replace(golden, outputs=wrong).encode())
    done = limpet(capsys, "verify", bundle.path)
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if line.startswith("score ")]
    assert line.endswith("FAILED")
    assert "FAILED the golden check" in done.out


def test_a_failure_is_in_the_report_too(bundle: Bundle, capsys: Capture) -> None:
    golden = bundle.golden()
    assert golden.signal_scores is not None
    wrong = dataclasses.replace(golden, signal_scores=golden.signal_scores + np.float32(1.0))
    change_file(bundle, GOLDEN, wrong.encode())
    done = limpet(capsys, "verify", bundle.path, "--json", "-")
    assert done.code == 1
    assert done.report["passed"] is False
    failed = [check["name"] for check in done.report["checks"] if not check["passed"]]
    assert "signal score" in failed


def test_a_damaged_bundle_is_named_with_what_to_do(bundle: Bundle, capsys: Capture) -> None:
    model = bundle.path / MODEL
    model.write_bytes(model.read_bytes()[:-1] + b"\x00\x01")
    done = limpet(capsys, "verify", bundle.path)
    assert done.code == 1
    assert done.err.startswith(f"error: {model} is damaged: SHA-256 ")
    assert done.err.endswith(
        "\n  copy the bundle again from where it was exported, or export again\n"
    )
    assert done.out == ""


def test_a_model_of_any_kind_is_verified(tmp_path: Path, capsys: Capture) -> None:
    bundle = identity_bundle(tmp_path / "identity")
    report = limpet(capsys, "verify", bundle.path, "--engine", "onnxruntime", "--json", "-").report
    assert [check["name"] for check in report["checks"]] == ["y"]


def test_an_engine_that_is_unknown_is_a_usage_error_listing_the_known(
    bundle: Bundle, capsys: Capture
) -> None:
    done = limpet(capsys, "verify", bundle.path, "--engine", "tensorflow")
    assert done.code == 2
    assert "'tensorflow' is not one of auto, onnxruntime" in done.err
