"""Plans on disk, in a bundle's `engines/`: a plan and its sidecar, both written in one step."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from limpet.contracts.bundle import ENGINES, Bundle
from limpet.contracts.errors import EngineError
from limpet.contracts.whole_files import write_whole
from limpet.runtime.plans.key import PlanKey, Sidecar
from limpet.runtime.plans.libraries import Compiler


class PlanStore:
    """The plans of a bundle.

    Args:
        bundle: The bundle; `engines/` is made when something is written.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.folder = bundle.path / ENGINES

    def path(self, key: PlanKey) -> Path:
        """Where the plan is, or would be."""
        return self.folder / key.file_name

    def read(self, key: PlanKey) -> tuple[bytes, Sidecar]:
        """The plan of a key.

        Raises:
            EngineError: There is none, or it is damaged or for something else; the message names
                each difference, the hint the command that builds it.
        """
        sidecar = self._sidecar(self.path(key))
        if sidecar is None:
            raise EngineError(self._describe_others(key), self._rebuild(key))
        if differences := key.differences(sidecar.key):
            raise EngineError(
                f"{self.path(key)} was built for another device: {'; '.join(differences)}",
                self._rebuild(key),
            )
        try:
            plan = self.path(key).read_bytes()
        except OSError as error:
            raise EngineError(
                f"{self.path(key)} cannot be read: {error.strerror}", self._rebuild(key)
            ) from error
        if hashlib.sha256(plan).hexdigest() != sidecar.plan_sha256:
            raise EngineError(f"{self.path(key)} is damaged", self._rebuild(key))
        return plan, sidecar

    def write(self, plan: bytes, sidecar: Sidecar) -> Path:
        """Writes a plan, its sidecar last: what has none is no plan. Call it under `locked`."""
        path = self.path(sidecar.key)
        path.with_suffix(".json").unlink(missing_ok=True)
        encoded = msgspec.json.format(msgspec.json.encode(sidecar))
        with writable(path):
            write_whole(path, plan)
            write_whole(path.with_suffix(".json"), encoded + b"\n")
        return path

    def timing_cache(self, key: PlanKey) -> Path:
        """Measured times of kernels, which a later build of any graph on such a GPU reuses."""
        parts = (key.engine, key.library_version, key.compute_capability)
        return self.folder / ("-".join(parts) + ".timing")

    def kernel_cache(self, key: PlanKey) -> Path:
        """Kernels that TensorRT for RTX compiled while this plan ran."""
        return self.path(key).with_suffix(".kernels")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder: of two processes the second waits and then finds the first one's plan.

        The lock goes with its process, however that ends.
        """
        with writable(self.folder):
            self.folder.mkdir(exist_ok=True)
            file = (self.folder / ".lock").open("wb")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _sidecar(self, plan: Path) -> Sidecar | None:
        try:
            return msgspec.json.decode(plan.with_suffix(".json").read_bytes(), type=Sidecar)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _describe_others(self, key: PlanKey) -> str:
        """What there is instead, the nearest first."""
        found = [(path, self._sidecar(path)) for path in sorted(self.folder.glob("*.plan"))]
        others = [(key.differences(one.key), path) for path, one in found if one is not None]
        wanted = f"{self._bundle.path} has no plan of {key.engine} for {key.compute_capability}"
        if not others:
            return wanted
        differences, path = min(others, key=lambda other: len(other[0]))
        return f"{wanted}; {path.name} has {'; '.join(differences)}"

    def _rebuild(self, key: PlanKey) -> str:
        return f"build it with: {compile_command(self._bundle, key.engine)}"


def compile_command(bundle: Bundle, engine: Compiler) -> str:
    """The command that builds a bundle's plan."""
    return f"limpet compile {bundle.path} --engine {engine}"


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """What is done within writes `path`, in a bundle.

    Raises:
        EngineError: It cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"{path} cannot be written: {error.strerror}",
            "a plan is kept beside its model: let this user write there, or copy the bundle to "
            "where it can be written",
        ) from error
