"""`limpet bench export`: every precision of a RUN, measured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from limpet.runtime.commands import bench
from tests.command_line import limpet, stated_entry_points

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry points that pyproject.toml states, whatever is installed."""
    monkeypatch.setattr(bench, "entry_points", stated_entry_points)


def test_it_is_listed_beside_the_others(capsys: Capture) -> None:
    done = limpet(capsys, "bench", "--help")
    listed = [line.split()[0] for line in done.out.partition("Commands:\n")[2].splitlines()]
    assert listed == ["export", "scenes", "serve", "stream"]


@pytest.mark.timeout(300)
def test_it_measures_every_precision_and_reports_with_its_documented_keys(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "report.json"
    done = limpet(capsys, "bench", "export", run, "--rounds", 2, "--no-compiled", "--json", file)
    assert done.code == 0
    (line,) = [line for line in done.out.splitlines() if line.startswith("int8 ")]
    assert "refused: int8 takes its ranges from real data, and none was given" in line
    assert "times as fast as PyTorch eager at batch 1" in done.out
    report = msgspec.json.decode(file.read_bytes())
    assert list(report) == ["kind", "machine", "precisions", "latencies", "failed", "faster"]
    assert list(report["precisions"]) == ["fp32", "fp16", "int8"]
    for name in ("fp32", "fp16"):
        one = report["precisions"][name]
        assert list(one) == [
            *("refused", "export_s", "verify_s", "onnx_bytes", "lowered", "kept", "parity"),
            *("plans", "plans_refused"),
        ]
        assert one["refused"] == ""
        assert one["export_s"] > 0
        assert one["parity"]["embedding cosine"] > 0.999
        assert set(one["plans"]) == {"sm86", "sm89", "sm120"} or one["plans_refused"]
    assert report["precisions"]["fp16"]["lowered"] > 0
    ways = {(one["way"], one["batch"]) for one in report["latencies"]}
    assert ways == {
        (way, batch)
        for way in ("pytorch eager", "onnxruntime fp32", "onnxruntime fp16")
        for batch in (1, 16)
    }
    assert all(
        0 < one["p10_ms"] <= one["median_ms"] <= one["p90_ms"] for one in report["latencies"]
    )
    assert set(report["faster"]) == {"1", "16"}
