"""A bundle on disk: the only thing that crosses from workstation to robot.

BUNDLE/manifest.json   what the model is (`limpet.contracts.manifest`)
BUNDLE/model.onnx      the graph with its weights
BUNDLE/golden.npz      inputs and expected outputs (`limpet.contracts.golden`)
BUNDLE/engines/        plans compiled on this device; safe to delete
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from limpet.contracts.errors import BundleError, TensorError, UsageError
from limpet.contracts.golden import Golden, read_golden
from limpet.contracts.images import ImagePreprocessing
from limpet.contracts.manifest import (
    AnomalyDecoding,
    Manifest,
    NavigationDecoding,
    SignalPreprocessing,
    decode_manifest,
    encode_manifest,
    is_sealed,
)
from limpet.contracts.signal_steps import check_chain, features_of
from limpet.contracts.tensors import TensorSpec

MANIFEST, MODEL, GOLDEN, ENGINES = "manifest.json", "model.onnx", "golden.npz", "engines"

STREAMING = "a streaming anomaly model"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found whole."""

    path: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / MODEL

    def golden(self) -> Golden:
        """The golden data."""
        return read_golden(self.path / GOLDEN, self.manifest)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def files_sha256(files: Sequence[Path]) -> str:
    """SHA-256 of one file, or of the lines that `sha256sum` writes for several in their folder."""
    if len(files) == 1:
        return file_sha256(files[0])
    lines = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def read_bundle(path: Path | str) -> Bundle:
    """Reads a bundle and verifies it: schema, seal, files, digests, shapes.

    Raises:
        BundleError: What is wrong with which file, and what to do.
    """
    path = Path(path)
    try:
        raw = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path} is not a bundle: cannot read {MANIFEST} ({error.strerror})",
            "make one with: limpet export RUN --out BUNDLE",
        ) from error
    manifest = decode_manifest(raw, f"{path / MANIFEST}")
    if not is_sealed(raw, manifest):
        raise BundleError(
            f"{path / MANIFEST} was changed after it was written",
            "copy the bundle again from where it was exported, or export again",
        )
    _check_files(path, manifest)
    _check_consistency(path, manifest)
    read_golden(path / GOLDEN, manifest)
    return Bundle(path, manifest)


def write_bundle(
    path: Path | str, manifest: Manifest, files: Mapping[str, bytes], *, force: bool = False
) -> Bundle:
    """Writes a bundle in one step: at no moment is there half a bundle at `path`.

    Args:
        path: Where to.
        manifest: Its `files` are filled in here.
        files: Contents by name; `model.onnx` and `golden.npz` at least.
        force: Replace a bundle that is there already.

    Raises:
        UsageError: As `check_free`.
        BundleError: What would be written is not valid.
    """
    path = Path(path).absolute()
    check_free(path, force=force)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = msgspec.structs.replace(manifest, files=digests)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        scratch.chmod(0o755)
        for name, content in {**files, MANIFEST: encode_manifest(manifest)}.items():
            with (scratch / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        written = read_bundle(scratch)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
            path.rename(old / path.name)
            scratch.rename(path)
            shutil.rmtree(old)
        else:
            scratch.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Bundle(path, written.manifest)


def check_free(path: Path, *, force: bool) -> None:
    """Refuses an output folder that exists, unless `force` may replace what it holds.

    Raises:
        UsageError: It exists, or it is something that is no bundle and so is never replaced.
    """
    if not path.exists():
        return
    if not force:
        raise UsageError(f"{path} exists already", "say --force to replace it, or another --out")
    if not (path / MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(
            f"{path} is not a bundle, so --force does not replace it", "name another --out"
        )


def _check_files(path: Path, manifest: Manifest) -> None:
    for name in (MODEL, GOLDEN):
        if name not in manifest.files:
            raise BundleError(f"{path / MANIFEST} lists no {name}", "export the model again")
    for name, wanted in manifest.files.items():
        file = path / name
        if name != Path(name).name or name in (MANIFEST, ENGINES):
            raise BundleError(
                f"{path / MANIFEST} lists {name!r}, which is no plain file name",
                "this is no bundle that limpet wrote: export the model again",
            )
        try:
            if file.is_symlink() or not file.is_file():
                raise BundleError(
                    f"bundle {path} lacks {name}", "copy the whole folder again, or export again"
                )
            found = file_sha256(file)
        except OSError as error:
            raise BundleError(
                f"{file} cannot be read: {error.strerror}", "copy the bundle again, or export again"
            ) from error
        if found != wanted:
            raise BundleError(
                f"{file} is damaged: SHA-256 {found[:12]}…, the manifest says {wanted[:12]}…",
                "copy the bundle again from where it was exported, or export again",
            )
    strangers = {p.name for p in path.iterdir() if not p.name.startswith(".")}
    strangers -= {*manifest.files, MANIFEST, ENGINES}
    if strangers:
        raise BundleError(
            f"bundle {path} holds files its manifest does not list: {', '.join(sorted(strangers))}",
            "remove them, or export again",
        )


def _check_consistency(path: Path, manifest: Manifest) -> None:
    """Whether the manifest's parts fit each other."""
    where = path / MANIFEST
    if not manifest.inputs or not manifest.outputs:
        raise BundleError(
            f"{where}: a model needs at least one input and one output", "export the model again"
        )
    if manifest.kind == "anomaly":
        _check_anomaly(where, manifest)
    if manifest.kind == "navigation":
        _check_navigation(where, manifest)


def _check_navigation(where: Path, manifest: Manifest) -> None:
    image, decoding = manifest.preprocessing, manifest.decoding
    if not isinstance(image, ImagePreprocessing):
        raise BundleError(
            f"{where}: a navigation model needs preprocessing of images", "export again"
        )
    if min(image.width, image.height) < 1 or not all(scale > 0 for scale in image.scale):
        raise BundleError(
            f"{where}: images of {image.width} × {image.height} with scales {image.scale}, wanted "
            "positive ones",
            "export the model again",
        )
    frames: list[int | str] = ["batch", 3, image.height, image.width]
    _check_tensors(where, "inputs", manifest.inputs, [frames], "an image encoder")
    _check_tensors(where, "outputs", manifest.outputs, [["batch", 0]], "an image encoder")
    names = [spec.name for spec in manifest.outputs]
    if not isinstance(decoding, NavigationDecoding) or names != [decoding.embedding]:
        raise BundleError(
            f"{where}: decoding does not name the output {', '.join(names)} as the embedding",
            "export the model again",
        )


def _check_anomaly(where: Path, manifest: Manifest) -> None:
    signal, calibration, decoding = manifest.preprocessing, manifest.calibration, manifest.decoding
    if not isinstance(signal, SignalPreprocessing):
        raise BundleError(
            f"{where}: an anomaly model needs preprocessing of signals", "export again"
        )
    try:
        check_chain(signal.steps, len(signal.channels))
    except TensorError as error:
        raise BundleError(f"{where}: {error}", "export the model again") from error
    if len(set(signal.channels)) != len(signal.channels) or not signal.rate_hz > 0:
        raise BundleError(
            f"{where}: channels {signal.channels} at {signal.rate_hz:g} Hz, wanted names that "
            "differ and a rate above 0",
            "export the model again",
        )
    features = features_of(signal.steps, len(signal.channels))
    frames: list[int | str] = ["batch", "rows", features]
    _check_tensors(where, "inputs", manifest.inputs, [frames, frames, ["batch", 0]], STREAMING)
    if calibration is None or not calibration.release_threshold <= calibration.threshold:
        raise BundleError(
            f"{where}: an anomaly model needs a threshold and a release threshold "
            "that is not above it",
            "train the model again",
        )
    outputs: list[list[int | str]] = [["batch", "rows", 0], ["batch", "rows"], ["batch", 0]]
    _check_tensors(where, "outputs", manifest.outputs, outputs, STREAMING)
    names = [spec.name for spec in manifest.outputs]
    if not isinstance(decoding, AnomalyDecoding) or names != [
        decoding.embedding,
        decoding.score,
        decoding.next_state,
    ]:
        raise BundleError(
            f"{where}: decoding does not name the outputs {', '.join(names)} as embedding, score "
            "and next state",
            "export the model again",
        )
    if manifest.inputs[2].shape != manifest.outputs[2].shape:
        raise BundleError(
            f"{where}: state {manifest.inputs[2].describe()} becomes "
            f"{manifest.outputs[2].describe()}, wanted one size",
            "export the model again",
        )


def _check_tensors(
    where: Path,
    what: str,
    specs: Sequence[TensorSpec],
    shapes: Sequence[Sequence[int | str]],
    model: str,
) -> None:
    """Whether float32 tensors have these shapes, where 0 stands for any fixed size."""
    fits = len(specs) == len(shapes) and all(
        spec.dtype == "float32"
        and len(spec.shape) == len(shape)
        and all(
            isinstance(size, int) if want == 0 else size == want
            for size, want in zip(spec.shape, shape, strict=True)
        )
        for spec, shape in zip(specs, shapes, strict=True)
    )
    if not fits:
        wanted = "; ".join(str([size or "size" for size in shape]) for shape in shapes)
        raise BundleError(
            f"{where}: {what} {'; '.join(spec.describe() for spec in specs)} do not fit "
            f"{model}, wanted float32 {wanted}",
            "export the model again",
        )
