"""Plans: really built, by TensorRT for RTX, which needs no GPU for that."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from onnx import helper
from PIL import Image

from limpet.contracts.bundle import ENGINES, GOLDEN, MODEL, Bundle, read_bundle, write_bundle
from limpet.contracts.errors import EngineError, MissingExtraError, UsageError
from limpet.contracts.manifest import Precision
from limpet.export.package import export_run
from limpet.runtime.plans import builder, compiling, libraries
from limpet.runtime.plans.compiling import CompileReport, compile_bundle
from limpet.runtime.plans.devices import gpu_capability
from limpet.runtime.plans.key import plan_key
from limpet.runtime.plans.libraries import Library
from limpet.runtime.plans.profiles import Sizes, parse_sizes, profile_of
from limpet.runtime.plans.store import PlanStore
from tests.bundles import anomaly_bundle, identity_bundle, onnx_bytes
from tests.command_line import limpet
from tests.grasp_bundles import grasp_manifest
from tests.navigation_bundles import navigation_bundle

pytest.importorskip("tensorrt_rtx", reason="pip install 'limpet[tensorrt]'")

Capture = pytest.CaptureFixture[str]
REFERENCE = Path(__file__).resolve().parents[3] / "robot_configs" / "bundles"
RECORDING = Path(compiling.__file__).parents[1] / "demo" / "recordings" / "machine_temperature.csv"


def build(bundle: Bundle, target: str = "sm86", **options: object) -> CompileReport:
    wanted = {"engine": "tensorrt-rtx", "target": target, "axes": {}, "report": lambda _: None}
    return compile_bundle(bundle, **(wanted | options))  # type: ignore[arg-type]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return anomaly_bundle(tmp_path / "pump")


def real_data(bundle: Bundle, folder: Path) -> Path:
    """What INT8's ranges of a reference bundle are taken from here."""
    if bundle.manifest.kind == "anomaly":
        return RECORDING
    golden = bundle.golden()
    if golden.images is None:
        np.savez(folder / "inputs.npz", **golden.inputs)  # type: ignore[arg-type]
        return folder / "inputs.npz"
    images = folder / "images"
    images.mkdir()
    for index, image in enumerate(golden.images):
        Image.fromarray(image).save(images / f"{index:03}.png")
    return images


@pytest.mark.timeout(400)  # half precision of a graph of 700 nodes is measured a hundred times
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("reference", sorted(path.name for path in REFERENCE.iterdir()))
def test_each_reference_bundle_builds_at_every_precision(
    reference: str, precision: Precision, tmp_path: Path
) -> None:
    """Without an operator that the parser does not know: there is nothing to fall back to."""
    out, source = tmp_path / "out", read_bundle(REFERENCE / reference)
    calibration = real_data(source, tmp_path) if precision == "int8" else None
    report = export_run(source.path, out, precision=precision, calibration=calibration)
    assert report.passed
    built = build(read_bundle(out))
    assert built.precision == precision
    assert Path(built.plan).stat().st_size == built.plan_bytes > 10_000


def test_an_image_encoder_builds(tmp_path: Path) -> None:
    assert not build(navigation_bundle(tmp_path / "see")).cached


@pytest.mark.parametrize("target", ["sm89", "sm120"])
def test_other_gpus_get_plans_of_their_own(bundle: Bundle, target: str) -> None:
    first, other = build(bundle), build(bundle, target)
    assert other.target == target
    assert Path(first.plan).exists()
    assert first.plan != other.plan


def test_a_bundle_with_plans_is_still_a_whole_bundle(bundle: Bundle) -> None:
    build(bundle)
    read_bundle(bundle.path)


def test_a_plan_is_built_once(bundle: Bundle) -> None:
    first = build(bundle)
    assert not first.cached
    assert build(bundle).cached
    assert not build(bundle, axes={"batch": Sizes(1, 2, 4)}).cached
    assert not build(bundle, force=True, axes={"batch": Sizes(1, 2, 4)}).cached


def test_the_command_prints_the_path_and_shows_progress(bundle: Bundle, capsys: Capture) -> None:
    done = limpet(capsys, "compile", bundle.path, "--target", "sm86")
    assert done.code == 0
    assert Path(done.out.strip()).parent == bundle.path / ENGINES
    assert "tiny-anomaly for sm86 with tensorrt-rtx" in done.err
    assert len(done.err.splitlines()) >= 2  # the builder's own phases too


def test_a_silent_step_is_reported_with_the_time_it_has_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builder, "EVERY_S", 0.001)
    trt = SimpleNamespace(IProgressMonitor=object)
    told, said = list[str](), threading.Event()

    def report(line: str) -> None:
        told.append(line)
        if "so far" in line:
            said.set()

    monitor = builder._monitor(trt, report)

    def build() -> str:
        monitor.phase_start("Choosing kernels", None, 1)
        assert said.wait(30.0)
        return "plan"

    assert builder._interruptible(build, monitor) == "plan"
    assert told[0] == "Choosing kernels"
    assert re.fullmatch(r"Choosing kernels: \d+ s so far", told[-1])


def test_what_the_library_prints_is_no_part_of_the_result(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with builder._printing_to_stderr():
        os.write(1, b"WARNING: lossy cast")
    os.write(1, b"the plan")
    out, err = capfd.readouterr()
    assert (out, err) == ("the plan", "WARNING: lossy cast")


def test_the_report_has_its_documented_keys(bundle: Bundle, capsys: Capture) -> None:
    report = limpet(capsys, "compile", bundle.path, "--target", "sm86", "--json", "-").report
    assert list(report) == [
        *("bundle", "name", "precision", "engine", "library_version", "target", "plan"),
        *("plan_bytes", "cached", "build_s", "profile"),
    ]
    assert report["profile"] == {"batch": [1, 1, 64], "rows": [1, 16, 1024]}


def test_without_a_gpu_and_a_target_it_is_impossible_here(
    bundle: Bundle, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "gpu_capability", lambda: None)
    done = limpet(capsys, "compile", bundle.path)
    assert done.code == 4
    assert "it has none, or no NVIDIA driver" in done.err
    assert "--target: sm75, sm80, sm86, sm89, sm120, sm121" in done.err
    assert not (bundle.path / ENGINES).exists()


@pytest.mark.parametrize("target", ["current", "sm87"])
def test_full_tensorrt_without_a_gpu_is_impossible_here_installed_or_not(
    bundle: Bundle, capsys: Capture, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(libraries, "gpu_capability", lambda: None)
    done = limpet(capsys, "compile", bundle.path, "--engine", "tensorrt", "--target", target)
    assert done.code == 4
    assert "impossible on this machine: tensorrt runs on an NVIDIA GPU" in done.err
    assert "--engine tensorrt-rtx with a --target" in done.err


def test_a_target_is_taken_in_any_case_and_refused_where_it_is_no_gpu(
    bundle: Bundle, capsys: Capture
) -> None:
    assert build(bundle, "SM89").target == "sm89"
    done = limpet(capsys, "compile", bundle.path, "--target", "orin")
    assert done.code == 2
    assert "--target orin is no GPU" in done.err


def test_a_gpu_that_the_library_does_not_know_is_named(
    bundle: Bundle, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "gpu_capability", lambda: "sm87")
    done = limpet(capsys, "compile", bundle.path, "--engine", "tensorrt-rtx")
    assert done.code == 4
    assert "knows no sm87" in done.err
    assert "--engine tensorrt" in done.err


@pytest.mark.parametrize(
    ("installed", "gpu", "usual"),
    [
        (["tensorrt-rtx"], None, "tensorrt-rtx"),
        (["tensorrt-rtx", "tensorrt"], "sm86", "tensorrt-rtx"),
        (["tensorrt-rtx", "tensorrt"], "sm87", "tensorrt"),
        (["tensorrt"], "sm87", "tensorrt"),
        ([], "sm87", "tensorrt-rtx"),
    ],
)
def test_the_usual_compiler_is_installed_and_knows_the_gpu(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], gpu: str | None, usual: str
) -> None:
    def load(name: str) -> Library:
        if name not in installed:
            raise MissingExtraError("tensorrt", name)
        known = SimpleNamespace(__members__={"SM86": 1})
        return Library(name, SimpleNamespace(__version__="1", ComputeCapability=known))  # type: ignore[arg-type]

    monkeypatch.setattr(libraries, "load_library", load)
    monkeypatch.setattr(libraries, "gpu_capability", lambda: gpu)
    assert libraries.usual_compiler() == usual


@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_a_damaged_plan_is_refused_and_then_rebuilt(bundle: Bundle, damage: str) -> None:
    report = build(bundle)
    plan = Path(report.plan)
    content = plan.read_bytes()
    if damage == "gone":
        plan.unlink()
    else:
        plan.write_bytes(content[:-1] + (b"?" if damage == "flipped" else b""))
    key = plan_key(bundle, "sm86", "tensorrt-rtx", report.library_version)
    with pytest.raises(EngineError, match=r"limpet compile .* --engine tensorrt-rtx"):
        PlanStore(bundle).read(key)
    assert not build(bundle).cached
    PlanStore(bundle).read(key)


def test_a_plan_of_another_device_is_refused_with_every_difference(bundle: Bundle) -> None:
    report = build(bundle)
    key = plan_key(bundle, "sm89", "tensorrt-rtx", "9.9")
    with pytest.raises(EngineError) as refused:
        PlanStore(bundle).read(key)
    assert "GPU sm86, wanted sm89" in refused.value.message
    assert f"TensorRT version {report.library_version}, wanted 9.9" in refused.value.message


def test_a_plan_renamed_to_another_devices_is_refused(bundle: Bundle) -> None:
    report = build(bundle)
    store = PlanStore(bundle)
    other = plan_key(bundle, "sm89", "tensorrt-rtx", report.library_version)
    for suffix in (".plan", ".json"):
        os.rename(Path(report.plan).with_suffix(suffix), store.path(other).with_suffix(suffix))
    with pytest.raises(EngineError, match="was built for another device: GPU sm86, wanted sm89"):
        store.read(other)


def test_an_operator_that_tensorrt_lacks_is_named(tmp_path: Path) -> None:
    sound = identity_bundle(tmp_path / "sound")
    specs = sound.manifest.inputs, sound.manifest.outputs
    shrink = helper.make_node("Det", ["m"], ["d"])
    nodes = [
        helper.make_node("Reshape", ["x", "square"], ["m"]),
        shrink,
        helper.make_node("Unsqueeze", ["d", "last"], ["u"]),
        helper.make_node("Expand", ["u", "four"], ["y"]),
    ]
    constants = {
        "square": np.array([-1, 2, 2]),
        "last": np.array([1]),
        "four": np.array([1, 4]),
    }
    model = onnx_bytes(nodes, *specs, constants)
    files = {MODEL: model, GOLDEN: (sound.path / GOLDEN).read_bytes()}
    bundle = write_bundle(tmp_path / "det", sound.manifest, files)
    with pytest.raises(EngineError, match=r"cannot parse identity: .*Det"):
        build(bundle)


def _build_at(path: Path) -> bool:
    return build(read_bundle(path)).cached


def test_two_processes_at_once_build_one_plan(bundle: Bundle) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        cached = pool.map(_build_at, [bundle.path] * 2)
    assert sorted(cached) == [False, True]
    assert build(bundle).cached
    names = {path.suffix for path in (bundle.path / ENGINES).iterdir()}
    assert names == {".plan", ".json", ""}


def test_engines_that_cannot_be_written_are_named(
    bundle: Bundle, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle.path / ENGINES).write_bytes(b"a file where the folder would be")
    done = limpet(capsys, "compile", bundle.path, "--target", "sm86")
    assert done.code == 1
    assert f"{bundle.path / ENGINES} cannot be written: File exists" in done.err
    (bundle.path / ENGINES).unlink()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = limpet(capsys, "compile", bundle.path, "--target", "sm86")
    assert done.code == 1
    assert re.search(r"\.plan cannot be written: No space left on device", done.err)
    assert [path.name for path in (bundle.path / ENGINES).iterdir()] == [".lock"]


def test_ctrl_c_while_it_builds_leaves_nothing(tmp_path: Path) -> None:
    """The grasp encoder takes seconds, so it is interrupted within, on a busy machine too."""
    shutil.copytree(
        REFERENCE / "grasp", tmp_path / "bundle", ignore=shutil.ignore_patterns(ENGINES)
    )
    command = ("compile", str(tmp_path / "bundle"), "--target", "sm86")
    with subprocess.Popen(
        [sys.executable, "-m", "limpet.runtime.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "Building" not in (line := process.stderr.readline()):
            assert line, "it ended before it built"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert [path.name for path in (tmp_path / "bundle" / ENGINES).iterdir()] == [".lock"]


def test_sizes_of_axes_are_checked(bundle: Bundle) -> None:
    assert parse_sizes("batch=1:2:8") == ("batch", Sizes(1, 2, 8))
    for wrong in ("batch", "batch=1", "batch=2:1:8", "batch=0:1:2", "=1:1:1", "batch=a:b:c"):
        with pytest.raises(UsageError, match="three ascending sizes"):
            parse_sizes(wrong)
    with pytest.raises(UsageError, match=r"no axis depth\n  its axes: batch, rows"):
        profile_of(bundle.manifest, {"depth": Sizes(1, 1, 1)})


def test_a_sidecar_says_what_the_plan_is_for(bundle: Bundle) -> None:
    report = build(bundle)
    sidecar = msgspec.json.decode(Path(report.plan).with_suffix(".json").read_bytes())
    assert sidecar["key"]["onnx_sha256"] == bundle.manifest.files[MODEL]
    assert sidecar["key"]["compute_capability"] == "sm86"


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_tensorrt_builds_for_the_gpu_that_is_here(bundle: Bundle) -> None:
    pytest.importorskip("tensorrt", reason="pip install tensorrt")
    if gpu_capability() is None:
        pytest.skip("no NVIDIA GPU here")
    assert not build(bundle, "current", engine="tensorrt").cached


def test_a_grasp_model_is_built_for_one_view_and_for_two() -> None:
    assert profile_of(grasp_manifest(), {}) == {"views": Sizes(1, 2, 2)}
