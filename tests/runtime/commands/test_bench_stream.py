"""`limpet bench stream`: real server and sensor processes on a tiny bundle."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from limpet.contracts.bundle import Bundle
from tests.bundles import anomaly_bundle, identity_bundle
from tests.command_line import limpet

Capture = pytest.CaptureFixture[str]
QUICK = ("--rate-hz", 200, "--chunk-ms", 20, "--seconds", 1)
STEP_KEYS = [
    *("streams", "held", "p50_ms", "p99_ms", "p999_ms", "max_ms"),
    *("alert_p50_ms", "alert_p99_ms", "alert_p999_ms"),
    *("messages", "rows", "rows_sent", "rows_acknowledged", "rows_per_s"),
    *("server_cpu", "sensors_cpu", "sensors_late_p99_ms"),
    *("waited_for_credit", "credit_wait_max_ms", "refused", "dropped", "alerts"),
]
SETTING_KEYS = [
    *("channels", "rate_hz", "chunk_ms", "message_rows"),
    *("seconds", "warm_up_s", "limit_ms", "bundle"),
]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return anomaly_bundle(tmp_path / "pump")


def test_rows_that_two_streams_send_are_all_acknowledged(bundle: Bundle, capsys: Capture) -> None:
    done = limpet(
        capsys, "bench", "stream", "--bundle", bundle.path, "--streams", 2,
        "--limit-ms", 60_000, "--json", "-", *QUICK,
    )  # fmt: skip
    assert done.code == 0, done.err
    report = done.report
    assert list(report) == ["machine", "setting", "streams_held", "steps"]
    assert list(report["setting"]) == SETTING_KEYS
    assert (report["setting"]["channels"], report["setting"]["message_rows"]) == (2, 4)
    (step,) = report["steps"]
    assert list(step) == STEP_KEYS
    assert report["streams_held"] == step["streams"] == 2
    # 1 s timed after 0.5 s of warm-up, 50 messages a second, 4 rows each, two streams.
    assert step["messages"] == 2 * 50
    assert step["rows"] == step["rows_sent"] == step["rows_acknowledged"] == 2 * 75 * 4
    assert step["refused"] == step["dropped"] == {}
    assert 0 < step["p50_ms"] <= step["p99_ms"] <= step["p999_ms"] <= step["max_ms"]
    assert step["alert_p99_ms"] == pytest.approx(step["p99_ms"] + 20)
    assert step["rows_per_s"] > 0
    assert step["sensors_cpu"] > 0


def test_no_stream_is_held_within_a_limit_that_nothing_keeps(
    bundle: Bundle, capsys: Capture, tmp_path: Path
) -> None:
    file = tmp_path / "stream.json"
    done = limpet(
        capsys, "bench", "stream", "--bundle", bundle.path, "--limit-ms", 0.001,
        "--json", file, *QUICK,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "1 streams: not held" in done.err
    assert done.out.splitlines()[-1].startswith("held: 0 streams of 2 channels at 200 Hz")
    assert '"streams_held": 0' in file.read_text()


def test_channels_that_the_bundle_has_not_are_refused(bundle: Bundle, capsys: Capture) -> None:
    done = limpet(capsys, "bench", "stream", "--bundle", bundle.path, "--channels", 8)
    assert done.code == 2
    assert f"--channels 8, but --bundle {bundle.path} has 2" in done.err


def test_a_bundle_that_scores_no_streams_is_refused(tmp_path: Path, capsys: Capture) -> None:
    other = identity_bundle(tmp_path / "identity")
    done = limpet(capsys, "bench", "stream", "--bundle", other.path)
    assert done.code == 2
    assert "is custom, wanted an anomaly bundle" in done.err


def test_without_a_bundle_and_the_means_to_make_one_the_option_is_named(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name)
    )
    done = limpet(capsys, "bench", "stream")
    assert done.code == 3
    assert "this needs torch" in done.err
    assert "limpet bench stream --bundle BUNDLE" in done.err


@pytest.mark.slow
def test_without_a_bundle_one_is_made(capsys: Capture) -> None:
    pytest.importorskip("torch", reason="needs limpet[training,export]")
    done = limpet(
        capsys, "bench", "stream", "--streams", 1, "--seconds", 1, "--limit-ms", 60_000,
        "--json", "-",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "making a bundle of default sizes" in done.err
    assert done.report["setting"]["bundle"] == "made"
    assert done.report["streams_held"] == 1
