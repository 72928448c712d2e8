"""Which engine is opened, on machines with a GPU, a library and a plan, or without one of them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import EngineError, ImpossibleHereError, MissingExtraError
from limpet.contracts.golden import check_golden
from limpet.contracts.scoring import RowScores, score_together
from limpet.runtime.config import ModelConfig
from limpet.runtime.engines import open_engine, trt
from limpet.runtime.models import ServedModel
from limpet.runtime.plans import libraries
from tests.bundles import anomaly_bundle
from tests.command_line import limpet
from tests.runtime.engines.fake_gpu import GPU, FakeDevice
from tests.runtime.engines.fake_tensorrt import fake_compile, fake_library

Capture = pytest.CaptureFixture[str]
NAMES = ("tensorrt", "tensorrt-rtx")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return anomaly_bundle(tmp_path / "pump")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "gpu_capability", lambda: None)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """A machine with a GPU and both libraries."""
    device = FakeDevice()
    monkeypatch.setattr(libraries, "gpu_capability", lambda: GPU)
    monkeypatch.setattr(trt, "load_library", lambda name: fake_library(device, name))
    monkeypatch.setattr(trt, "load_runtime", lambda: None)
    monkeypatch.setattr(trt, "NvidiaDevice", lambda runtime: device)
    return device


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_it_is_impossible_whatever_is_installed(bundle: Bundle, name: str) -> None:
    fake_compile(bundle, name)  # type: ignore[arg-type]
    with pytest.raises(ImpossibleHereError, match=f"{name} runs on an NVIDIA GPU, and this") as no:
        open_engine(bundle, name)
    assert "engine onnxruntime" in no.value.hint


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_serves_on_the_processor_and_says_nothing(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert open_engine(bundle).name == "onnxruntime-cpu"
    assert caplog.records == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("gpu")
def test_a_plan_that_fits_is_opened(bundle: Bundle, name: str) -> None:
    fake_compile(bundle, name)  # type: ignore[arg-type]
    engine = open_engine(bundle, name)
    assert engine.name == f"{name}-{GPU}"
    assert check_golden(bundle.golden(), bundle.manifest, engine.run).passed


@pytest.mark.parametrize("name", [*NAMES, "auto"])
@pytest.mark.usefixtures("gpu")
def test_a_plan_is_proven_on_the_golden_data_before_it_is_served(tmp_path: Path, name: str) -> None:
    """Of a bundle that passes on the processor the plan computes something else."""
    bundle = anomaly_bundle(tmp_path / "pump", memory=0.5)
    other = anomaly_bundle(tmp_path / "other", memory=0.25).model_path.read_bytes()
    compiler = "tensorrt" if name == "auto" else name
    fake_compile(bundle, compiler, model=other)  # type: ignore[arg-type]
    assert ServedModel(ModelConfig(bundle=str(bundle.path), engine="onnxruntime"))
    with pytest.raises(EngineError, match=f"{compiler}-{GPU} computes other outputs") as refused:
        ServedModel(ModelConfig(bundle=str(bundle.path), engine=name))
    assert "limpet verify" in refused.value.hint


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("gpu")
def test_auto_takes_the_plan_and_announces_it(
    bundle: Bundle, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fake_compile(bundle, name)  # type: ignore[arg-type]
    assert open_engine(bundle).name == f"{name}-{GPU}"
    (record,) = caplog.records
    assert record.message == f"tiny-anomaly: engine {name}-{GPU}"


@pytest.mark.usefixtures("gpu")
def test_auto_without_a_plan_warns_with_the_commands_that_build_one(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_engine(bundle).name == "onnxruntime-cpu"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "engine onnxruntime-cpu, though there is a GPU" in record.message
    for name in NAMES:
        assert f"limpet compile {bundle.path} --engine {name}" in record.message


def test_auto_says_which_extra_a_gpu_would_need(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(libraries, "gpu_capability", lambda: GPU)
    monkeypatch.setattr(libraries, "_MODULES", dict.fromkeys(NAMES, "no_such_library"))
    assert open_engine(bundle).name == "onnxruntime-cpu"
    assert "pip install 'limpet[tensorrt]'" in caplog.text
    with pytest.raises(MissingExtraError):
        open_engine(bundle, "tensorrt")


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_fails_is_left_aside_by_auto_alone(
    bundle: Bundle, gpu: FakeDevice, caplog: pytest.LogCaptureFixture
) -> None:
    fake_compile(bundle)
    gpu.failing = {"allocate": "cudaErrorMemoryAllocation"}
    assert open_engine(bundle).name == "onnxruntime-cpu"
    assert "cudaErrorMemoryAllocation" in caplog.text
    gpu.failing = {"allocate": "cudaErrorMemoryAllocation"}
    with pytest.raises(EngineError, match="cudaErrorMemoryAllocation"):
        open_engine(bundle, "tensorrt")


def test_a_gpu_that_tensorrt_for_rtx_does_not_know_is_named(
    bundle: Bundle, gpu: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "gpu_capability", lambda: "sm90")
    with pytest.raises(ImpossibleHereError, match="does not run on sm90, only on sm87"):
        open_engine(bundle, "tensorrt-rtx")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("no_gpu")
def test_verify_without_a_gpu_exits_with_4_and_the_reason(
    bundle: Bundle, name: str, capsys: Capture
) -> None:
    done = limpet(capsys, "verify", bundle.path, "--engine", name)
    assert done.code == 4
    told = f"error: impossible on this machine: {name} runs on an NVIDIA GPU, and this machine has"
    assert done.err.startswith(f"{told} none")
    assert done.out == ""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("gpu")
def test_verify_runs_the_golden_data_on_the_plan(
    bundle: Bundle, name: str, capsys: Capture
) -> None:
    fake_compile(bundle, name)  # type: ignore[arg-type]
    report = limpet(capsys, "verify", bundle.path, "--engine", name, "--json", "-").report
    assert (report["engine"], report["passed"]) == (f"{name}-{GPU}", True)
    done = limpet(capsys, "verify", bundle.path, "--engine", name)
    assert done.code == 0
    assert f"{name}-{GPU}: tiny-anomaly (anomaly, fp32) computes what training" in done.out


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"compute_capability": "sm72"}, f"GPU sm72, wanted {GPU}"),
        ({"library_version": "10.0.1"}, "TensorRT version 10.0.1, wanted 10.3.0"),
        (None, f"has no plan of tensorrt for {GPU}"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_verify_names_what_does_not_match_and_the_command_that_rebuilds(
    bundle: Bundle, changed: dict[str, str] | None, difference: str, capsys: Capture
) -> None:
    if changed is not None:
        fake_compile(bundle, **changed)  # type: ignore[arg-type]
    done = limpet(capsys, "verify", bundle.path, "--engine", "tensorrt")
    assert done.code == 1
    assert difference in done.err
    assert done.err.endswith(f"\n  build it with: limpet compile {bundle.path} --engine tensorrt\n")


@pytest.mark.usefixtures("gpu")
def test_a_plan_that_computes_something_else_fails(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    other = anomaly_bundle(tmp_path / "other", memory=0.5)
    (bundle.path / "model.onnx").write_bytes(other.model_path.read_bytes())
    fake_compile(bundle)
    done = limpet(capsys, "verify", bundle.path, "--engine", "tensorrt")
    assert done.code == 1
    assert "is damaged" in done.err
    bundle = anomaly_bundle(tmp_path / "third")
    model = bundle.model_path.read_bytes()
    bundle.model_path.write_bytes(other.model_path.read_bytes())
    fake_compile(bundle)  # a plan of another graph, under the key of this one
    bundle.model_path.write_bytes(model)
    done = limpet(capsys, "verify", bundle.path, "--engine", "tensorrt")
    assert done.code == 1
    assert "FAILED the golden check" in done.out


@pytest.mark.usefixtures("gpu")
def test_a_served_models_streams_keep_their_state_on_the_gpu(
    tmp_path: Path, gpu: FakeDevice
) -> None:
    """The scores of several streams in turns are those of each alone on the processor."""
    bundle = anomaly_bundle(tmp_path / "pump", memory=0.5)
    fake_compile(bundle)
    served = ServedModel(ModelConfig(bundle=str(bundle.path), engine="tensorrt"))
    alone = ServedModel(ModelConfig(bundle=str(bundle.path), engine="onnxruntime"))
    scorers = [served.scorer() for _ in range(3)]
    others = [alone.scorer() for _ in range(3)]
    gpu.calls.clear()
    rng = np.random.default_rng(0)
    channels = len(bundle.manifest.signal().channels)
    for turn in range(8):
        rows = [rng.normal(size=(4 + turn, channels)) for _ in scorers]
        if turn == 5:
            for scorer in (scorers[1], others[1]):
                scorer.reset()
        found = score_together(scorers, rows)
        for one, other, some in zip(found, others, rows, strict=True):
            assert isinstance(one, RowScores)
            np.testing.assert_allclose(one.scores, other.push(some).scores, rtol=1e-5)
    assert gpu.calls["within"] > 0
    assert gpu.calls["to_device"] == gpu.calls["to_host"]  # two in and two out, no state
    gpu.failing = {"to_host": "cudaErrorUnknown"}
    (failed,) = score_together(scorers[:1], [rng.normal(size=(3, channels))])
    assert isinstance(failed, EngineError)


@pytest.mark.usefixtures("no_gpu")
def test_a_server_whose_configuration_names_an_absent_gpu_does_not_start(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    config = tmp_path / "robot.toml"
    config.write_text(f'[[models]]\nbundle = "{bundle.path}"\nengine = "tensorrt"\n')
    done = limpet(capsys, "serve", config)
    assert done.code == 4
    assert "tensorrt runs on an NVIDIA GPU" in done.err
