"""Writing a bundle is all or nothing, and replaces nothing unasked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from limpet.contracts.bundle import (
    GOLDEN,
    MANIFEST,
    MODEL,
    Bundle,
    check_free,
    read_bundle,
    write_bundle,
)
from limpet.contracts.errors import BundleError, UsageError
from limpet.contracts.manifest import encode_manifest
from tests.bundles import anomaly_bundle, anomaly_manifest

FILES = [MANIFEST, MODEL, GOLDEN]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return anomaly_bundle(tmp_path / "pump")


def contents(bundle: Bundle) -> dict[str, bytes]:
    return {name: (bundle.path / name).read_bytes() for name in (MODEL, GOLDEN)}


def test_an_existing_bundle_is_not_replaced_unasked(bundle: Bundle) -> None:
    before = (bundle.path / MANIFEST).read_bytes()
    with pytest.raises(UsageError, match="exists already") as caught:
        write_bundle(bundle.path, anomaly_manifest(name="other"), contents(bundle))
    assert "--force" in caught.value.hint
    assert (bundle.path / MANIFEST).read_bytes() == before


def test_force_replaces_a_bundle_and_its_compiled_engines(bundle: Bundle) -> None:
    (bundle.path / "engines").mkdir()
    write_bundle(bundle.path, anomaly_manifest(name="other"), contents(bundle), force=True)
    assert read_bundle(bundle.path).manifest.name == "other"
    assert sorted(os.listdir(bundle.path)) == sorted(FILES)
    assert os.listdir(bundle.path.parent) == [bundle.path.name]


@pytest.mark.parametrize("what", ["a file", "a folder of other things"])
def test_force_never_replaces_what_is_no_bundle(tmp_path: Path, what: str) -> None:
    path = tmp_path / "home"
    if what == "a file":
        path.write_bytes(b"thesis")
    else:
        path.mkdir()
        (path / "thesis.tex").write_bytes(b"thesis")
    with pytest.raises(UsageError, match="is not a bundle, so --force does not replace it"):
        check_free(path, force=True)


def test_force_takes_an_empty_folder(tmp_path: Path) -> None:
    check_free(tmp_path, force=True)


def test_missing_parent_folders_are_made(bundle: Bundle, tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "a" / "b", anomaly_manifest(), contents(bundle))
    assert read_bundle(written.path) == written


def test_what_is_not_valid_is_not_written(bundle: Bundle, tmp_path: Path) -> None:
    files = {**contents(bundle), GOLDEN: b"nothing"}
    with pytest.raises(BundleError, match="is not valid golden data"):
        write_bundle(tmp_path / "new", anomaly_manifest(), files)
    assert os.listdir(tmp_path) == [bundle.path.name]


def test_an_error_half_way_leaves_nothing_behind(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def fail_at_second(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("limpet.contracts.bundle.os.fsync", fail_at_second)
    before = encode_manifest(bundle.manifest)
    for path, force in ((tmp_path / "new", False), (bundle.path, True)):
        synced.clear()
        with pytest.raises(OSError, match="No space left"):
            write_bundle(path, anomaly_manifest(name="other"), contents(bundle), force=force)
    assert os.listdir(tmp_path) == [bundle.path.name]
    assert (bundle.path / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("fsync", [1, 2, 3])
def test_a_kill_half_way_leaves_nothing_under_the_name(
    bundle: Bundle, tmp_path: Path, fsync: int
) -> None:
    """The process ends as by `kill -9` when it has written so many files."""
    program = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        from limpet.contracts import bundle

        synced = []
        def kill(descriptor):
            synced.append(descriptor)
            if len(synced) == {fsync}:
                os.kill(os.getpid(), signal.SIGKILL)
        bundle.os.fsync = kill
        source, target = map(Path, sys.argv[1:])
        whole = bundle.read_bundle(source)
        files = {{name: (source / name).read_bytes() for name in whole.manifest.files}}
        bundle.write_bundle(target, whole.manifest, files)
        """
    )
    target = tmp_path / "target"
    done = subprocess.run([sys.executable, "-c", program, bundle.path, target], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    shutil.copytree(bundle.path, target)  # the name is free for the next attempt
    read_bundle(target)
