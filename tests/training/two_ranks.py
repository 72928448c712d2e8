"""What each of two processes does under torchrun; `test_distributed` starts it and judges it.

two_ranks.py FOLDER    each rank writes FOLDER/rank{0,1}.safetensors and .json
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from limpet.contracts.errors import DataError
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.data import Stretch
from limpet.training.anomaly.encoder import CausalEncoder
from limpet.training.anomaly.objective import Batches, contrast
from limpet.training.distributed import (
    any_rank,
    average,
    average_gradients,
    gather,
    process_group,
    shard,
)
from limpet.training.fit import FitConfig, LossOfStep, TrainingInterruptedError, fit
from limpet.training.navigation.encoder import Encoder
from limpet.training.navigation.frames import open_frames
from limpet.training.navigation.objective import Batches as NavigationBatches
from limpet.training.progress import progress
from limpet.training.ranks import rank
from tests import navigation_frames

STEPS, BATCH, WIDTH = 8, 12, 6
BLOCKS, FEATURES = 3, 3
POSITIVES: tuple[Literal["near", "weights"], ...] = ("near", "weights")
NavigationObjective = Literal["ranked", "multi_positive", "simclr"]
NAVIGATION: tuple[NavigationObjective, ...] = get_args(NavigationObjective)
CONFIG = FitConfig(
    steps=STEPS, learning_rate=0.02, weight_decay=0.01, seed=5, warm_up_steps=2,
    checkpoint_steps=3, log_steps=1, clip_norm=0.5,
)  # fmt: skip


def fresh_encoder(seed: int = 0) -> nn.Module:
    """A small encoder; ranks may start from different seeds, since rank 0's weights go to all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 16), nn.GELU(), nn.Linear(16, WIDTH))


def contrastive(encoder: nn.Module, interrupt: Callable[[int], None] | None = None) -> LossOfStep:
    """The anomaly objective, its batch sharded and its negatives gathered."""

    def loss_of_step(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        if interrupt is not None:
            interrupt(step)
        drawn = torch.from_numpy(rng.standard_normal((3, BATCH, 5)).astype(np.float32))
        drawn[1] = drawn[0] + 0.1 * drawn[1]
        own = drawn[:, shard(BATCH)]  # anchors, positives, negatives: (3, b, 5)
        anchor, positive, negative = nn.functional.normalize(encoder(own), dim=-1)
        loss = contrast(anchor, positive, gather(negative), 0.1)
        return {"loss": loss, "attraction": (anchor * positive).sum(1).mean()}

    return loss_of_step


def fresh_anomaly_encoder(seed: int = 0) -> CausalEncoder:
    """The real encoder, small."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CausalEncoder(FEATURES, BLOCKS, 8, 16)


def real_objective(encoder: CausalEncoder, positives: Literal["near", "weights"]) -> LossOfStep:
    """The anomaly objective as `limpet train anomaly` has it: stage 1, absent channels and all."""
    rng, t = np.random.default_rng(0), np.arange(400)[:, None]
    samples = np.sin(t / [5.0, 9.0, 13.0]) + 0.3 * rng.standard_normal((400, FEATURES))
    rows = samples.astype(np.float32)
    rows[:, 2] = t[:, 0] // 25 % 2
    everything = np.ones(len(rows), bool)
    stretch = Stretch(rows, np.ones_like(rows), everything, everything)
    config = AnomalyConfig(batch=BATCH, positives=positives)
    batches = Batches([stretch], {2: np.float32([0.0, 1.0])}, config, BLOCKS)
    return lambda step, rng: batches.loss(encoder, rng, "cpu")


def everything_on_each_rank(encoder: nn.Module) -> LossOfStep:
    """An objective that compares all rows with all: each rank computes the whole loss."""

    def loss_of_step(step: int, rng: np.random.Generator) -> Tensor:
        drawn = torch.from_numpy(rng.standard_normal((BATCH, 5)).astype(np.float32))
        rows = gather(nn.functional.normalize(encoder(drawn[shard(BATCH)]), dim=-1))
        return torch.logsumexp(rows @ rows.T / 0.1, 1).mean()

    return loss_of_step


def navigation_step(folder: Path, objective: NavigationObjective) -> dict[str, Tensor]:
    """Loss and gradients of one step of an image encoder. Its statistics of a batch are fixed:
    each rank would take its own.
    """
    config = msgspec.structs.replace(navigation_frames.CONFIG, objective=objective)
    frames = open_frames(navigation_frames.write_pairs(folder), config.image)
    encoder = Encoder(config).eval()
    figures = NavigationBatches(frames, config).loss(encoder, np.random.default_rng(1), "cpu")
    figures["loss"].backward()  # type: ignore[no-untyped-call]
    average_gradients(encoder.parameters())
    found = average(figures)
    gradients = {name: weight.grad for name, weight in encoder.named_parameters()}
    return {
        **{name: torch.tensor(value) for name, value in found.items()},
        **{name: gradient for name, gradient in gradients.items() if gradient is not None},
    }


def main(folder: Path) -> None:
    """Runs every scene; the tests say what is to be seen."""
    own = folder / f"files-of-rank-{rank()}"
    results: dict[str, object] = {}
    tensors: dict[str, Tensor] = {}

    def weights(name: str, encoder: nn.Module) -> None:
        tensors.update({f"{name}/{key}": value for key, value in encoder.state_dict().items()})

    def run_folder(name: str) -> Path:
        """A RUN of rank 0; other ranks get one that is not there, and need none."""
        if rank() == 0:
            (own / name).mkdir(parents=True)
        return own / name

    with process_group():
        tensors["gathered"] = gather(torch.arange(6.0).view(6, 1)[shard(6)])
        rows = torch.full((2, 1), 1.0 + rank(), requires_grad=True)
        (gather(rows).square().sum() * (1 + rank())).backward()
        assert rows.grad is not None
        tensors["gradient"] = rows.grad
        halves = torch.full((1,), 1.5 + rank(), dtype=torch.bfloat16, requires_grad=True)
        gather(halves).sum().backward()
        assert halves.grad is not None
        tensors["gathered bf16"] = gather(halves.detach())
        results["gradient bf16"] = [str(halves.grad.dtype), halves.grad.tolist()]
        parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
        parameters[0].grad = torch.tensor([1.0, 3.0]) * (1 + rank())
        if rank() == 1:
            parameters[1].grad = torch.tensor([4.0, -4.0])
        average_gradients(parameters)
        results["gradients"] = [p.grad if p.grad is None else p.grad.tolist() for p in parameters]
        results["average"] = average({"x": torch.tensor(float(rank()))})
        results["any"] = [any_rank(rank() == 1), any_rank(False)]

        encoder = fresh_encoder(rank())
        with progress("training", STEPS) as report:
            results["loss"] = fit(
                encoder, contrastive(encoder), CONFIG, run_folder("whole"), report
            )
        weights("whole", encoder)

        encoder = fresh_encoder(rank())
        fit(encoder, everything_on_each_rank(encoder), CONFIG, run_folder("all-to-all"))
        weights("all-to-all", encoder)

        for positives in POSITIVES:
            name, real = f"real {positives}", fresh_anomaly_encoder(rank())
            fit(real, real_objective(real, positives), CONFIG, run_folder(name))
            weights(name, real)

        for objective in NAVIGATION:
            step = navigation_step(folder / f"pairs-{rank()}" / "pairs", objective)
            tensors.update({f"navigation {objective}/{key}": x for key, x in step.items()})

        def interrupt(step: int) -> None:
            if step == 4 and rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        encoder = fresh_encoder(rank())
        run = run_folder("interrupted")
        try:
            fit(encoder, contrastive(encoder, interrupt), CONFIG, run)
        except TrainingInterruptedError as error:
            results["interruption"] = error.message
        if rank() == 0:
            shutil.copytree(run, own / "handed over")
        encoder = fresh_encoder(rank() + 7)
        steps: list[int] = []
        fit(encoder, contrastive(encoder), CONFIG, run, lambda done, note: steps.append(done))
        results["resumed"] = steps
        weights("resumed", encoder)

        encoder = fresh_encoder(rank())
        broken = run_folder("broken")
        try:
            fit(
                encoder,
                lambda step, rng: encoder(torch.ones(1, 5)).sum() * (1.0, torch.nan)[rank()],
                CONFIG,
                broken,
            )
        except DataError as error:
            results["not finite"] = error.message

    save_file(tensors, folder / f"rank{rank()}.safetensors")
    (folder / f"rank{rank()}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
