"""What a hop costs a model that remembers, against one that computes its whole window anew.

    python -m tests.benchmarks.streaming_cost --json tests/benchmarks/results/streaming_cost.json

The same graph with the sizes of `limpet train anomaly`'s defaults, 8 channels, a hop of 1/32 of the
window that a score looks back on. Recomputing runs the window from an empty state, which gives the
same score. Operations are counted by PyTorch on the module, times are taken with ONNX Runtime on
one thread, both sides in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch.utils.flop_counter import FlopCounterMode

from limpet.contracts.reports import format_table, write_json
from limpet.contracts.tensors import TensorSpec
from limpet.export.graph import to_onnx
from limpet.runtime.machine import describe_machine
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.model import AnomalyScorer, build_scorer

CHANNELS, BLOCKS = 8, 6
HOPS_PER_WINDOW = 32
ROUNDS, A_TURN = 60, 10


def operations(scorer: AnomalyScorer, frames: int) -> int:
    """Multiplications and additions of one call with so many frames."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        scorer(*inputs(scorer, frames))
    return int(counter.get_total_flops())


def inputs(scorer: AnomalyScorer, frames: int) -> tuple[torch.Tensor, ...]:
    """Random frames of one stream at its beginning."""
    samples = torch.randn(1, frames, CHANNELS, generator=torch.Generator().manual_seed(0))
    return samples, torch.ones_like(samples), torch.zeros(1, scorer.state_size)


def session_of(scorer: AnomalyScorer) -> onnxruntime.InferenceSession:
    """The exported graph, on one thread."""

    def tensor(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=["batch", *shape])

    size, width = scorer.state_size, scorer.encoder.head.out_features
    model = to_onnx(
        scorer,
        [tensor("samples", "rows", CHANNELS), tensor("present", "rows", CHANNELS),
         tensor("state", size)],
        [tensor("embedding", "rows", width), tensor("score", "rows"), tensor("next_state", size)],
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def times_us(sides: list[Callable[[], object]]) -> list[list[float]]:
    """Microseconds of each call of each side, in turns; the first turn only warms up."""
    taken: list[list[float]] = [[] for _ in sides]
    for turn in range(ROUNDS + 1):
        for side, record in zip(sides, taken, strict=True):
            for _ in range(A_TURN):
                start = time.perf_counter_ns()
                side()
                if turn:
                    record.append((time.perf_counter_ns() - start) / 1e3)
    return taken


def main() -> None:
    """Measures, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    config = AnomalyConfig()
    scorer = build_scorer(config, CHANNELS, BLOCKS, config.bank_frames).eval()
    window = scorer.look_back_frames
    hop = window // HOPS_PER_WINDOW
    session, names = session_of(scorer), ("samples", "present", "state")

    def call(frames: int) -> Callable[[], object]:
        arrays = [x.numpy() for x in inputs(scorer, frames)]
        feed = dict(zip(names, arrays, strict=True))
        return lambda: session.run(None, feed)

    streaming, whole = times_us([call(hop), call(window)])
    counted = {"streaming": operations(scorer, hop), "whole window": operations(scorer, window)}
    rows = [
        {
            "side": side,
            "frames": frames,
            "operations": counted[side],
            "us_p50": float(np.percentile(taken, 50)),
            "us_p99": float(np.percentile(taken, 99)),
        }
        for side, frames, taken in (
            ("streaming", hop, streaming),
            ("whole window", window, whole),
        )
    ]
    ratios = {
        "operations": counted["whole window"] / counted["streaming"],
        "time_p50": rows[1]["us_p50"] / rows[0]["us_p50"],
    }
    print(
        format_table(
            ["", "frames", "operations", "µs p50", "p99"],
            [
                [
                    str(row["side"]), str(row["frames"]), f"{row['operations']:,}",
                    f"{row['us_p50']:.0f}", f"{row['us_p99']:.0f}",
                ]
                for row in rows
            ],
        )
    )  # fmt: skip
    print(f"ratio: operations {ratios['operations']:.1f}, time {ratios['time_p50']:.1f}")
    write_json(options.json_file, {"machine": describe_machine(), "rows": rows, "ratios": ratios})


if __name__ == "__main__":
    main()
