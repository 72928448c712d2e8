"""`limpet train grasp` as a function: from a data set to a RUN."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch

from limpet.contracts.errors import DataError
from limpet.contracts.manifest import DataDigest
from limpet.training.distributed import process_group
from limpet.training.fit import check_gpu, fit_encoder
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.encoder import GraspEncoder
from limpet.training.grasp.graspnet import GraspNet
from limpet.training.grasp.objective import Objective
from limpet.training.grasp.samples import Sample, SampleMaker
from limpet.training.grasp.targets import SceneLabels
from limpet.training.grasp.validation import validate
from limpet.training.progress import progress
from limpet.training.ranks import leads
from limpet.training.run import RunFolder, check_out, new_record, open_run
from limpet.training.threads import one_thread


class GraspReport(msgspec.Struct, frozen=True, kw_only=True):
    """What training came to; the keys of `limpet train grasp --json`.

    Attributes:
        run: The RUN folder.
        scenes: Scenes that were learnt from.
        samples: Choices of their views.
        weights: Number of the encoder's weights.
        metrics: Measured figures.
        warnings: What was odd.
        seconds: Time it took, all in all.
    """

    run: str
    scenes: int
    samples: int
    weights: int
    metrics: dict[str, float]
    warnings: list[str]
    seconds: float


@process_group()
def train_grasp(
    data: Path | str,
    out: Path | str,
    config: GraspConfig | None = None,
    *,
    camera: str = "realsense",
    device: Literal["cpu", "cuda"] = "cpu",
    resume: bool = False,
    force: bool = False,
    cache: Path | None = None,
    command: str = "",
) -> GraspReport:
    """Trains a grasp encoder on scenes in GraspNet-1Billion's layout, and writes a RUN.

    Scenes 0 to 89 are learnt from; of 90 to 99, where they are there, figures are measured at the
    end. Test scenes are not opened.

    Args:
        data: The data set's folder.
        out: The RUN folder to write.
        config: What can be chosen; defaults where None.
        camera: Whose images: `realsense` or `kinect`.
        device: Where to train.
        resume: Goes on with an interrupted run.
        force: Replaces a run.
        cache: Folder for unpacked labels and prepared samples; the user's own by default.
        command: The command line, for the record.

    Raises:
        DataError: The data cannot be read, or is too little.
        UsageError: `out` may not be written.
        ImpossibleHereError: `device` is not there.
        MissingExtraError: What reads the data is not installed.
        TrainingInterruptedError: SIGINT or SIGTERM arrived.
    """
    began = time.monotonic()
    config = config or GraspConfig()
    check_gpu(device)
    check_out(Path(out), resume=resume, force=force)
    scenes = GraspNet(data, camera, None if cache is None else cache / "labels")
    if not scenes.split("train"):
        raise DataError(
            f"{scenes.root} has none of scenes 0 to 89, which are learnt from",
            "the scenes of GraspNet-1Billion's train_1.zip are among them",
        )
    maker = SampleMaker(
        scenes,
        config.cloud,
        config.input,
        config.pairs,
        cache=None if cache is None else cache / "samples",
    )
    with one_thread():
        samples, labels = _open(scenes, maker, "train")
        held_out, held_out_labels = _open(scenes, maker, "validation")
        objective = Objective(samples, labels, config)
        record = new_record(
            "grasp",
            config,
            data=[_digest(scenes.root.name, samples)],
            preprocessing=config.cloud,
            warnings=_warnings(held_out),
            command=command,
        )
        folder = open_run(out, record, resume=resume, force=force)
        encoder, loss = _train(objective, scenes.root.name, config, device, folder)
        metrics = {"loss": loss}
        if held_out and leads():
            figures = validate(encoder, held_out, held_out_labels)
            metrics |= {f"validation_{name}": figure for name, figure in figures.items()}
    complete = msgspec.structs.replace(record, complete=True, metrics=metrics)
    folder.finish(encoder.state_dict(), {"points": (held_out or samples)[0].points}, complete)
    return GraspReport(
        run=str(folder.path),
        scenes=len(labels),
        samples=len(samples),
        weights=sum(weight.numel() for weight in encoder.parameters()),
        metrics=complete.metrics,
        warnings=complete.warnings,
        seconds=round(time.monotonic() - began, 3),
    )


def _open(
    scenes: GraspNet, maker: SampleMaker, split: str
) -> tuple[list[Sample], dict[int, SceneLabels]]:
    numbers = scenes.split(split)
    if not numbers:
        return [], {}
    with progress(f"preparing {split} scenes", len(numbers)) as report:
        samples = maker.of(numbers, report)
    with progress(f"reading {split} labels", len(numbers)) as report:
        labels = {}
        for done, scene in enumerate(numbers):
            labels[scene] = SceneLabels(scenes, scene)
            report(done + 1, "")
    return samples, labels


def _warnings(held_out: Sequence[Sample]) -> list[str]:
    if held_out:
        return []
    return ["none of scenes 90 to 99 is there: nothing is known of the encoder but its loss"]


def _digest(name: str, samples: Sequence[Sample]) -> DataDigest:
    """Of what is learnt from, not of how its files pack it."""
    whole = hashlib.sha256()
    for sample in samples:
        for array in (sample.points, sample.owner, sample.grasp_point, sample.graspness):
            whole.update(np.ascontiguousarray(array).tobytes())
    return DataDigest(name=name, sha256=whole.hexdigest(), rows=len(samples))


def _train(
    objective: Objective, name: str, config: GraspConfig, device: str, folder: RunFolder
) -> tuple[GraspEncoder, float]:
    encoder = GraspEncoder(config).to(device)

    def loss_of_step(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return objective.loss(encoder, rng)

    loss = fit_encoder(encoder, loss_of_step, config, folder, name)
    return encoder.cpu().eval(), loss
