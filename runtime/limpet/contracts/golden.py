"""Golden data: inputs with the outputs that training computed, and how far a device may differ.

`golden.npz` holds arrays named `inputs/NAME`, `outputs/NAME`, `tolerances/NAME` and, for a model
that scores streams, `signal/rows` (n, c) and `signal/scores` (n,): raw rows through the whole
preprocessing chain, so that the chain is proven on the device too. For a model that takes a
camera's images it holds `images/raw` uint8 (m, H, W, 3), which the input's first m rows show; of
clouds `clouds/raw` float32 (V, n, 3), which the input was prepared from.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.array_files import DAMAGE
from limpet.contracts.clouds import CloudPreprocessing, prepare
from limpet.contracts.errors import BundleError, TensorError
from limpet.contracts.grasp_agreement import (
    GRASP_SCORE,
    LOST_GRASPS,
    disagreement,
    seed_cosine,
    stray_share,
)
from limpet.contracts.grasps import GraspDecoding
from limpet.contracts.images import ImagePreprocessing, preprocess
from limpet.contracts.manifest import Manifest, SignalPreprocessing
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.tensors import Array, Tensors, check_tensors

Run = Callable[[Tensors], Tensors]

PREPARED = "prepared image"
"""Check of what preprocessing makes of the raw images."""
PREPARED_POINTS = "prepared points"
"""Check of what it makes of raw clouds: share of points that are none of those expected."""


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Inputs, expected outputs and tolerances.

    Attributes:
        inputs: The graph's inputs by name.
        outputs: What it must give.
        tolerances: `NAME` (largest absolute difference of output NAME), `NAME cosine` (smallest
            cosine of its rows), `alert flips` (largest share of rows that change side of the
            threshold), `prepared image` (largest difference of the preprocessing's result),
            `prepared points` (largest share that differs), `lost grasps` and `grasp score` (of a
            model that finds grasps, in place of its outputs' differences).
        signal_rows: Raw rows of a stream (n, c), or None.
        signal_scores: Score of each of those rows (n,), NaN while warming up, or None.
        images: A camera's images (m, H, W, 3), from which the first rows of the input were
            prepared, or None.
        clouds: Points of each view in one frame (V, n, 3), from which the input was prepared, or
            None.
    """

    inputs: Tensors
    outputs: Tensors
    tolerances: dict[str, float]
    signal_rows: NDArray[np.float64] | None = None
    signal_scores: NDArray[np.float32] | None = None
    images: NDArray[np.uint8] | None = None
    clouds: NDArray[np.float32] | None = None

    def encode(self) -> bytes:
        """The bytes of `golden.npz`."""
        arrays: dict[str, Array] = {f"inputs/{k}": v for k, v in self.inputs.items()}
        arrays |= {f"outputs/{k}": v for k, v in self.outputs.items()}
        arrays |= {f"tolerances/{k}": np.array(v) for k, v in self.tolerances.items()}
        if self.signal_rows is not None and self.signal_scores is not None:
            arrays |= {"signal/rows": self.signal_rows, "signal/scores": self.signal_scores}
        if self.images is not None:
            arrays |= {"images/raw": self.images}
        if self.clouds is not None:
            arrays |= {"clouds/raw": self.clouds}
        buffer = io.BytesIO()
        # NumPy 1.26 would take `allow_pickle=False` for an array; only numbers come here.
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()


def read_golden(path: Path, manifest: Manifest) -> Golden:
    """Reads `golden.npz` and checks it against the manifest.

    Raises:
        BundleError: Unreadable, an array is missing, or one does not fit its spec.
    """
    groups: dict[str, dict[str, Array]] = {
        "inputs": {},
        "outputs": {},
        "tolerances": {},
        "signal": {},
        "images": {},
        "clouds": {},
    }
    try:
        with path.open("rb") as file:  # NumPy leaks a file that it opens and cannot read
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("no npz archive")
            for key in arrays.files:
                group, _, name = key.partition("/")
                groups[group][name] = arrays[key]
        tolerances = {name: float(value[()]) for name, value in groups["tolerances"].items()}
    except DAMAGE as error:
        raise BundleError(f"{path} is not valid golden data: {error}", "export again") from error
    inputs, outputs, signal = groups["inputs"], groups["outputs"], groups["signal"]
    images, clouds = groups["images"], groups["clouds"]
    try:
        check_tensors(manifest.inputs, inputs, f"{path} inputs")
        check_tensors(manifest.outputs, outputs, f"{path} outputs")
    except TensorError as error:
        raise BundleError(error.message, error.hint or "export the model again") from error
    if not all(array.size for array in (*inputs.values(), *outputs.values())):
        raise BundleError(f"{path} holds empty arrays, so it proves nothing", "export again")
    known = {*outputs, *(f"{name} cosine" for name in outputs)}
    known |= {"signal score", "alert flips", PREPARED, PREPARED_POINTS, LOST_GRASPS, GRASP_SCORE}
    if not known.issuperset(tolerances) or not np.isfinite([*tolerances.values()]).all():
        raise BundleError(
            f"{path} has tolerances {tolerances}, wanted finite ones among {sorted(known)}",
            "export the model again",
        )
    if not _signal_fits(signal, manifest):
        found = {name: f"{array.dtype} {list(array.shape)}" for name, array in signal.items()}
        raise BundleError(
            f"{path} has signal arrays {found or 'none'}, which do not fit the manifest: raw rows "
            "and their scores where it has preprocessing, else none",
            "export the model again",
        )
    if not _images_fit(images, inputs, manifest):
        found = {name: f"{array.dtype} {list(array.shape)}" for name, array in images.items()}
        raise BundleError(
            f"{path} has images {found or 'none'}, which do not fit the manifest: raw uint8 "
            "[images, rows, columns, 3] where it has preprocessing of images, else none",
            "export the model again",
        )
    if not _clouds_fit(clouds, manifest):
        found = {name: f"{array.dtype} {list(array.shape)}" for name, array in clouds.items()}
        raise BundleError(
            f"{path} has clouds {found or 'none'}, which do not fit the manifest: raw float32 "
            "[views, points, 3] where it has preprocessing of clouds, else none",
            "export the model again",
        )
    return Golden(
        images=images.get("raw"),
        clouds=clouds.get("raw"),
        inputs=inputs,
        outputs=outputs,
        tolerances=tolerances,
        signal_rows=signal.get("rows"),
        signal_scores=signal.get("scores"),
    )


def _signal_fits(signal: Tensors, manifest: Manifest) -> bool:
    if not isinstance(manifest.preprocessing, SignalPreprocessing):
        return not signal
    if set(signal) != {"rows", "scores"}:
        return False
    rows, scores = signal["rows"], signal["scores"]
    return (
        rows.dtype == np.float64
        and scores.dtype == np.float32
        and scores.ndim == 1
        and rows.shape == (len(scores), len(manifest.preprocessing.channels))
        and bool(np.isfinite(scores).any())
    )


def _images_fit(images: Tensors, inputs: Tensors, manifest: Manifest) -> bool:
    if not isinstance(manifest.preprocessing, ImagePreprocessing):
        return not images
    if set(images) != {"raw"}:
        return False
    raw = images["raw"]
    return (
        raw.dtype == np.uint8
        and raw.ndim == 4
        and raw.shape[3] == 3
        and 0 < len(raw) <= len(inputs[manifest.inputs[0].name])
    )


def _clouds_fit(clouds: Tensors, manifest: Manifest) -> bool:
    if not isinstance(manifest.preprocessing, CloudPreprocessing):
        return not clouds
    if set(clouds) != {"raw"}:
        return False
    raw = clouds["raw"]
    return raw.dtype == np.float32 and raw.ndim == 3 and raw.shape[2] == 3 and len(raw) > 0


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

    def at_least(name: str, measured: float) -> None:
        bound = golden.tolerances[name]
        checks.append(Check(name, measured, bound, bool(measured >= bound)))

    if golden.images is not None:
        how, expected = manifest.image(), golden.inputs[manifest.inputs[0].name]
        prepared = np.stack([preprocess(image, how) for image in golden.images])
        at_most(PREPARED, float(np.abs(prepared - expected[: len(prepared)]).max()))
    if golden.clouds is not None:
        at_most(PREPARED_POINTS, _stray_share(golden.clouds, golden.inputs, manifest))
    outputs = run(golden.inputs)
    check_tensors(manifest.outputs, outputs, "the engine's outputs")
    compared = golden.outputs
    if isinstance(manifest.decoding, GraspDecoding):
        # Of its outputs only the scene's embedding has a meaning row by row.
        compared = {manifest.decoding.embedding: golden.outputs[manifest.decoding.embedding]}
        for name, measured in disagreement(golden.outputs, outputs, manifest.decoding).items():
            at_most(name, measured)
        if (name := f"{manifest.decoding.seed_embedding} cosine") in golden.tolerances:
            at_least(name, seed_cosine(golden.outputs, outputs, manifest.decoding))
    for name, expected in compared.items():
        got, want = outputs[name].astype(np.float64), expected.astype(np.float64)
        if got.shape != want.shape:
            raise BundleError(f"output {name!r} has shape {got.shape}, golden has {want.shape}")
        if name in golden.tolerances or f"{name} cosine" not in golden.tolerances:
            at_most(name, float(np.abs(got - want).max(initial=0.0)))
        if f"{name} cosine" in golden.tolerances:
            at_least(f"{name} cosine", float(_row_cosines(got, want).min()))
    if golden.signal_rows is not None and golden.signal_scores is not None:
        scores = SignalScorer(manifest, run).push(golden.signal_rows).scores
        scored = ~np.isnan(golden.signal_scores)
        difference = np.inf  # where other rows are scored
        if np.array_equal(scored, ~np.isnan(scores)):
            difference = np.abs(scores - golden.signal_scores)[scored].max(initial=0.0)
        at_most("signal score", float(difference))
        if manifest.calibration is not None:
            threshold = manifest.calibration.threshold
            flips = (scores >= threshold) != (golden.signal_scores >= threshold)
            at_most("alert flips", float(flips.mean()))
    return Parity(checks)


def _stray_share(clouds: NDArray[np.float32], inputs: Tensors, manifest: Manifest) -> float:
    prepared = prepare(list(clouds), [np.eye(4)] * len(clouds), manifest.cloud()).points
    return 1.0 if prepared is None else stray_share(prepared, inputs[manifest.inputs[0].name])


def _row_cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines = (a * b).sum(axis=-1) / np.where(norms == 0.0, 1.0, norms)
    both_zero = np.all(a == b, axis=-1)
    return np.asarray(np.where(norms == 0.0, both_zero, cosines))
