"""`limpet bench export` of several encoders, gathered in one file by their kinds.

    python -m tests.benchmarks.export RUN CALIBRATION [RUN CALIBRATION …] \
        [--labelled DATA --from-row N] --json tests/benchmarks/results/export.json

For an anomaly encoder with labelled recordings also AUROC and average precision at each precision:
int8 has to stay within a point of fp32. For an image encoder, whose CALIBRATION is a folder of
images, how embeddings and actions differ from those in fp32 on them. Nothing here runs on a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from limpet.contracts.bundle import read_bundle
from limpet.contracts.image_files import image_paths, read_image
from limpet.contracts.images import preprocess
from limpet.export.benchmark import bench_export, describe
from limpet.export.evaluate_anomaly import evaluate_anomaly
from limpet.export.parity import onnx_run
from limpet.runtime.machine import processor_name


def main() -> None:
    """Reads the command line, measures, prints tables and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN CALIBRATION")
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--from-row", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    known = msgspec.json.decode(given.json.read_bytes()) if given.json.exists() else {}
    for run, calibration in zip(given.runs[::2], given.runs[1::2], strict=True):
        with tempfile.TemporaryDirectory() as folder:
            benchmark = bench_export(
                run, Path(folder), calibration=calibration, rounds=given.rounds, report=print
            )
            figures: dict[str, Any] = msgspec.to_builtins(benchmark)
            figures["machine"]["processor"] = processor_name()
            print(describe(benchmark))
            if given.labelled is not None and benchmark.kind == "anomaly":
                figures["labelled"] = {
                    out.name: quality(out, given.labelled, given.from_row)
                    for out in sorted(Path(folder).iterdir())
                }
                print(figures["labelled"])
            if benchmark.kind == "navigation":
                figures["on_images"] = on_images(Path(folder), calibration)
                print(figures["on_images"])
        known[benchmark.kind] = figures
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(known)) + b"\n")


def on_images(folder: Path, images: Path) -> dict[str, dict[str, float]]:
    """How a camera's model differs from itself in fp32, by precision, on real images.

    `flips` is the share of images whose nearest neighbour is another one; `clear` are those of
    which fp32 finds the new neighbour further by more than 0.001 of cosine. Actions are those
    towards goals drawn evenly, at speeds the robot has, in m/s and rad/s.
    """
    exact: dict[str, np.ndarray] = {}
    found = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.name != "fp32"):
        bundle = read_bundle(path)
        how, files = bundle.manifest.image(), image_paths([str(images)])
        inputs = {"image": np.stack([preprocess(read_image(file), how) for file in files])}
        m, rng = len(files), np.random.default_rng(0)
        bearing = rng.uniform(-np.pi, np.pi, m)
        drawn = {
            "goal": np.stack([rng.uniform(0.4, 8.0, m), np.cos(bearing), np.sin(bearing)], axis=1),
            "proprioception": rng.uniform([0.0, -1.5], [0.5, 1.5], (m, 2)),
        }
        wanted = {spec.name for spec in bundle.manifest.inputs}
        inputs |= {name: x.astype(np.float32) for name, x in drawn.items() if name in wanted}
        outputs = onnx_run(bundle.model_path.read_bytes(), bundle.manifest, threads=1)(inputs)
        exact = exact or dict(outputs)
        before, now = (likeness(each["embedding"]) for each in (exact, outputs))
        lost = before.max(axis=1) - before[np.arange(m), now.argmax(axis=1)]
        found[path.name] = {
            "images": m,
            "flips": float((lost > 0).mean()),
            "clear": float((lost > 1e-3).mean()),
        }
        if "action" in outputs:
            error = np.abs(outputs["action"] - exact["action"])
            found[path.name] |= {
                "speed_mean": float(error[:, 0].mean()),
                "speed_most": float(error[:, 0].max()),
                "turn_mean": float(error[:, 1].mean()),
                "turn_most": float(error[:, 1].max()),
            }
    return found


def likeness(embeddings: np.ndarray) -> np.ndarray:
    """Cosine of each row with each other, and of none with itself. (m, e) → (m, m)"""
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines


def quality(bundle: Path, labelled: Path, from_row: int) -> dict[str, float | None]:
    """How well a bundle finds labelled faults."""
    mean = evaluate_anomaly(bundle, labelled, from_row=from_row).mean
    return {"auroc": mean.auroc, "average_precision": mean.average_precision}


if __name__ == "__main__":
    main()
