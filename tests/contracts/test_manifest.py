"""The manifest: bytes and back, and what is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from limpet.contracts.errors import BundleError
from limpet.contracts.manifest import SCHEMA_VERSION, decode_manifest, encode_manifest, is_sealed
from limpet.contracts.signal_steps import LookBack
from tests.bundles import anomaly_manifest

WHERE = "model/manifest.json"


def test_a_manifest_survives_its_bytes() -> None:
    manifest = anomaly_manifest()
    read = decode_manifest(encode_manifest(manifest), WHERE)
    assert msgspec.structs.replace(read, manifest_sha256="") == manifest


def test_the_same_manifest_has_the_same_bytes() -> None:
    assert encode_manifest(anomaly_manifest()) == encode_manifest(anomaly_manifest())


def test_encoding_what_was_read_gives_the_same_bytes() -> None:
    raw = encode_manifest(anomaly_manifest())
    assert encode_manifest(decode_manifest(raw, WHERE)) == raw


def test_what_an_earlier_limpet_sealed_without_a_field_of_today_is_read() -> None:
    document = msgspec.json.decode(encode_manifest(anomaly_manifest()))
    del document["calibration"]  # has a default, as every later field must
    document["manifest_sha256"] = ""
    document["manifest_sha256"] = hashlib.sha256(msgspec.json.encode(document)).hexdigest()
    raw = msgspec.json.format(msgspec.json.encode(document)) + b"\n"
    assert is_sealed(raw)
    assert decode_manifest(raw, WHERE).name == anomaly_manifest().name


def test_the_seal_holds_for_the_bytes_that_were_written_and_no_others() -> None:
    raw = encode_manifest(anomaly_manifest())
    assert is_sealed(raw)
    for other in (raw.replace(b"tiny-anomaly", b"tiny-anomalx"), raw + b" ", b" " + raw):
        assert not is_sealed(other)


def test_a_manifest_is_text_that_people_can_read() -> None:
    assert b'\n  "kind": "anomaly",\n' in encode_manifest(anomaly_manifest())


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'"\\ud800"'],
)
def test_bytes_that_are_no_manifest_are_refused_by_the_name_of_the_file(raw: bytes) -> None:
    with pytest.raises(BundleError, match=f"^{WHERE} is not a valid manifest: ") as caught:
        decode_manifest(raw, WHERE)
    assert caught.value.hint == "export the model again"


@pytest.mark.parametrize("nested", [b"[" * 100_000, b'{"a":' * 100_000])
def test_deep_nesting_inside_a_manifest_is_refused(nested: bytes) -> None:
    raw = b'{"schema_version": 1, "provenance": {"configuration": {"a": ' + nested
    with pytest.raises(BundleError, match="is not a valid manifest"):
        decode_manifest(raw, WHERE)


def test_another_schema_version_is_named_before_anything_else_is_read() -> None:
    raw = msgspec.json.encode({"schema_version": SCHEMA_VERSION + 1, "new": "field"})
    with pytest.raises(BundleError) as caught:
        decode_manifest(raw, WHERE)
    assert caught.value.message == (
        f"{WHERE} has schema version {SCHEMA_VERSION + 1}, this limpet reads {SCHEMA_VERSION}"
    )
    assert "install the limpet that wrote it" in caught.value.hint


def put(data: Any, path: str, value: object) -> None:
    """Sets `inputs.0.shape` of plain JSON data."""
    *parents, last = path.split(".")
    for parent in parents:
        data = data[int(parent) if parent.isdigit() else parent]
    data[int(last) if last.isdigit() else last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("kind", "teapot", "Invalid enum value 'teapot' - at `$.kind`"),
        ("surprise", 1, "unknown field `surprise`"),
        ("opset", "18", "Expected `int`, got `str` - at `$.opset`"),
        ("inputs.0.shape", [1.5], "Expected `int | str`, got `float`"),
        ("inputs.0.dtype", "object", "tensor 'samples': dtype 'object' is not one of"),
        ("inputs.0.shape", [0], "axis 0 has size 0"),
        ("preprocessing.steps.3", {"type": "look_back"}, "missing required field `frames`"),
        ("preprocessing.steps.3", {"type": "window", "rows": 8}, "Invalid value 'window'"),
        ("decoding.state", "state", "unknown field `state`"),
        ("preprocessing.type", "pixels", "Invalid value 'pixels' - at `$.preprocessing.type`"),
        ("preprocessing.steps", [{"type": "median"}], "Invalid value 'median'"),
        ("provenance.metrics", {"auroc": "high"}, "Expected `float`, got `str`"),
    ],
)
def test_a_wrong_field_is_refused_with_its_path(path: str, value: object, message: str) -> None:
    data = msgspec.json.decode(encode_manifest(anomaly_manifest()))
    put(data, path, value)
    with pytest.raises(BundleError) as caught:
        decode_manifest(msgspec.json.encode(data), WHERE)
    assert caught.value.message.startswith(f"{WHERE} is not a valid manifest: ")
    assert message in caught.value.message


@pytest.mark.parametrize("field", ["name", "kind", "space_id", "inputs", "outputs", "opset"])
def test_a_missing_field_is_named(field: str) -> None:
    data = msgspec.json.decode(encode_manifest(anomaly_manifest()))
    del data[field]
    with pytest.raises(BundleError, match=f"missing required field `{field}`"):
        decode_manifest(msgspec.json.encode(data), WHERE)


def test_what_a_score_looks_back_on_is_the_chains_last_step() -> None:
    assert anomaly_manifest(look_back=5).signal().look_back == LookBack(frames=5)


def test_a_model_that_scores_no_streams_says_so() -> None:
    manifest = msgspec.structs.replace(anomaly_manifest(), preprocessing=None, kind="custom")
    with pytest.raises(BundleError, match="of kind 'custom' and scores no sensor streams"):
        manifest.signal()
