"""What exporting costs and gives, for one encoder at each precision.

    python -m tests.benchmarks.export RUN --calibration DATA [--labelled DATA --from-row N] \
        --json tests/benchmarks/results/export.json

Export time, size of the ONNX graph, parity; build time and size of TensorRT-RTX plans for three
GPUs; latency at batch 1 and 16 of ONNX Runtime on one thread of the CPU beside PyTorch eager and
`torch.compile`, interleaved; for an anomaly encoder with labelled recordings also AUROC. Figures of
several encoders gather in one file, by the model's kind. Nothing here runs on a GPU.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import torch

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import ExportError
from limpet.contracts.manifest import Precision
from limpet.contracts.reports import format_table
from limpet.contracts.tensors import Tensors
from limpet.export.evaluate_anomaly import evaluate_anomaly
from limpet.export.package import export_run
from limpet.export.runs import open_any_run, torch_run
from limpet.runtime.engines import open_engine
from limpet.runtime.machine import processor_name
from limpet.runtime.plans.compiling import compile_bundle

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
TARGETS = ("sm86", "sm89", "sm120")
BATCHES = (1, 16)


def main() -> None:
    """Reads the command line, measures, prints a table and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--from-row", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bundles: dict[str, Bundle] = {}
        for precision in PRECISIONS:
            out = Path(folder) / precision
            figures[precision] = exported(given.run, out, precision, given.calibration)
            if "refused" in figures[precision]:
                continue
            bundles[precision] = read_bundle(out)
            figures[precision]["plans"] = plans(bundles[precision])
            if given.labelled is not None:
                report = evaluate_anomaly(out, given.labelled, from_row=given.from_row)
                figures[precision]["auroc"] = report.mean.auroc
                figures[precision]["average_precision"] = report.mean.average_precision
        kind = bundles["fp32"].manifest.kind
        figures["latency_ms"] = latencies(given.run, bundles, given.rounds)
    figures["machine"] = {
        "processor": processor_name(),
        "load": os.getloadavg()[0],
        "onnxruntime": onnxruntime.__version__,
        "torch": str(torch.__version__),
    }
    known = msgspec.json.decode(given.json.read_bytes()) if given.json.exists() else {}
    given.json.write_bytes(msgspec.json.format(msgspec.json.encode({**known, kind: figures})))
    print(table(figures))


def exported(run: Path, out: Path, precision: Precision, calibration: Path) -> dict[str, Any]:
    """Exports once from the RUN, as a user does."""
    begun_s = time.perf_counter()
    data = calibration if precision == "int8" else None
    try:
        report = export_run(run, out, precision=precision, calibration=data)
    except ExportError as error:
        return {"refused": str(error)}
    if not report.passed:
        return {"refused": "parity", "checks": msgspec.to_builtins(report.checks)}
    notes = read_bundle(out).manifest.provenance.configuration.get("export", {})
    return {
        "export_s": time.perf_counter() - begun_s,
        "onnx_bytes": report.model_bytes,
        "lowered_nodes": len(notes.get("lowered", [])) if isinstance(notes, dict) else 0,
        "parity": {check.name: check.measured for check in report.checks},
    }


def plans(bundle: Bundle) -> dict[str, Any]:
    """Builds a plan for each GPU, in this process, which loads the library at the first."""
    found = {}
    for target in TARGETS:
        report = compile_bundle(
            bundle, engine="tensorrt-rtx", target=target, axes={}, report=lambda _: None
        )
        found[target] = {"build_s": report.build_s, "plan_bytes": report.plan_bytes}
    return found


def latencies(run: Path, bundles: dict[str, Bundle], rounds: int) -> dict[str, Any]:
    """Median of each way to compute, taken in turns so that the machine's load falls on all."""
    opened = open_any_run(run)
    manifest = bundles["fp32"].manifest
    golden = bundles["fp32"].golden().inputs
    ways: dict[str, Callable[[Tensors], object]] = {
        "pytorch eager": torch_run(opened.module, manifest),
        **{f"onnxruntime {name}": open_engine(each).run for name, each in bundles.items()},
    }
    found: dict[str, Any] = {}
    for batch in BATCHES:
        inputs = {name: sized(array, batch, name) for name, array in golden.items()}
        timed = dict(ways)
        compiled = torch_run(torch.compile(opened.module), manifest)
        try:
            compiled(inputs)
            timed["pytorch compiled"] = compiled
        except RuntimeError as error:  # no C++ compiler, say
            found[f"batch {batch}: pytorch compiled"] = f"failed: {str(error).splitlines()[0]}"
        times: dict[str, list[float]] = {name: [] for name in timed}
        for turn in range(rounds + 5):
            for name, way in timed.items():
                begun_s = time.perf_counter()
                way(inputs)
                if turn >= 5:
                    times[name].append(time.perf_counter() - begun_s)
        for name, each in times.items():
            found[f"batch {batch}: {name}"] = float(np.median(each)) * 1e3
    return found


def sized(array: np.ndarray, batch: int, name: str) -> np.ndarray:
    """So many rows; of a stream's frames the newest one, as it is served."""
    rows = np.resize(array, (batch, *array.shape[1:]))
    return np.ascontiguousarray(rows[:, -1:] if name in ("samples", "present") else rows)


def table(figures: dict[str, Any]) -> str:
    """One line a precision, then the latencies."""
    rows = []
    for precision in PRECISIONS:
        one = figures[precision]
        if "refused" in one:
            rows.append([precision, one["refused"], "", "", "", ""])
            continue
        cosine = one["parity"].get("embedding cosine", float("nan"))
        build = " ".join(f"{plan['build_s']:.1f}" for plan in one["plans"].values())
        size = " ".join(f"{plan['plan_bytes'] / 1e6:.1f}" for plan in one["plans"].values())
        auroc = f"{one['auroc']:.4f}" if "auroc" in one else ""
        rows.append(
            [
                precision,
                f"{one['export_s']:.1f}",
                f"{one['onnx_bytes'] / 1e6:.2f}",
                f"{build}; {size}",
                f"{cosine:.6f}",
                auroc,
            ]
        )
    header = ["precision", "export s", "ONNX MB", "plan s; MB", "cosine", "AUROC"]
    times = "\n".join(
        f"{name}: {value:.3f} ms" if isinstance(value, float) else f"{name}: {value}"
        for name, value in figures["latency_ms"].items()
    )
    return f"{format_table(header, rows)}\n{times}"


if __name__ == "__main__":
    main()
