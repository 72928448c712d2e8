"""Whether the parts of a manifest fit each other: preprocessing, tensors and decoding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from limpet.contracts.clouds import CloudPreprocessing
from limpet.contracts.errors import BundleError, TensorError
from limpet.contracts.grasp_frames import ANGLES, DEPTHS
from limpet.contracts.grasps import GraspDecoding
from limpet.contracts.images import ImagePreprocessing
from limpet.contracts.manifest import (
    ActionDecoding,
    AnomalyDecoding,
    Manifest,
    NavigationDecoding,
    SignalPreprocessing,
)
from limpet.contracts.signal_steps import check_chain, features_of
from limpet.contracts.tensors import TensorSpec

STREAMING = "a streaming anomaly model"


def check_consistency(manifest: Manifest, where: str) -> None:
    """Refuses a manifest whose parts do not fit each other.

    Args:
        manifest: The manifest.
        where: Where it was read, for messages.

    Raises:
        BundleError: What does not fit what.
    """
    if not manifest.inputs or not manifest.outputs:
        raise BundleError(
            f"{where}: a model needs at least one input and one output", "export the model again"
        )
    if manifest.kind == "anomaly":
        _check_anomaly(where, manifest)
    if manifest.kind == "navigation":
        _check_navigation(where, manifest)
    if manifest.kind == "grasp":
        _check_grasp(where, manifest)


def _check_grasp(where: str, manifest: Manifest) -> None:
    cloud, decoding = manifest.preprocessing, manifest.decoding
    if not isinstance(cloud, CloudPreprocessing) or not isinstance(decoding, GraspDecoding):
        raise BundleError(
            f"{where}: a grasp model needs preprocessing of clouds and decoding of grasps",
            "export the model again",
        )
    lengths = {
        name: value
        for part in (cloud, decoding, decoding.gripper)
        for name, value in msgspec.structs.asdict(part).items()
        if name.endswith(("_m", "_rad")) and name != "finger_shift_m"
    }
    wrong = {name: value for name, value in lengths.items() if not 0 < value < math.inf}
    if (
        wrong
        or not 0 < cloud.candidates <= cloud.points
        or not 0 <= cloud.table_share < 1
        or not cloud.nearest_m < cloud.farthest_m
        or not cloud.lowest_m < cloud.highest_m
        or not 0 <= decoding.finger_shift_m < math.inf
        or not 0 <= decoding.square_power < math.inf
        or decoding.enough_held < 0
        or min(decoding.hypotheses, decoding.per_approach, decoding.rows) < 1
    ):
        raise BundleError(
            f"{where}: clouds and grasps have {wrong or 'sizes'} that do not fit each other: "
            f"{cloud}, {decoding}",
            "export the model again",
        )
    points: list[int | str] = ["views", cloud.points, 3]
    model = "a grasp model"
    _check_tensors(where, "inputs", manifest.inputs, [points], model)
    grips: list[int | str] = [0, 0, ANGLES, DEPTHS]
    shapes: list[list[int | str]] = [[0], [0, 3], [0, 0], [0], [0], [0, 0, 3], grips, grips]
    _check_tensors(where, "outputs", manifest.outputs, shapes, model)
    if [spec.name for spec in manifest.outputs] != decoding.names:
        raise BundleError(
            f"{where}: decoding does not name the outputs "
            f"{', '.join(spec.name for spec in manifest.outputs)}",
            "export the model again",
        )
    seeds = {spec.shape[0] for spec in manifest.outputs[1:]}
    sizes = {manifest.outputs[0].shape[0], manifest.outputs[2].shape[1]}
    approaches = {spec.shape[1] for spec in manifest.outputs[5:]}
    if max(len(seeds), len(sizes), len(approaches)) > 1:
        raise BundleError(
            f"{where}: outputs for {seeds} seeds, {approaches} approaches and embeddings of "
            f"{sizes}, wanted one of each",
            "export the model again",
        )


def _check_navigation(where: str, manifest: Manifest) -> None:
    image, decoding = manifest.preprocessing, manifest.decoding
    if not isinstance(image, ImagePreprocessing):
        raise BundleError(
            f"{where}: a navigation model needs preprocessing of images", "export again"
        )
    if min(image.width, image.height) < 1 or not all(scale > 0 for scale in image.scale):
        raise BundleError(
            f"{where}: images of {image.width} × {image.height} with scales {image.scale}, wanted "
            "positive ones",
            "export the model again",
        )
    action = decoding.action if isinstance(decoding, NavigationDecoding) else None
    inputs: list[list[int | str]] = [["batch", 3, image.height, image.width]]
    outputs: list[list[int | str]] = [["batch", 0]]
    model, meanings = "an image encoder", "the embedding"
    if action is not None:
        _check_action(where, action)
        inputs += [["batch", 3], ["batch", 2]]
        outputs += [["batch", 2]]
        model, meanings = "an image encoder with a policy", "embedding and action"
    memory = action.memory if action else None
    if memory is not None:
        inputs += [["batch", 0]]
        outputs += [["batch", 0]]
        model, meanings = (
            "an image encoder with a policy that remembers",
            ("embedding, action and memory"),
        )
    _check_tensors(where, "inputs", manifest.inputs, inputs, model)
    _check_tensors(where, "outputs", manifest.outputs, outputs, model)
    names = [spec.name for spec in manifest.outputs]
    if not isinstance(decoding, NavigationDecoding) or names != [
        decoding.embedding,
        *([action.name] if action else []),
        *([memory.output] if memory else []),
    ]:
        raise BundleError(
            f"{where}: decoding does not name the output {' and '.join(names)} as {meanings}",
            "export the model again",
        )
    if memory is not None:
        given, kept = manifest.inputs[-1], manifest.outputs[-1]
        if given.name != memory.input or given.shape != kept.shape:
            raise BundleError(
                f"{where}: memory {given.describe()} becomes {kept.describe()}, wanted one size "
                f"and the name {memory.input!r}",
                "export the model again",
            )


def _check_action(where: str, action: ActionDecoding) -> None:
    limits = {
        "largest_speed": action.largest_speed,
        "largest_turn_rate": action.largest_turn_rate,
        "valid_s": action.valid_s,
        "farthest_goal_m": action.farthest_goal_m,
    }
    if action.memory is not None:
        limits["step_s"], limits["longest_s"] = action.memory.step_s, action.memory.longest_s
    wrong = {name: value for name, value in limits.items() if not 0 < value < math.inf}
    if wrong:
        raise BundleError(
            f"{where}: decoding of actions has {wrong}, wanted finite numbers above 0",
            "export the model again",
        )


def _check_anomaly(where: str, manifest: Manifest) -> None:
    signal, calibration, decoding = manifest.preprocessing, manifest.calibration, manifest.decoding
    if not isinstance(signal, SignalPreprocessing):
        raise BundleError(
            f"{where}: an anomaly model needs preprocessing of signals", "export again"
        )
    try:
        check_chain(signal.steps, len(signal.channels))
    except TensorError as error:
        raise BundleError(f"{where}: {error}", "export the model again") from error
    if len(set(signal.channels)) != len(signal.channels) or not signal.rate_hz > 0:
        raise BundleError(
            f"{where}: channels {signal.channels} at {signal.rate_hz:g} Hz, wanted names that "
            "differ and a rate above 0",
            "export the model again",
        )
    features = features_of(signal.steps, len(signal.channels))
    frames: list[int | str] = ["batch", "rows", features]
    _check_tensors(where, "inputs", manifest.inputs, [frames, frames, ["batch", 0]], STREAMING)
    if calibration is None or not calibration.release_threshold <= calibration.threshold:
        raise BundleError(
            f"{where}: an anomaly model needs a threshold and a release threshold "
            "that is not above it",
            "train the model again",
        )
    outputs: list[list[int | str]] = [["batch", "rows", 0], ["batch", "rows"], ["batch", 0]]
    _check_tensors(where, "outputs", manifest.outputs, outputs, STREAMING)
    names = [spec.name for spec in manifest.outputs]
    if not isinstance(decoding, AnomalyDecoding) or names != [
        decoding.embedding,
        decoding.score,
        decoding.next_state,
    ]:
        raise BundleError(
            f"{where}: decoding does not name the outputs {', '.join(names)} as embedding, score "
            "and next state",
            "export the model again",
        )
    if manifest.inputs[2].shape != manifest.outputs[2].shape:
        raise BundleError(
            f"{where}: state {manifest.inputs[2].describe()} becomes "
            f"{manifest.outputs[2].describe()}, wanted one size",
            "export the model again",
        )


def _check_tensors(
    where: str,
    what: str,
    specs: Sequence[TensorSpec],
    shapes: Sequence[Sequence[int | str]],
    model: str,
) -> None:
    """Whether float32 tensors have these shapes, where 0 stands for any fixed size."""
    fits = len(specs) == len(shapes) and all(
        spec.dtype == "float32"
        and len(spec.shape) == len(shape)
        and all(
            isinstance(size, int) if want == 0 else size == want
            for size, want in zip(spec.shape, shape, strict=True)
        )
        for spec, shape in zip(specs, shapes, strict=True)
    )
    if not fits:
        wanted = "; ".join(str([size or "size" for size in shape]) for shape in shapes)
        raise BundleError(
            f"{where}: {what} {'; '.join(spec.describe() for spec in specs)} do not fit "
            f"{model}, wanted float32 {wanted}",
            "export the model again",
        )
