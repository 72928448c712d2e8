"""`limpet evaluate grasp` as a function: a RUN or a bundle and scenes → figures of its grasps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.grasp_model import GraspModel
from limpet.contracts.tensors import Tensors
from limpet.export.models import OpenModel, Source, open_model
from limpet.training.grasp.graspnet import SPLITS, GraspNet
from limpet.training.grasp.judging.evaluation import (
    Float32,
    MeanFigures,
    RealFigures,
    Report,
    SplitFigures,
    evaluate_real,
    evaluate_split,
    mean_figures,
)
from limpet.training.grasp.judging.finders import ARMS, Arm, make_finder
from limpet.training.grasp.judging.real_scenes import find_real_scenes, read_real_scene

TEST_SPLITS = ("seen", "similar", "novel")
"""Splits that are judged by default."""


class GraspEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How a grasp encoder does; the keys of `limpet evaluate grasp --json`.

    Attributes:
        model: The RUN or bundle, as it was given.
        source: Which of the two.
        name: The model's name.
        engine: What computed.
        data: The scenes, as they were given.
        splits: Figures of each split, where the objects are known; empty for real scenes.
        mean: Of each arm over the splits.
        real: Figures of each real scene; empty where the objects are known.
    """

    model: str
    source: Source
    name: str
    engine: str
    data: str
    splits: dict[str, SplitFigures]
    mean: dict[str, MeanFigures]
    real: list[RealFigures]


def evaluate_grasp(
    model: Path,
    data: Path,
    *,
    splits: Sequence[str] | None = None,
    views: int | None = None,
    arms: Sequence[str] = ARMS,
    lift: int = 0,
    pose_error: float = 1.0,
    camera: str = "realsense",
    cache: Path | None = None,
    report: Report = lambda text: None,
) -> GraspEvaluation:
    """Judges grasps where the objects are known, or on what was seen of real scenes.

    Args:
        model: A RUN, which PyTorch runs, or a bundle, which ONNX Runtime runs on the CPU.
        data: A data set in GraspNet-1Billion's layout; or a real scene (`.npz`, or a folder with
            `depth.png` and `meta.mat`), or a folder of them.
        splits: Of the data set; by default those of `TEST_SPLITS` that are there.
        views: Reference views a scene, evenly spaced; None is all.
        arms: Ways to grasps, of `ARMS`.
        lift: Views a split whose best grasp is tried in simulation; synthetic scenes only.
        pose_error: What the error of the known camera poses is multiplied by, where the data has
            one: synthetic scenes.
        camera: Whose images.
        cache: Folder for the data set's labels, unpacked.
        report: Told of the progress.

    Raises:
        UsageError: No such arm or split.
        DataError: The scenes cannot be read, or `model` is neither a finished RUN nor a bundle, or
            of another kind.
        BundleError: The bundle is damaged.
        MissingExtraError: What reads the data is not installed.
    """
    chosen = check_arms(arms)
    opened = open_model(model, "grasp")
    grasps = GraspModel(opened.manifest, opened.run)
    figures: dict[str, SplitFigures] = {}
    real: list[RealFigures] = []
    if (data / "scenes").is_dir():
        scenes = GraspNet(data, camera, cache)
        finders = {arm: make_finder(arm, grasps) for arm in chosen}
        for split, numbers in _splits(scenes, splits).items():
            figures[split] = evaluate_split(
                scenes,
                numbers,
                finders,
                views=views,
                lift=lift,
                pose_error=pose_error,
                report=lambda text, split=split: report(f"{split}: {text}"),  # type: ignore[misc]
            )
    else:
        real = _real(data, opened, grasps, report)
    return GraspEvaluation(
        model=str(model),
        source=opened.source,
        name=opened.manifest.name,
        engine=opened.engine,
        data=str(data),
        splits=figures,
        mean=mean_figures(figures) if figures else {},
        real=real,
    )


def check_arms(arms: Sequence[str]) -> list[Arm]:
    """The arms of these names, each once.

    Raises:
        UsageError: There is no such arm, or none at all.
    """
    unknown = sorted(set(arms).difference(ARMS))
    if unknown or not arms:
        raise UsageError(f"no arm {', '.join(unknown) or 'given'}", f"of {', '.join(ARMS)}")
    return [arm for arm in ARMS if arm in arms]


def _splits(data: GraspNet, names: Sequence[str] | None) -> dict[str, list[int]]:
    wanted = {name: data.split(name) for name in (TEST_SPLITS if names is None else names)}
    if names is None:
        wanted = {name: scenes for name, scenes in wanted.items() if scenes}
    missing = [name for name, scenes in wanted.items() if not scenes]
    if missing or not wanted:
        there = [name for name in SPLITS if data.split(name)]
        raise DataError(
            f"{data.root} has no scene of {', '.join(missing or TEST_SPLITS)}",
            f"splits there: {', '.join(there)}; say --split {','.join(there)}",
        )
    return wanted


def _real(data: Path, opened: OpenModel, model: GraspModel, report: Report) -> list[RealFigures]:
    paths = find_real_scenes(data)
    if not paths:
        raise DataError(
            f"{data} has no scenes",
            "wanted GraspNet-1Billion's folder, or real scenes: .npz with depth and "
            "intrinsics_matrix, or folders with depth.png and meta.mat",
        )
    name = opened.manifest.inputs[0].name

    def graph(points: Float32) -> Tensors:
        return opened.run({name: points})

    figures = []
    for index, path in enumerate(paths):
        figures.append(evaluate_real(model, graph, read_real_scene(path)))
        report(f"{index + 1} of {len(paths)} scenes")
    return figures
