"""A RUN: the folder that training writes and `limpet export` starts from.

    RUN/run.json               what was trained, how and on what (`RunRecord`)
    RUN/weights.safetensors    the model, once training is done
    RUN/sample.npz             raw input for the export's golden data
    RUN/metrics.jsonl          losses by step
    RUN/tensorboard/           the same as TensorBoard events
    RUN/checkpoint.safetensors where to resume; gone once training is done
    RUN/policy/                the same of a policy that drives by the model, with `policy.json`

`run.json` is written first with `complete` false and last with `complete` true; each file appears
whole or not at all. Of the processes that `torchrun` starts, rank 0 alone writes.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.clouds import CloudPreprocessing
from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.images import ImagePreprocessing
from limpet.contracts.manifest import Calibration, DataDigest, Kind, SignalPreprocessing
from limpet.contracts.whole_files import UNFINISHED, write_whole
from limpet.training.encoder_config import EncoderConfig
from limpet.training.ranks import leads

if TYPE_CHECKING:
    from torch import Tensor

Preprocessing = SignalPreprocessing | ImagePreprocessing | CloudPreprocessing

SCHEMA_VERSION = 1

RECORD, WEIGHTS, SAMPLE = "run.json", "weights.safetensors", "sample.npz"
METRICS, TENSORBOARD, CHECKPOINT = "metrics.jsonl", "tensorboard", "checkpoint.safetensors"
FILES = (RECORD, WEIGHTS, SAMPLE, METRICS, CHECKPOINT)
EVENTS = "events.out.tfevents.*"
POLICY, POLICY_RECORD = "policy", "policy.json"


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Contents of `run.json`.

    Attributes:
        schema_version: `SCHEMA_VERSION` of the writer.
        kind: What was trained.
        complete: Whether training came to its end; if not, it was interrupted or still goes on.
        command: The command line.
        created: UTC time at which training began, ISO 8601.
        commit: Revision of limpet's source, empty where unknown.
        config: The whole configuration, defaults included.
        seed: Seed of all randomness.
        data: Files it was trained on: name, SHA-256, rows used.
        preprocessing: Channels, rate and chain of a model that scores streams, or what becomes of
            a camera's images or of depth.
        calibration: Thresholds of a model that scores.
        metrics: Measured figures; the name says on what.
        warnings: What was odd about data or calibration.
        versions: Versions of Python and libraries.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    complete: bool = False
    command: str = ""
    created: str = ""
    commit: str = ""
    config: dict[str, Any] = {}
    seed: int = 0
    data: list[DataDigest] = []
    preprocessing: Preprocessing | None = None
    calibration: Calibration | None = None
    metrics: dict[str, float] = {}
    warnings: list[str] = []
    versions: dict[str, str] = {}

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the one it resumes, in JSON's own types."""
        shared = {
            "kind": self.kind,
            "config": self.config,
            "data": self.data,
            "preprocessing": self.preprocessing,
        }
        identity: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(shared))
        return identity


def new_record(
    kind: Kind,
    config: EncoderConfig,
    *,
    data: list[DataDigest],
    preprocessing: Preprocessing,
    warnings: Iterable[str],
    command: str,
) -> RunRecord:
    """The record of a training that begins now, by this source and these libraries.

    The arguments are its fields, in so far as a caller knows them.
    """
    return RunRecord(
        kind=kind,
        command=command,
        created=now(),
        commit=source_commit(),
        config=msgspec.to_builtins(config),
        seed=config.seed,
        data=data,
        preprocessing=preprocessing,
        warnings=list(warnings),
        versions=library_versions("limpet", "numpy", "torch", "safetensors"),
    )


class _Probe(msgspec.Struct):
    schema_version: int


@dataclass(frozen=True)
class RunFolder:
    """A RUN on disk."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Where an interrupted run goes on."""
        return self.path / CHECKPOINT

    @property
    def metrics(self) -> Path:
        """Losses by step, JSON lines."""
        return self.path / METRICS

    def read(self) -> RunRecord:
        """Reads the record.

        Raises:
            DataError: No RUN, a damaged one, or one of another schema version.
        """
        file = self.path / RECORD
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.path} is not a RUN: cannot read {RECORD} ({error.strerror})",
                "make one with: limpet train {anomaly,grasp,navigation} --data PATH --out RUN",
            ) from error
        try:
            version = msgspec.json.decode(raw, type=_Probe).schema_version
            if version != SCHEMA_VERSION:
                raise DataError(
                    f"{file} has schema version {version}, this limpet reads {SCHEMA_VERSION}",
                    "train again with this version",
                )
            return msgspec.json.decode(raw, type=RunRecord)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{file} is not a valid run record: {error}", "train again") from error

    def read_complete(self) -> RunRecord:
        """Reads the record of a run that came to its end.

        Raises:
            DataError: As `read`, or the run was interrupted.
        """
        record = self.read()
        if not record.complete:
            raise DataError(
                f"run {self.path} is not finished: it was interrupted, or still goes on",
                "repeat its `limpet train` command with --resume",
            )
        return record

    def write_record(self, record: RunRecord) -> None:
        """Writes the record."""
        text = msgspec.json.format(msgspec.json.encode(record, order="deterministic"))
        self.write(RECORD, text + b"\n")

    def write(self, name: str, content: bytes) -> None:
        """Writes one file, whole or not at all; on ranks other than 0 nothing is written."""
        if leads():
            write_whole(self.path / name, content)

    def finish(
        self, weights: Mapping[str, Tensor], sample: Mapping[str, NDArray[Any]], record: RunRecord
    ) -> None:
        """Writes what the run came to; the record last, since it says that all is there.

        Args:
            weights: The model's, by name.
            sample: Raw input of a few rows, images or clouds, for the export's golden data.
            record: With `complete` true.
        """
        from safetensors.torch import save  # brings torch, which reading a run does without

        self.write(WEIGHTS, save({name: value.contiguous() for name, value in weights.items()}))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **sample)  # type: ignore[arg-type]
        self.write(SAMPLE, buffer.getvalue())
        self.write_record(record)
        self.remove_checkpoint()

    def remove_checkpoint(self) -> None:
        """Removes the checkpoint, once training is done and its outcome is written."""
        if leads():
            self.checkpoint.unlink(missing_ok=True)


def open_run(path: Path | str, record: RunRecord, *, resume: bool, force: bool) -> RunFolder:
    """Opens a folder to train into and writes the record of what begins.

    Args:
        path: The folder.
        record: What is about to be trained, not yet complete.
        resume: Go on where an interrupted run stopped.
        force: Delete a RUN that is there already.

    Raises:
        UsageError: The folder holds something, or what would be resumed is another run.
        DataError: The record there cannot be read.
    """
    folder = RunFolder(Path(path))
    if not leads():
        return folder
    check_out(folder.path, resume=resume, force=force)
    if resume and (folder.path / RECORD).exists():
        _check_same(folder, folder.read(), record)
        return folder
    if folder.path.exists():
        for file in _files(folder.path):
            file.unlink(missing_ok=True)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write_record(record)
    return folder


def _files(path: Path) -> list[Path]:
    """What a RUN may hold, there or not; a policy goes with the model that it drives by."""
    files = []
    for folder in (path, path / POLICY):
        files += [folder / name for name in (*FILES, POLICY_RECORD)]
        files += [*(folder / TENSORBOARD).glob(EVENTS), *folder.glob(UNFINISHED)]
    return files


def check_out(path: Path, *, resume: bool, force: bool) -> None:
    """Refuses an output folder that may not be written; called before any work is done.

    Raises:
        UsageError: It holds a run and neither `resume` nor `force` is set, or it is no RUN.
        DataError: The record there cannot be read.
    """
    if not leads():
        return
    if resume and force:
        raise UsageError("--resume and --force exclude each other")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        if resume:
            raise UsageError(f"{path} holds no run to resume", "leave out --resume")
        return
    if not (path / RECORD).is_file():
        raise UsageError(
            f"{path} exists and is no RUN, so it is never replaced", "name another --out"
        )
    if force:
        there = {file for file in path.rglob("*") if file.is_symlink() or not file.is_dir()}
        strangers = sorted(file.name for file in there - {*_files(path)})
        if strangers:
            raise UsageError(
                f"{path} holds more than a RUN ({', '.join(strangers)}), so --force leaves it",
                "name another --out, or remove those files",
            )
        return
    complete = RunFolder(path).read().complete
    if complete:
        what = "which is finished: nothing to resume" if resume else "which is finished"
        raise UsageError(
            f"{path} holds a run already, {what}", "--force replaces it, or name another --out"
        )
    if not resume:
        raise UsageError(
            f"{path} holds an interrupted run", "--resume goes on with it, --force begins anew"
        )


def _check_same(folder: RunFolder, old: RunRecord, new: RunRecord) -> None:
    was, now = old.identity(), new.identity()
    differing = [key for key in was if was[key] != now[key]]
    if "config" in differing:
        differing.remove("config")
        before, after = was["config"], now["config"]
        differing += [
            f"{key} ({before.get(key)!r}, now {after.get(key)!r})"
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]
    if differing:
        raise UsageError(
            f"{folder.path} was begun with another {', '.join(differing)}",
            "repeat the first command with --resume, or begin anew with --force",
        )


def command_line() -> str:
    """The command line of this process, with the program's bare name."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def now() -> str:
    """UTC time, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def library_versions(*distributions: str) -> dict[str, str]:
    """Versions of Python and of those distributions that are installed."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in distributions:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def source_commit() -> str:
    """Revision of the checkout that limpet runs from, empty for an installed package."""
    git = shutil.which("git")
    if git is None:
        return ""
    here = Path(__file__).resolve().parent
    command = [git, "-C", str(here), "rev-parse", "HEAD"]
    tracked = [git, "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        if subprocess.run(tracked, capture_output=True, timeout=10, check=False).returncode:
            return ""  # site-packages inside some other project's checkout
        found = subprocess.run(command, capture_output=True, timeout=10, text=True, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
