"""`limpet compile` as a function: from a bundle to a plan in its `engines/`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping

import msgspec

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import EngineError
from limpet.contracts.manifest import Precision
from limpet.contracts.whole_files import write_whole
from limpet.runtime.plans.builder import Report, build_plan
from limpet.runtime.plans.key import PlanKey, Sidecar, plan_key
from limpet.runtime.plans.libraries import Compiler, load_library, require_gpu
from limpet.runtime.plans.profiles import Sizes, profile_of
from limpet.runtime.plans.store import PlanStore, writable

WORKSPACE_BYTES = 1 << 30


class CompileReport(msgspec.Struct, frozen=True, kw_only=True):
    """What compiling came to; the keys of `limpet compile --json`.

    Attributes:
        bundle: The folder, as it was given.
        name: The model's name.
        precision: Number format of its graph.
        engine: What compiled it.
        library_version: Version of that library.
        target: Compute capability of the GPU that the plan is for.
        plan: The plan.
        plan_bytes: Its size.
        cached: Whether it was there already.
        build_s: Seconds that building took, when it was built.
        profile: Smallest, usual and largest size of each dynamic axis.
    """

    bundle: str
    name: str
    precision: Precision
    engine: Compiler
    library_version: str
    target: str
    plan: str
    plan_bytes: int
    cached: bool
    build_s: float
    profile: dict[str, Sizes]


def compile_bundle(
    bundle: Bundle,
    *,
    engine: Compiler,
    target: str,
    axes: Mapping[str, Sizes],
    workspace_bytes: int = WORKSPACE_BYTES,
    force: bool = False,
    report: Report,
) -> CompileReport:
    """Compiles a bundle's graph, unless the very plan is there.

    Args:
        bundle: The bundle.
        engine: What compiles it.
        target: `current` or a compute capability (`sm86`).
        axes: Sizes of dynamic axes, where not the usual ones.
        workspace_bytes: Most scratch memory of a kernel.
        force: Build it even so.
        report: Takes lines of progress.

    Raises:
        MissingExtraError: The library is not installed.
        ImpossibleHereError: It cannot build for that GPU here.
        UsageError: An axis that the model does not have, or a target that is no GPU.
        EngineError: The library cannot compile the graph.
    """
    if engine == "tensorrt":  # first: without a GPU, installing the library would not help
        require_gpu(
            engine,
            "compile on the device that will serve the bundle; plans for other GPUs are built by "
            "--engine tensorrt-rtx with a --target",
        )
    library = load_library(engine)
    capability = library.target(target)
    profile = profile_of(bundle.manifest, axes)
    key = plan_key(bundle, capability, engine, library.version)
    store = PlanStore(bundle)
    with store.locked():
        sidecar = None if force else _ready(store, key, profile, workspace_bytes)
        cached = sidecar is not None
        if sidecar is None:
            report(f"{bundle.manifest.name} for {capability} with {engine} {library.version}")
            begun_s, cache = time.monotonic(), store.timing_cache(key)
            plan, timings = build_plan(
                library,
                bundle.model_path.read_bytes(),
                bundle.manifest,
                capability=capability,
                profile=profile,
                workspace_bytes=workspace_bytes,
                timing_cache=cache.read_bytes() if cache.exists() else b"",
                report=report,
            )
            sidecar = Sidecar(
                key=key,
                plan_sha256=hashlib.sha256(plan).hexdigest(),
                plan_bytes=len(plan),
                profile=profile,
                workspace_bytes=workspace_bytes,
                build_s=round(time.monotonic() - begun_s, 3),
            )
            store.write(plan, sidecar)
            if timings:
                with writable(cache):
                    write_whole(cache, timings)
    return CompileReport(
        bundle=str(bundle.path),
        name=bundle.manifest.name,
        precision=bundle.manifest.precision,
        engine=engine,
        library_version=library.version,
        target=capability,
        plan=str(store.path(key)),
        plan_bytes=sidecar.plan_bytes,
        cached=cached,
        build_s=sidecar.build_s,
        profile=sidecar.profile,
    )


def _ready(
    store: PlanStore, key: PlanKey, profile: Mapping[str, Sizes], workspace_bytes: int
) -> Sidecar | None:
    """The sidecar of a plan that is there, whole, and of these sizes."""
    try:
        _, sidecar = store.read(key)
    except EngineError:
        return None
    same = sidecar.profile == profile and sidecar.workspace_bytes == workspace_bytes
    return sidecar if same else None
