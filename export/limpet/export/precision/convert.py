"""A float32 graph and its golden data at another precision."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import msgspec
import onnx

from limpet.contracts.errors import ExportError
from limpet.contracts.golden import Golden, check_golden
from limpet.contracts.manifest import Manifest, Precision
from limpet.export.parity import onnx_run
from limpet.export.precision.calibration import calibration_inputs, check_wanted, digest_of
from limpet.export.precision.choice import Choice, choose, cost_of
from limpet.export.precision.half import PRODUCTS, FloatGraph
from limpet.export.precision.neighbours import Neighbours
from limpet.export.precision.quantized import QuantizableGraph
from limpet.export.precision.tolerances import loosened


@dataclass(frozen=True)
class Exact:
    """A model in float32 and what it must compute."""

    model: bytes
    manifest: Manifest
    golden: Golden


def converted(exact: Exact, precision: Precision, calibration: Path | None) -> Exact:
    """The model at a precision; inputs and outputs stay as they are.

    Its provenance says which nodes stayed float32, and what ranges came from.

    Args:
        exact: The float32 model.
        precision: The one that is wanted.
        calibration: Real data for INT8, see `calibration_inputs`.

    Raises:
        UsageError: INT8 without data.
        DataError: The data cannot be used.
        ExportError: No product can compute at this precision within the tolerances.
    """
    if precision == "fp32":
        return exact
    manifest, notes = exact.manifest, dict[str, object]()
    golden = loosened(exact.golden, manifest, precision)
    graph = FloatGraph(onnx.load_from_string(exact.model))
    if precision == "fp16":
        rounding = graph.candidates()
        useful = graph.worthwhile(rounding)
        choice = _choose(
            [name for name in rounding if name in useful],
            lambda some: graph.halved(some, rounded=True),
            manifest,
            golden,
        )
        lowered = graph.worthwhile(choice.chosen)
        model = graph.halved(lowered)
        kept = [node.name for node in graph.nodes if node.name not in lowered]
    else:
        path = check_wanted(manifest, calibration)
        data = calibration_inputs(manifest, onnx_run(exact.model, manifest), path)
        products = QuantizableGraph(graph, data)
        neighbours = None
        if manifest.kind == "navigation":
            neighbours = Neighbours(manifest, data, onnx_run(exact.model, manifest, threads=1))
        choice = _choose(
            products.candidates(), products.quantized, manifest, golden, neighbours=neighbours
        )
        lowered = set(choice.chosen)
        model = products.quantized(lowered) if lowered else graph.model
        kept = [
            node.name
            for node in graph.nodes
            if node.op_type in PRODUCTS and node.name not in lowered
        ]
        notes["calibration"] = msgspec.to_builtins(digest_of(manifest, path))
    if not lowered:
        raise ExportError(
            f"no part of {manifest.name} can be {precision} within "
            f"{', '.join(f'{name} {bound:g}' for name, bound in golden.tolerances.items())}",
            "export it as fp32" + (" or fp16" if precision == "int8" else ""),
        )
    notes |= {"precision": precision, "lowered": sorted(lowered), "kept": kept}
    provenance = msgspec.structs.replace(
        manifest.provenance, configuration={**manifest.provenance.configuration, "export": notes}
    )
    manifest = msgspec.structs.replace(manifest, precision=precision, provenance=provenance)
    return Exact(bytes(model.SerializeToString(deterministic=True)), manifest, golden)


def _choose(
    candidates: list[str],
    convert: Callable[[Collection[str]], onnx.ModelProto],
    manifest: Manifest,
    golden: Golden,
    neighbours: Neighbours | None = None,
) -> Choice:
    # Prepared images or points are the same whatever the graph does.
    graphs_own = dataclasses.replace(golden, images=None, clouds=None)
    converting = Lock()

    def measure_one(chosen: Collection[str]) -> float:
        with converting:
            model = convert(chosen).SerializeToString()
        run = onnx_run(model, manifest, threads=1)
        cost = cost_of(check_golden(graphs_own, manifest, run))
        return cost if neighbours is None else max(cost, neighbours.cost(run))

    # Several models on one thread each: one model on several keeps them waiting for each other.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return choose(candidates, lambda several: list(pool.map(measure_one, several)))
