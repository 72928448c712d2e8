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

from limpet.contracts.consistency import check_consistency
from limpet.contracts.errors import BundleError, UsageError
from limpet.contracts.golden import Golden, read_golden
from limpet.contracts.manifest import Manifest, decode_manifest, encode_manifest, is_sealed

MANIFEST, MODEL, GOLDEN, ENGINES = "manifest.json", "model.onnx", "golden.npz", "engines"


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
    if not is_sealed(raw):
        raise BundleError(
            f"{path / MANIFEST} was changed after it was written",
            "copy the bundle again from where it was exported, or export again",
        )
    _check_files(path, manifest)
    check_consistency(manifest, str(path / MANIFEST))
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
