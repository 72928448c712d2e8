"""Golden data: inputs with the outputs that training computed, and how far a device may differ.

`golden.npz` holds arrays named `inputs/NAME`, `outputs/NAME`, `tolerances/NAME` and, for a model
that scores streams, `signal/rows` (n, c) and `signal/scores` (n,): raw rows through the whole
preprocessing chain, so that the chain is proven on the device too.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import BundleError
from limpet.contracts.manifest import Manifest
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.tensors import Array, Tensors, check_tensors

Run = Callable[[Tensors], Tensors]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Inputs, expected outputs and tolerances.

    Attributes:
        inputs: The graph's inputs by name.
        outputs: What it must give.
        tolerances: `NAME` (largest absolute difference of output NAME), `NAME cosine` (smallest
            cosine of its rows), `alert flips` (largest share of rows that change side of the
            threshold).
        signal_rows: Raw rows of a stream (n, c), or None.
        signal_scores: Score of each of those rows (n,), NaN while warming up, or None.
    """

    inputs: Tensors
    outputs: Tensors
    tolerances: dict[str, float]
    signal_rows: NDArray[np.float64] | None = None
    signal_scores: NDArray[np.float32] | None = None

    def encode(self) -> bytes:
        """The bytes of `golden.npz`."""
        arrays: dict[str, Array] = {f"inputs/{k}": v for k, v in self.inputs.items()}
        arrays |= {f"outputs/{k}": v for k, v in self.outputs.items()}
        arrays |= {f"tolerances/{k}": np.array(v) for k, v in self.tolerances.items()}
        if self.signal_rows is not None and self.signal_scores is not None:
            arrays |= {"signal/rows": self.signal_rows, "signal/scores": self.signal_scores}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()


def read_golden(path: Path, manifest: Manifest) -> Golden:
    """Reads `golden.npz` and checks it against the manifest's tensors.

    Raises:
        BundleError: Unreadable, or an array is missing.
        TensorError: An array does not fit its spec.
    """
    groups: dict[str, dict[str, Array]] = {
        "inputs": {},
        "outputs": {},
        "tolerances": {},
        "signal": {},
    }
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                group, _, name = key.partition("/")
                groups[group][name] = arrays[key]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} is not valid golden data: {error}", "export again") from error
    check_tensors(manifest.inputs, groups["inputs"], f"{path.name} inputs")
    check_tensors(manifest.outputs, groups["outputs"], f"{path.name} outputs")
    signal = groups["signal"]
    if manifest.preprocessing is not None and set(signal) != {"rows", "scores"}:
        raise BundleError(f"{path} lacks the signal rows and scores", "export again")
    return Golden(
        inputs=groups["inputs"],
        outputs=groups["outputs"],
        tolerances={name: float(value) for name, value in groups["tolerances"].items()},
        signal_rows=signal.get("rows"),
        signal_scores=signal.get("scores"),
    )


class Check(msgspec.Struct, frozen=True):
    """One comparison: what was measured, the bound it must keep, and whether it does."""

    name: str
    measured: float
    bound: float
    passed: bool


@dataclass(frozen=True)
class Parity:
    """Outcome of a golden check."""

    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there was something to check and all of it held."""
        return bool(self.checks) and all(check.passed for check in self.checks)


def check_golden(golden: Golden, manifest: Manifest, run: Run) -> Parity:
    """Runs the golden inputs through `run` and compares in the task's terms.

    Args:
        golden: What is expected.
        manifest: The model's manifest.
        run: Executes the graph on the device in question.
    """
    checks: list[Check] = []

    def at_most(name: str, measured: float) -> None:
        bound = golden.tolerances.get(name, 0.0)
        checks.append(Check(name, measured, bound, measured <= bound))  # False for NaN

    outputs = run(golden.inputs)
    check_tensors(manifest.outputs, outputs, "the engine's outputs")
    for name, expected in golden.outputs.items():
        got, want = outputs[name].astype(np.float64), expected.astype(np.float64)
        if got.shape != want.shape:
            raise BundleError(f"output {name!r} has shape {got.shape}, golden has {want.shape}")
        if name in golden.tolerances or f"{name} cosine" not in golden.tolerances:
            at_most(name, float(np.abs(got - want).max(initial=0.0)))
        if f"{name} cosine" in golden.tolerances:
            bound, worst = golden.tolerances[f"{name} cosine"], _row_cosines(got, want).min()
            checks.append(Check(f"{name} cosine", float(worst), bound, bool(worst >= bound)))
    if golden.signal_rows is not None and golden.signal_scores is not None:
        scores = SignalScorer(manifest, run).push(golden.signal_rows).scores
        same_rows = np.array_equal(np.isnan(scores), np.isnan(golden.signal_scores))
        difference = np.nanmax(np.abs(scores - golden.signal_scores)) if same_rows else np.inf
        at_most("signal score", float(difference))
        if manifest.calibration is not None:
            threshold = manifest.calibration.threshold
            flips = (scores >= threshold) != (golden.signal_scores >= threshold)
            at_most("alert flips", float(flips.mean()))
    return Parity(checks)


def _row_cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / norms)
