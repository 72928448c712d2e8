"""Bring your own encoder: the same guarantees, and served like the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.bundle import read_bundle
from limpet.contracts.errors import DataError, ExportError, UsageError
from limpet.contracts.golden import check_golden
from limpet.export.package import export_run
from limpet.runtime.engines import open_engine
from tests.bundles import identity_bundle
from tests.command_line import limpet

Capture = pytest.CaptureFixture[str]

SPEC = """
[[inputs]]
name = "image"
dtype = "float32"
shape = ["batch", 3, 32, 32]
range = [-1.0, 1.0]

[[outputs]]
name = "embedding"
dtype = "float32"
shape = ["batch", 16]
"""

SOURCE = """
import torch
from torch import nn

def encoder():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.Flatten(),
        nn.Linear(8 * 7 * 7, 16),
    )

def no_module():
    return 3

def broken():
    raise RuntimeError("no weights here")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_encoder.py").write_text(SOURCE)
    (folder / "SPEC.toml").write_text(SPEC)
    return folder


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def test_a_module_becomes_a_bundle_that_is_verified(
    here: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "mine"
    done = limpet(
        capsys, "export", "--module", "my_encoder:encoder", "--spec", "SPEC.toml", "--out", out
    )
    assert done.code == 0, done.err
    assert limpet(capsys, "verify", out).code == 0
    bundle = read_bundle(out)
    assert bundle.manifest.kind == "custom"
    assert bundle.manifest.inputs[0].range == (-1.0, 1.0)
    image = np.zeros((2, 3, 32, 32), np.float32)
    assert open_engine(bundle).run({"image": image})["embedding"].shape == (2, 16)


def test_an_onnx_file_becomes_a_bundle_at_every_precision(here: Path, tmp_path: Path) -> None:
    export_run(None, tmp_path / "a", module="my_encoder:encoder", spec=Path("SPEC.toml"))
    model = tmp_path / "a" / "model.onnx"
    assert export_run(model, tmp_path / "b").passed
    assert export_run(model, tmp_path / "half", precision="fp16").passed
    samples = np.random.default_rng(1).uniform(-1, 1, (32, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image=samples)
    small = export_run(
        model, tmp_path / "small", precision="int8", calibration=tmp_path / "samples.npz"
    )
    assert small.passed
    for name in ("b", "half", "small"):
        bundle = read_bundle(tmp_path / name)
        engine = open_engine(bundle)
        assert check_golden(bundle.golden(), bundle.manifest, engine.run).passed
        assert bundle.manifest.outputs[0].shape == ["batch", 16]


def test_golden_inputs_of_ones_own_are_used(home: Path, tmp_path: Path) -> None:
    model = identity_bundle(tmp_path / "identity").model_path
    given = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.savez(tmp_path / "given.npz", x=given)
    spec = tmp_path / "SPEC.toml"
    tensor = 'dtype = "float32"\nshape = ["batch", 4]\n'
    spec.write_text(
        f'golden_inputs = "given.npz"\n[[inputs]]\nname = "x"\n{tensor}'
        f'[[outputs]]\nname = "y"\n{tensor}'
    )
    export_run(model, tmp_path / "out", spec=spec)
    golden = read_bundle(tmp_path / "out").golden()
    np.testing.assert_array_equal(golden.inputs["x"], given)
    np.savez(tmp_path / "given.npz", x=given[:, :3])
    with pytest.raises(DataError, match=r"given\.npz"):
        export_run(model, tmp_path / "other", spec=spec)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("no_such_package:encoder", "No module named"),
        ("my_encoder:missing", "has no attribute 'missing'"),
        ("my_encoder:broken", "RuntimeError: no weights here"),
        ("my_encoder:no_module", r"returned a int, wanted a torch\.nn\.Module"),
    ],
)
def test_what_gives_no_module_is_named(here: Path, tmp_path: Path, target: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        export_run(None, tmp_path / "x", module=target, spec=here / "SPEC.toml")


def test_a_specification_with_an_unknown_key_is_refused(here: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "SPEC.toml"
    wrong.write_text('colour = "red"\n' + SPEC)
    with pytest.raises(UsageError, match="unknown field `colour`"):
        export_run(None, tmp_path / "x", module="my_encoder:encoder", spec=wrong)


def test_a_model_without_a_batch_axis_is_refused(tmp_path: Path) -> None:
    bundle = identity_bundle(tmp_path / "identity", shape=(2, 4))
    with pytest.raises(UsageError, match="are not one dynamic axis"):
        export_run(bundle.model_path, tmp_path / "x")


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ExportError, match="no ONNX model"):
        export_run(tmp_path / "model.onnx", tmp_path / "x")


def test_a_wrong_output_in_the_specification_is_refused(here: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "SPEC.toml"
    wrong.write_text(SPEC.replace("16]", "17]"))
    with pytest.raises(UsageError, match="embedding"):
        export_run(None, tmp_path / "x", module="my_encoder:encoder", spec=wrong)


def test_a_module_that_does_not_take_what_the_specification_says_is_a_usage_error(
    here: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "SPEC.toml"
    wrong.write_text(SPEC.replace("32, 32", "64, 64"))
    with pytest.raises(UsageError, match=r"fails on inputs as .*SPEC\.toml describes them"):
        export_run(None, tmp_path / "out", module="my_encoder:encoder", spec=wrong)


def test_nothing_or_two_things_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing or two"):
        export_run(None, tmp_path / "x")
    with pytest.raises(UsageError, match="needs its --spec"):
        export_run(None, tmp_path / "x", module="a:b")
    with pytest.raises(UsageError, match="describes itself"):
        export_run(tmp_path, tmp_path / "x", spec=tmp_path / "SPEC.toml")
