"""What exporting an encoder costs and gives at each precision."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import onnxruntime
import torch
from torch import nn

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import DataError, ExportError, UsageError
from limpet.contracts.golden import Run, check_golden
from limpet.contracts.manifest import Kind, Precision
from limpet.contracts.reports import format_table
from limpet.contracts.tensors import Array, Tensors
from limpet.export.package import export_run
from limpet.export.parity import onnx_run
from limpet.export.runs import open_any_run, torch_run

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
TARGETS = ("sm86", "sm89", "sm120")
BATCHES = (1, 16)
ONE = (1,)
"""Of a graph without an axis for batches: one that finds grasps takes the views of one scene."""
WARM_UP = 5
Report = Callable[[str], None]


class PlanFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A TensorRT-RTX plan, built without a GPU by `limpet compile`, a process of its own.

    Attributes:
        build_s: Seconds that building took.
        plan_bytes: Its size.
    """

    build_s: float
    plan_bytes: int


class PrecisionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One precision of an encoder.

    Attributes:
        refused: Why there is none; empty where there is one, and else all below is empty.
        export_s: Seconds from the RUN, or from its fp32 bundle, to the bundle, parity included.
        verify_s: Seconds to read it, open it and check its golden data.
        onnx_bytes: Size of the graph.
        lowered: How many nodes compute at this precision.
        kept: How many products stay float32 (int8), or how many nodes (fp16).
        parity: What each check measured.
        plans: By GPU (`sm86`).
        plans_refused: Why there are none: the library is not installed, or does not compile it.
    """

    refused: str = ""
    export_s: float = 0.0
    verify_s: float = 0.0
    onnx_bytes: int = 0
    lowered: int = 0
    kept: int = 0
    parity: dict[str, float] = {}
    plans: dict[str, PlanFigures] = {}
    plans_refused: str = ""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One way to compute a batch on one thread of the CPU.

    Attributes:
        way: `pytorch eager`, `pytorch compiled` or `onnxruntime PRECISION`.
        batch: Rows at a time; of a stream one frame a row, as it is served. Of a graph without
            batches 1, all its golden data.
        p10_ms: Time that one of ten keeps below: that of a machine without other work.
        median_ms: Median time.
        p90_ms: Time that nine of ten take at most.
    """

    way: str
    batch: int
    p10_ms: float
    median_ms: float
    p90_ms: float


class ExportBenchmark(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet bench export --json` writes.

    Attributes:
        kind: Of the encoder.
        machine: Architecture, cores, load while measuring, versions.
        precisions: By name.
        latencies: Of all ways, taken in turns, so that the machine's load falls on all.
        failed: Ways that do not work here, and why.
        faster: How many times as fast as PyTorch eager ONNX Runtime is in fp32, by batch, at p10.
    """

    kind: Kind
    machine: dict[str, str | float]
    precisions: dict[str, PrecisionFigures]
    latencies: list[Latency]
    failed: dict[str, str]
    faster: dict[str, float]


def bench_export(
    run: Path,
    folder: Path,
    *,
    calibration: Path | None,
    rounds: int,
    report: Report,
    compiled: bool = True,
) -> ExportBenchmark:
    """Exports a RUN at each precision and measures what comes out.

    Args:
        run: The RUN.
        folder: Where its bundles go, by precision.
        calibration: Real data for int8; without it there is no int8.
        rounds: Timed runs of each way and batch.
        report: Takes lines of progress.
        compiled: Whether to time `torch.compile` too, which takes a C++ compiler most of a minute.

    Raises:
        DataError: `run` is no finished RUN, or the data cannot be used.
    """
    bundles: dict[str, Bundle] = {}
    precisions: dict[str, PrecisionFigures] = {}
    for precision in PRECISIONS:
        report(f"exporting {precision}")
        out = folder / precision
        source = folder / "fp32" if "fp32" in bundles else run
        precisions[precision] = _exported(source, out, precision, calibration)
        if not precisions[precision].refused:
            bundles[precision] = read_bundle(out)
    if "fp32" not in bundles:
        raise DataError(f"{run} cannot be exported: {precisions['fp32'].refused}")
    report("timing")
    latencies, failed = _latencies(run, bundles, rounds, compiled=compiled)
    quiet = {(one.way, one.batch): one.p10_ms for one in latencies}
    return ExportBenchmark(
        kind=bundles["fp32"].manifest.kind,
        machine={
            "architecture": platform.machine(),
            "cores": os.cpu_count() or 0,
            "load": os.getloadavg()[0],
            "onnxruntime": onnxruntime.__version__,
            "torch": str(torch.__version__),
        },
        precisions=precisions,
        latencies=latencies,
        failed=failed,
        faster={
            str(batch): quiet["pytorch eager", batch] / quiet["onnxruntime fp32", batch]
            for way, batch in quiet
            if way == "pytorch eager"
        },
    )


def _exported(
    source: Path, out: Path, precision: Precision, calibration: Path | None
) -> PrecisionFigures:
    """Exports once and verifies, as a user does; then builds the plans."""
    begun_s = time.perf_counter()
    try:
        report = export_run(
            source,
            out,
            precision=precision,
            calibration=calibration if precision == "int8" else None,
        )
    except (ExportError, UsageError) as error:
        return PrecisionFigures(refused=error.message)
    export_s = time.perf_counter() - begun_s
    parity = {check.name: check.measured for check in report.checks}
    if not report.passed:
        return PrecisionFigures(refused="parity", export_s=export_s, parity=parity)
    begun_s = time.perf_counter()
    bundle = read_bundle(out)
    check_golden(bundle.golden(), bundle.manifest, _one_thread(bundle))
    verify_s = time.perf_counter() - begun_s
    notes = bundle.manifest.provenance.configuration.get("export")
    chosen: Mapping[str, Sequence[str]] = notes if isinstance(notes, dict) else {}
    plans, plans_refused = _plans(bundle)
    return PrecisionFigures(
        export_s=export_s,
        verify_s=verify_s,
        onnx_bytes=report.model_bytes,
        lowered=len(chosen.get("lowered", ())),
        kept=len(chosen.get("kept", ())),
        parity=parity,
        plans=plans,
        plans_refused=plans_refused,
    )


def _plans(bundle: Bundle) -> tuple[dict[str, PlanFigures], str]:
    """Builds a plan for each GPU."""
    found: dict[str, PlanFigures] = {}
    for target in TARGETS:
        options = ("--engine", "tensorrt-rtx", "--target", target, "--json", "-")
        done = subprocess.run(
            [sys.executable, "-m", "limpet.runtime.cli", "compile", str(bundle.path), *options],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            return found, (told or ["it ended without a word"])[-1].removeprefix("error: ")
        found[target] = msgspec.json.decode(done.stdout, type=PlanFigures)
    return found, ""


def _one_thread(bundle: Bundle) -> Run:
    return onnx_run(bundle.model_path.read_bytes(), bundle.manifest, threads=1)


def _latencies(
    run: Path, bundles: Mapping[str, Bundle], rounds: int, *, compiled: bool
) -> tuple[list[Latency], dict[str, str]]:
    opened = open_any_run(run)
    manifest = bundles["fp32"].manifest
    golden = bundles["fp32"].golden().inputs
    ways: dict[str, Callable[[Tensors], object]] = {
        "pytorch eager": torch_run(opened.module, manifest),
        **{f"onnxruntime {name}": _one_thread(each) for name, each in bundles.items()},
    }
    found, failed = [], {}
    batched = manifest.inputs[0].shape[0] == "batch"
    for batch in BATCHES if batched else ONE:
        inputs = dict(golden)
        if batched:
            inputs = {name: _sized(array, batch, name) for name, array in golden.items()}
        timed = dict(ways)
        if compiled:
            way = torch_run(cast("nn.Module", torch.compile(opened.module)), manifest)
            try:
                way(inputs)
                timed["pytorch compiled"] = way
            except RuntimeError as error:  # no C++ compiler, say
                failed["pytorch compiled"] = str(error).splitlines()[0]
        times: dict[str, list[float]] = {name: [] for name in timed}
        for turn in range(rounds + WARM_UP):
            for name, compute in timed.items():
                begun_s = time.perf_counter()
                compute(inputs)
                if turn >= WARM_UP:
                    times[name].append(time.perf_counter() - begun_s)
        for name, each in times.items():
            p10, median, p90 = (float(one) for one in np.percentile(each, [10, 50, 90]) * 1e3)
            found.append(Latency(way=name, batch=batch, p10_ms=p10, median_ms=median, p90_ms=p90))
    return found, failed


def _sized(array: Array, batch: int, name: str) -> Array:
    """So many rows; of a stream's frames the newest one, as it is served."""
    rows = np.resize(array, (batch, *array.shape[1:]))
    return np.ascontiguousarray(rows[:, -1:] if name in ("samples", "present") else rows)


def describe(benchmark: ExportBenchmark) -> str:
    """One line a precision, then the latencies."""
    rows = []
    for name, one in benchmark.precisions.items():
        if one.refused:
            rows.append([name, f"refused: {one.refused}"] + [""] * 5)
            continue
        cosine = one.parity.get("embedding cosine", float("nan"))
        plans = one.plans.values()
        rows.append(
            [
                name,
                f"{one.export_s:.1f} + {one.verify_s:.1f}",
                f"{one.onnx_bytes / 1e6:.2f}",
                f"{one.lowered} / {one.kept}",
                " ".join(f"{plan.build_s:.1f}" for plan in plans) or one.plans_refused,
                " ".join(f"{plan.plan_bytes / 1e6:.1f}" for plan in plans),
                f"{cosine:.5f}",
            ]
        )
    header = [
        benchmark.kind, "export + verify s", "ONNX MB", "lowered / kept",
        f"plan s ({' '.join(TARGETS)})", "plan MB", "cosine",
    ]  # fmt: skip
    times = [
        [
            one.way,
            str(one.batch),
            f"{one.p10_ms:.2f}",
            f"{one.median_ms:.2f}",
            f"{one.p90_ms:.2f}",
        ]
        for one in benchmark.latencies
    ]
    lines = [format_table(header, rows), ""]
    lines += [format_table(["way", "batch", "p10 ms", "median ms", "p90 ms"], times), ""]
    lines += [f"{way} does not work here: {why}" for way, why in benchmark.failed.items()]
    lines += [
        f"ONNX Runtime is {ratio:.1f} times as fast as PyTorch eager at batch {batch}"
        for batch, ratio in benchmark.faster.items()
    ]
    return "\n".join(lines)
