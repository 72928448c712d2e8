"""What a model's inputs are on real data: the ranges of INT8 come from nothing else.

Dimension legend: m frames or images, f features, s state, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from limpet.contracts.array_files import DAMAGE, undamaged
from limpet.contracts.bundle import files_sha256
from limpet.contracts.errors import DataError, TensorError, UsageError
from limpet.contracts.golden import Run
from limpet.contracts.image_files import image_paths, read_image
from limpet.contracts.images import preprocess
from limpet.contracts.manifest import DataDigest, Manifest
from limpet.contracts.recording_scores import match_recording
from limpet.contracts.recordings import load_recordings
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signal_steps import Clip
from limpet.contracts.tensors import Tensors, check_tensors
from limpet.export.precision.depth_views import DepthViews, find_depth_views, prepared_views

MOST_CALLS = 128
"""Calls of a model that calibration looks at, spread evenly over the data."""
IMAGES_A_CALL = 8
MOST_SCENES = 24
"""Scenes that a model which finds grasps is shown: one takes it half a second."""
BEYOND_NORMAL = 3.0
"""Recordings of normal operation are looked at a second time, magnified so much. What a model is
there for lies beyond them: with ranges of what is normal alone values of anomalies saturate, and 2
of the reference encoder's products stay within the tolerances. So it is 6, as with 2 and 5."""


def check_wanted(manifest: Manifest, calibration: Path | None) -> Path:
    """The data that was given.

    Raises:
        UsageError: None was.
    """
    if calibration is None:
        wanted = {
            "anomaly": "a recording of normal operation, or a folder of them",
            "navigation": "a folder of the camera's images, or an .npz of all inputs",
            "grasp": "scenes with depth images, as `limpet evaluate grasp --data` takes them",
        }.get(manifest.kind, f"an .npz of inputs {', '.join(s.name for s in manifest.inputs)}")
        raise UsageError(
            "int8 takes its ranges from real data, and none was given",
            f"say --calibration PATH: {wanted}",
        )
    return calibration


def calibration_inputs(manifest: Manifest, run: Run, path: Path) -> list[Tensors]:
    """Inputs of a model at work on real data.

    Args:
        manifest: The model's.
        run: Executes the float32 graph, which a stream's state comes from.
        path: Recordings, images, depth images of scenes, or an npz of inputs, as the model's kind
            wants it.

    Returns:
        The inputs of each call; images alone where the model has other inputs, too, of which images
        say nothing.

    Raises:
        DataError: The data cannot be read, does not fit the model, or is too short.
    """
    if manifest.kind == "anomaly":
        calls = list(_streamed(manifest, run, path))
    elif _of_images(manifest, path):
        calls = list(_seen(manifest, path))
    elif _of_depth(manifest, path):
        views = [prepared_views(manifest, one) for one in _depth_views(manifest, path)]
        calls = [call for call in views if call is not None]
    else:
        calls = list(_given(manifest, path))
    if not calls:
        raise DataError(f"{path} is too short: the model has nothing to do", "give more data")
    return calls


def digest_of(manifest: Manifest, path: Path) -> DataDigest:
    """What the ranges came from: its name, SHA-256 and how many files that were."""
    if _of_images(manifest, path):
        files = image_paths([path])
    elif _of_depth(manifest, path):
        files = [file for views in _depth_views(manifest, path) for file in views.files]
    else:
        files = _files(path)
    return DataDigest(name=path.name, sha256=files_sha256(files), rows=len(files))


def _of_images(manifest: Manifest, path: Path) -> bool:
    return manifest.kind == "navigation" and path.suffix.lower() != ".npz"


def _of_depth(manifest: Manifest, path: Path) -> bool:
    """Whether these are scenes, and no npz of a grasp model's inputs."""
    if manifest.kind != "grasp":
        return False
    if path.suffix.lower() != ".npz":
        return True
    with undamaged(path), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return manifest.inputs[0].name not in archive.files


def _depth_views(manifest: Manifest, path: Path) -> list[DepthViews]:
    return _spread(find_depth_views(path, manifest), MOST_SCENES)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())


def _streamed(manifest: Manifest, run: Run, path: Path) -> Iterator[Tensors]:
    """Each recording as a stream of its own, state included; then magnified up to the clip."""
    calls: list[Tensors] = []

    def record(inputs: Tensors) -> Tensors:
        calls.append({name: array.copy() for name, array in inputs.items()})
        return run(inputs)

    for recording in load_recordings(path):
        scorer = SignalScorer(manifest, record, max_frames=64)
        scorer.push(match_recording(recording, manifest.signal()).values)
    some = _spread(calls)
    yield from some
    clips = [step.limit for step in manifest.signal().steps if isinstance(step, Clip)]
    limit, samples = min(clips, default=np.inf), manifest.inputs[0].name
    for call in some:
        beyond = np.clip(call[samples] * np.float32(BEYOND_NORMAL), -limit, limit)
        yield {**call, samples: beyond.astype(np.float32)}


def _seen(manifest: Manifest, path: Path) -> Iterator[Tensors]:
    """Images as a camera sends them, prepared."""
    how, name = manifest.image(), manifest.inputs[0].name
    files = _spread(image_paths([path]), MOST_CALLS * IMAGES_A_CALL)
    for start in range(0, len(files), IMAGES_A_CALL):
        some = files[start : start + IMAGES_A_CALL]
        yield {name: np.stack([preprocess(read_image(file), how) for file in some])}


def _given(manifest: Manifest, path: Path) -> Iterator[Tensors]:
    """Inputs as they are, the first axis of all of them being samples."""
    try:
        with path.open("rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))
        check_tensors(manifest.inputs, arrays, f"{path}")
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except TensorError as error:
        raise DataError(error.message, error.hint) from error
    yield arrays


def _spread(items: Sequence, most: int = MOST_CALLS) -> list:  # type: ignore[type-arg]
    """At most so many of them, evenly spaced, in order."""
    if len(items) <= most:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, most).astype(int)]
