"""`limpet train navigation` as a function: from a path to a RUN."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from torch import nn

from limpet.training.distributed import process_group
from limpet.training.fit import check_gpu, fit_encoder
from limpet.training.navigation.autoencoder import Autoencoder, reconstruction_loss
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder
from limpet.training.navigation.frames import Frames, open_frames
from limpet.training.navigation.objective import Batches
from limpet.training.run import RunFolder, check_out, new_record, open_run
from limpet.training.threads import one_thread

SAMPLES = 4
"""Images that a run keeps for the export's golden data."""


class NavigationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What training came to; the keys of `limpet train navigation --json`.

    Attributes:
        run: The RUN folder.
        poses: Poses that were learnt from.
        views: Appearances that each was seen in.
        weights: Number of the encoder's weights.
        metrics: Measured figures.
        warnings: What was odd.
        seconds: Time it took, all in all.
    """

    run: str
    poses: int
    views: int
    weights: int
    metrics: dict[str, float]
    warnings: list[str]
    seconds: float


@process_group()
def train_navigation(
    data: Path | str,
    out: Path | str,
    config: NavigationConfig | None = None,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    resume: bool = False,
    force: bool = False,
    command: str = "",
) -> NavigationReport:
    """Trains an image encoder whose embeddings are as alike as what a LiDAR sees, and writes a RUN.

    Args:
        data: A folder of pairs, a recording with camera and LiDAR, or a folder of such.
        out: The RUN folder to write.
        config: What can be chosen; defaults where None.
        device: Where to train.
        resume: Goes on with an interrupted run.
        force: Replaces a run.
        command: The command line, for the record.

    Raises:
        DataError: The data cannot be read, or is too little.
        UsageError: `out` may not be written.
        ImpossibleHereError: `device` is not there.
        MissingExtraError: What reads the data is not installed.
        TrainingInterruptedError: SIGINT or SIGTERM arrived.
    """
    began = time.monotonic()
    config = config or NavigationConfig()
    check_gpu(device)
    check_out(Path(out), resume=resume, force=force)
    frames = open_frames(data, config.image)
    batches = Batches(frames, config)
    record = new_record(
        "navigation",
        config,
        data=[frames.digest()],
        preprocessing=config.image,
        warnings=_warnings(frames, config),
        command=command,
    )
    folder = open_run(out, record, resume=resume, force=force)
    with one_thread():
        encoder, loss = _train(batches, frames.name, config, device, folder)
    complete = msgspec.structs.replace(record, complete=True, metrics={"loss": loss})
    poses = np.linspace(0, len(frames) - 1, min(SAMPLES, len(frames))).astype(np.intp)
    images = frames.take(poses, np.zeros_like(poses))
    folder.finish(encoder.state_dict(), {"images": images}, complete)
    return NavigationReport(
        run=str(folder.path),
        poses=len(frames),
        views=frames.views,
        weights=sum(weight.numel() for weight in encoder.parameters()),
        metrics=complete.metrics,
        warnings=complete.warnings,
        seconds=round(time.monotonic() - began, 3),
    )


def _warnings(frames: Frames, config: NavigationConfig) -> list[str]:
    if frames.views > 1 or config.objective in ("simclr", "autoencoder"):
        return []
    return [
        f"{frames.name} shows each pose in one appearance: colours and brightness of the second "
        "view are made up"
    ]


def _train(
    batches: Batches, name: str, config: NavigationConfig, device: str, folder: RunFolder
) -> tuple[Encoder, float]:
    encoder = Encoder(config)
    model: nn.Module = encoder
    if config.objective == "autoencoder":
        model = Autoencoder(encoder)
    # Channels last is how `to_input` lays images out, and convolutions on a CPU are fastest so.
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of_step(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        if isinstance(model, Autoencoder):
            return reconstruction_loss(model, batches, rng, device)
        return batches.loss(encoder, rng, device)

    loss = fit_encoder(model, loss_of_step, config, folder, name)
    return encoder.cpu().eval(), loss
