"""Bundles on disk: every kind of damage is refused by name."""

from __future__ import annotations

import contextlib
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limpet.contracts.bundle import GOLDEN, MANIFEST, MODEL, Bundle, file_sha256, read_bundle
from limpet.contracts.errors import BundleError
from limpet.contracts.signal_steps import BandEnergies, HoldLast
from limpet.contracts.tensors import Array
from tests.bundles import anomaly_bundle, change_file, change_manifest, identity_bundle

FILES = [MANIFEST, MODEL, GOLDEN]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return anomaly_bundle(tmp_path / "pump")


def refusal(path: Path) -> BundleError:
    """The error that reading raises, which always says where and what to do."""
    with pytest.raises(BundleError) as caught:
        read_bundle(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


def test_a_bundle_that_was_written_is_read_back(bundle: Bundle) -> None:
    assert read_bundle(bundle.path) == bundle
    assert sorted(os.listdir(bundle.path)) == sorted(FILES)


def test_the_manifest_holds_the_digest_of_every_other_file(bundle: Bundle) -> None:
    assert bundle.manifest.files == {
        name: file_sha256(bundle.path / name) for name in (MODEL, GOLDEN)
    }


def test_the_same_model_gives_the_same_bundle_byte_for_byte(tmp_path: Path) -> None:
    first, second = anomaly_bundle(tmp_path / "a"), anomaly_bundle(tmp_path / "b")
    for name in FILES:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_noticed(bundle: Bundle, name: str) -> None:
    file = bundle.path / name
    whole = file.read_bytes()
    rng = random.Random(name)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        error = refusal(bundle.path)
        assert str(file) in error.message


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_noticed(bundle: Bundle, name: str) -> None:
    file = bundle.path / name
    whole = file.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert str(file) in refusal(bundle.path).message


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle: Bundle, name: str) -> None:
    (bundle.path / name).unlink()
    assert name in refusal(bundle.path).message


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_link_in_place_of_a_file_is_refused(bundle: Bundle, name: str, tmp_path: Path) -> None:
    (bundle.path / name).rename(tmp_path / "elsewhere")
    (bundle.path / name).symlink_to(tmp_path / "elsewhere")
    assert f"lacks {name}" in refusal(bundle.path).message


def test_a_file_that_the_manifest_does_not_list_is_named(bundle: Bundle) -> None:
    (bundle.path / "notes.pkl").write_bytes(b"")
    error = refusal(bundle.path)
    assert "holds files its manifest does not list: notes.pkl" in error.message
    assert "remove them" in error.hint


def test_compiled_engines_are_no_part_of_what_is_verified(bundle: Bundle) -> None:
    (bundle.path / "engines").mkdir()
    (bundle.path / "engines" / "sm86.plan").write_bytes(b"plan")
    assert read_bundle(bundle.path) == bundle


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty folder"])
def test_what_is_no_bundle_says_how_to_make_one(tmp_path: Path, what: str) -> None:
    path = tmp_path / "model"
    if what == "a file":
        path.write_bytes(b"")
    elif what == "an empty folder":
        path.mkdir()
    error = refusal(path)
    assert f"{path} is not a bundle: cannot read manifest.json" in error.message
    assert error.hint == "make one with: limpet export RUN --out BUNDLE"


@pytest.mark.parametrize("raw", [b"", b"{}", b"PK\x03\x04", b"[" * 50_000, b"\x00" * 100])
def test_a_manifest_that_is_none_is_named(bundle: Bundle, raw: bytes) -> None:
    (bundle.path / MANIFEST).write_bytes(raw)
    assert f"{bundle.path / MANIFEST} is not a valid manifest" in refusal(bundle.path).message


def test_a_manifest_edited_by_hand_is_noticed_even_when_valid(bundle: Bundle) -> None:
    file = bundle.path / MANIFEST
    file.write_bytes(file.read_bytes().replace(b'"threshold": 3.0', b'"threshold": 9.0'))
    assert "was changed after it was written" in refusal(bundle.path).message


def test_a_manifest_with_a_field_more_in_a_step_is_noticed(bundle: Bundle) -> None:
    file = bundle.path / MANIFEST
    file.write_bytes(file.read_bytes().replace(b'"type": "clip"', b'"type": "clip", "extra": 1'))
    assert str(file) in refusal(bundle.path).message


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "sub/model.onnx",
        "..",
        ".",
        "",
        "./model.onnx",
        MANIFEST,
        "engines",
        "nul\x00byte",
        "long" * 200,
    ],
)
def test_a_file_name_that_leaves_the_folder_is_refused(bundle: Bundle, name: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = "0" * 64

    change_manifest(bundle, change)
    refusal(bundle.path)


def drop(manifest: dict[str, Any], name: str) -> None:
    del manifest["files"][name]


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        at: Any = manifest
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


INPUTS_WANTED = (
    "do not fit a streaming anomaly model, "
    "wanted float32 ['batch', 'rows', 2]; ['batch', 'rows', 2]; ['batch', 'size']"
)
OUTPUTS_WANTED = (
    "do not fit a streaming anomaly model, "
    "wanted float32 ['batch', 'rows', 'size']; ['batch', 'rows']; ['batch', 'size']"
)
BANDS = {"type": "band_energies", "frame_rows": 8, "hop_rows": 4, "bands": 2}
NO_BANDS = {**BANDS, "bands": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: drop(m, MODEL), "manifest.json lists no model.onnx"),
        (lambda m: drop(m, GOLDEN), "manifest.json lists no golden.npz"),
        (put("schema_version", value=2), "has schema version 2, this limpet reads 1"),
        (put("inputs", value=[]), "needs at least one input and one output"),
        (put("outputs", value=[]), "needs at least one input and one output"),
        *(
            (put("inputs", i, "shape", value=shape), INPUTS_WANTED)
            for i in (0, 1)
            for shape in (["batch", 8, 2], ["batch", "rows", 3], [4, "rows", 2], ["batch", 2])
        ),
        (put("inputs", 1, "shape", value=["batch", "frames", 2]), INPUTS_WANTED),
        (put("inputs", 2, "shape", value=["batch", "size"]), INPUTS_WANTED),
        (put("inputs", 2, "shape", value=["batch", 1, 2]), INPUTS_WANTED),
        (put("inputs", 2, "shape", value=[2]), INPUTS_WANTED),
        (put("inputs", 0, "dtype", value="float16"), INPUTS_WANTED),
        (put("inputs", 1, "dtype", value="bool"), INPUTS_WANTED),
        (put("inputs", 2, "dtype", value="float64"), INPUTS_WANTED),
        (lambda m: m["inputs"].pop(), INPUTS_WANTED),
        (lambda m: m["inputs"].append(m["inputs"][0]), INPUTS_WANTED),
        (put("inputs", 0, "name", value="x"), "golden.npz inputs: tensor 'x' is missing"),
        (put("outputs", 0, "shape", value=["batch", 2]), OUTPUTS_WANTED),
        (put("outputs", 0, "shape", value=["batch", "rows", "size"]), OUTPUTS_WANTED),
        (put("outputs", 1, "shape", value=["batch", "rows", 1]), OUTPUTS_WANTED),
        (put("outputs", 1, "shape", value=["batch"]), OUTPUTS_WANTED),
        (put("outputs", 1, "dtype", value="float64"), OUTPUTS_WANTED),
        (put("outputs", 2, "shape", value=["batch", "rows"]), OUTPUTS_WANTED),
        (lambda m: m["outputs"].reverse(), OUTPUTS_WANTED),
        (lambda m: m["outputs"].pop(), OUTPUTS_WANTED),
        (put("outputs", 2, "shape", value=["batch", 3]), "wanted one size"),
        (
            put("outputs", 0, "shape", value=["batch", "rows", 3]),
            "tensor 'embedding' has shape [5, 12, 2], wanted [batch, rows, 3]",
        ),
        (put("preprocessing", value=None), "needs preprocessing of signals"),
        (put("preprocessing", "channels", value=[]), "needs at least one channel"),
        (put("preprocessing", "channels", value=["a", "a"]), "wanted names that differ"),
        (put("preprocessing", "rate_hz", value=0.0), "and a rate above 0"),
        (put("preprocessing", "steps", value=[]), "must end with a look_back"),
        (put("preprocessing", "steps", 0, "max_rows", value=-1), "hold_last.max_rows >= 0"),
        (put("preprocessing", "steps", 1, "scale", value=[1.0, 0.0]), "2 positive scales"),
        (put("preprocessing", "steps", 1, "mean", value=[0.0]), "2 positive scales"),
        (put("preprocessing", "steps", 2, "limit", value=0.0), "clip.limit is 0, wanted > 0"),
        (put("preprocessing", "steps", 3, "frames", value=0), "look_back of at least one frame"),
        (lambda m: m["preprocessing"]["steps"].pop(), "must end with a look_back"),
        (lambda m: m["preprocessing"]["steps"].insert(1, NO_BANDS), "wanted a hop of 1 to 8 rows"),
        (lambda m: m["preprocessing"]["steps"].insert(1, BANDS), "4 positive scales"),
        (put("calibration", value=None), "needs a threshold"),
        (put("calibration", "release_threshold", value=3.5), "needs a threshold"),
        (put("decoding", value=None), "decoding does not name the outputs embedding, score, next"),
        *(
            (put("decoding", name, value="distance"), "does not name the outputs embedding, score,")
            for name in ("embedding", "score", "next_state")
        ),
    ],
)
def test_a_sealed_manifest_that_contradicts_itself_is_refused(
    bundle: Bundle, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    change_manifest(bundle, change)
    assert message in refusal(bundle.path).message


def npz(**arrays: Array) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def golden_arrays(bundle: Bundle) -> dict[str, Array]:
    with np.load(bundle.path / GOLDEN) as arrays:
        return dict(arrays)


def npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"not an archive", b"PK\x03\x04", npy(np.zeros(3)), npz(x=np.zeros(3)), npz()],
    ids=["empty", "text", "magic", "npy", "other keys", "no keys"],
)
def test_golden_data_that_is_none_is_refused_though_sealed(bundle: Bundle, content: bytes) -> None:
    change_file(bundle, GOLDEN, content)
    assert str(bundle.path / GOLDEN) in refusal(bundle.path).message


def test_golden_data_with_python_objects_is_refused(bundle: Bundle) -> None:
    arrays = golden_arrays(bundle)
    arrays["inputs/samples"] = np.array([{"a": 1}], object)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    change_file(bundle, GOLDEN, buffer.getvalue())
    assert "is not valid golden data: Object arrays cannot be loaded" in str(refusal(bundle.path))


def test_sealed_golden_data_damaged_anywhere_never_ends_in_another_error(bundle: Bundle) -> None:
    """A sender who seals what it damaged still meets typed errors only."""
    whole = (bundle.path / GOLDEN).read_bytes()
    rng = random.Random(1)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        change_file(bundle, GOLDEN, bytes(damaged[: rng.choice([len(whole), len(whole) // 2])]))
        with contextlib.suppress(BundleError):  # some damage is to padding, and read all the same
            read_bundle(bundle.path)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("inputs/samples", np.zeros((5, 12, 3), np.float32), "wanted [batch, rows, 2]"),
        ("inputs/samples", np.zeros((5, 12, 2)), "is float64, wanted float32"),
        ("inputs/present", np.zeros((5, 11, 2), np.float32), "wanted [batch, rows, 2] with"),
        ("inputs/state", np.zeros((5, 3), np.float32), "has shape [5, 3], wanted [batch, 2]"),
        ("inputs/state", np.zeros((4, 2), np.float32), "has shape [4, 2], wanted [batch, 2]"),
        ("inputs/other", np.zeros(1, np.float32), "unknown tensor 'other'"),
        ("outputs/score", np.zeros(5, np.float32), "has shape [5], wanted [batch, rows]"),
        ("outputs/next_state", np.zeros((5, 3), np.float32), "wanted [batch, 2]"),
        ("tolerances/score", np.zeros(2), "is not valid golden data"),
        ("tolerances/score", np.array(np.inf), "wanted finite ones among"),
        ("tolerances/scor", np.array(1.0), "wanted finite ones among"),
        ("signal/rows", np.zeros((200, 3)), "which do not fit the manifest"),
        ("signal/rows", np.zeros((200, 2), np.float32), "which do not fit the manifest"),
        ("signal/scores", np.zeros(199, np.float32), "which do not fit the manifest"),
        ("signal/scores", np.full(200, np.nan, np.float32), "which do not fit the manifest"),
        ("signal/labels", np.zeros(200), "which do not fit the manifest"),
        ("surprise/x", np.zeros(1), "is not valid golden data: 'surprise'"),
    ],
)
def test_golden_data_that_does_not_fit_the_manifest_is_refused(
    bundle: Bundle, key: str, array: Array, message: str
) -> None:
    change_file(bundle, GOLDEN, npz(**{**golden_arrays(bundle), key: array}))
    error = refusal(bundle.path)
    assert GOLDEN in error.message
    assert message in error.message


GOLDEN_KEYS = [
    *("inputs/samples", "inputs/present", "inputs/state"),
    *("outputs/embedding", "outputs/score", "outputs/next_state"),
    *("signal/rows", "signal/scores"),
]


@pytest.mark.parametrize("key", GOLDEN_KEYS)
def test_golden_data_that_lacks_an_array_is_refused(bundle: Bundle, key: str) -> None:
    arrays = golden_arrays(bundle)
    del arrays[key]
    change_file(bundle, GOLDEN, npz(**arrays))
    assert GOLDEN in refusal(bundle.path).message


def test_golden_data_of_no_rows_proves_nothing_and_is_refused(bundle: Bundle) -> None:
    arrays = {
        key: array[:0] if key.startswith(("inputs", "outputs")) else array
        for key, array in golden_arrays(bundle).items()
    }
    change_file(bundle, GOLDEN, npz(**arrays))
    assert "holds empty arrays" in refusal(bundle.path).message


def test_a_model_of_bands_has_as_many_features_as_they_are(tmp_path: Path) -> None:
    steps = [HoldLast(max_rows=1), BandEnergies(frame_rows=16, hop_rows=4, bands=3)]
    bundle = anomaly_bundle(tmp_path / "bearing", steps=steps, look_back=2, memory=0.5)
    assert read_bundle(bundle.path) == bundle
    assert bundle.manifest.inputs[0].describe() == "samples float32 [batch, rows, 6]"
    change_manifest(bundle, put("preprocessing", "steps", 1, "bands", value=2))
    assert "wanted float32 ['batch', 'rows', 4]" in refusal(bundle.path).message


def test_a_model_of_another_kind_needs_no_preprocessing(tmp_path: Path) -> None:
    bundle = identity_bundle(tmp_path / "identity")
    assert read_bundle(bundle.path).golden().signal_rows is None
