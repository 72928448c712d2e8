"""The training loop of every encoder: seeded steps, checkpoints, resumption, orderly interruption.

All randomness of a step follows from (seed, step), and a checkpoint holds all that a step changes,
so a run that was killed at any moment ends with the same bits as one that was not, on the same
machine with the same number of threads. Under `torchrun` the ranks descend together; how an
objective shares its batch among them is told in `limpet.training.distributed`.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor, nn

from limpet.contracts.errors import DataError, ImpossibleHereError, LimpetError
from limpet.training.checkpoint import Checkpoint
from limpet.training.distributed import (
    any_rank,
    average,
    average_gradients,
    check_device,
    process_group,
)
from limpet.training.encoder_config import EncoderConfig, Precision
from limpet.training.metrics_log import metrics_log
from limpet.training.progress import Report, progress
from limpet.training.ranks import leads, rank
from limpet.training.run import CHECKPOINT, RunFolder

Loss = Tensor | Mapping[str, Tensor]
"""The loss to descend, or scalars by name: `loss`, which is descended, and others to be logged."""

LossOfStep = Callable[[int, np.random.Generator], Loss]
"""Takes the step and a generator seeded for it, the same on every rank; gives this rank's loss.

It is called under autocast. A loss that needs single precision leaves it for its own arithmetic:
`with torch.autocast(device, enabled=False)`.
"""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

RESERVED = {"step", "learning_rate", "loss_scale", "seconds"}
"""What a line of `metrics.jsonl` holds beside the figures that an objective gives."""


class TrainingInterruptedError(LimpetError):
    """Training was told to stop (SIGINT or SIGTERM) and left a checkpoint."""

    exit_code = 130


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to descend.

    Attributes:
        steps: Training steps.
        learning_rate: AdamW's peak rate; rises linearly, falls to zero as a cosine.
        weight_decay: AdamW's weight decay.
        seed: Seed of the steps' randomness.
        precision: What matrix products and convolutions are computed in; weights stay fp32.
        warm_up_steps: Steps until the peak rate.
        clip_norm: Longest gradient that is followed at its full length.
        checkpoint_steps: Steps from one checkpoint to the next.
        log_steps: Steps from one line of `metrics.jsonl` to the next.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    seed: int
    precision: Precision = "fp32"
    warm_up_steps: int = 50
    clip_norm: float = 5.0
    checkpoint_steps: int = 200
    log_steps: int = 20

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        rise = min(1.0, (step + 1) / self.warm_up_steps)
        return self.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))


def check_gpu(device: str) -> None:
    """Raises `ImpossibleHereError` where a GPU is asked for and PyTorch has none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ImpossibleHereError(
            "device cuda: this machine has no GPU that PyTorch can use", "take --device cpu"
        )


def fit_encoder(
    model: nn.Module, loss_of_step: LossOfStep, config: EncoderConfig, folder: RunFolder, name: str
) -> float:
    """Trains a model in place as an encoder's configuration says, and shows how far it is.

    Args:
        model: As in `fit`, and so are returned value and errors.
        loss_of_step: The loss.
        config: The encoder's whole configuration.
        folder: The RUN to train into.
        name: Of the data, to be shown.
    """
    descent = FitConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
        precision=config.precision,
    )
    with progress(f"training on {name}", config.steps) as report:
        return fit(model, loss_of_step, descent, folder.path, report)


def fit(
    model: nn.Module,
    loss_of_step: LossOfStep,
    config: FitConfig,
    folder: Path,
    report: Report = lambda done, note: None,
) -> float:
    """Trains a model in place, from the folder's checkpoint if there is one.

    Args:
        model: Its parameters are trained, on the device where they are.
        loss_of_step: The loss.
        config: How to descend.
        folder: Gets `checkpoint.safetensors`, `metrics.jsonl` and `tensorboard/`, from rank 0.
        report: Called after each step, on rank 0.

    Returns:
        Mean loss of the last `log_steps` steps.

    Raises:
        TrainingInterruptedError: SIGINT or SIGTERM arrived on any rank; the checkpoint is written.
        DataError: The checkpoint is damaged or of another model, or the loss is not finite.
        UsageError: The ranks do not fit together.
        ValueError: The figures of a step have wrong names.
    """
    device = next(model.parameters()).device
    check_device(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    autocast = torch.autocast(
        device.type, DTYPES[config.precision], enabled=config.precision != "fp32"
    )
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    recent: deque[Mapping[str, float]] = deque(maxlen=config.log_steps)
    checkpoint = Checkpoint(
        path=folder / CHECKPOINT, model=model, optimizer=optimizer, scaler=scaler, recent=recent
    )
    model.train()
    with process_group(), _own_randomness(device), _stop_requests() as stop:
        start = checkpoint.restore()
        with metrics_log(folder, start) as log:
            for step in range(start, config.steps):
                if any_rank(stop.is_set()):  # so that all ranks stop before the same step
                    checkpoint.save(step)
                    raise TrainingInterruptedError(
                        f"interrupted before step {step} of {config.steps}, "
                        f"which {checkpoint.path} resumes",
                        "repeat the command with --resume",
                    )
                rate = config.rate_at(step)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                _seed_torch(device, config.seed, step)
                with autocast:
                    rng = np.random.default_rng([config.seed, step])
                    parts = _parts(step, loss_of_step(step, rng), recent)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(parts["loss"]).backward()  # type: ignore[no-untyped-call]
                average_gradients(model.parameters())  # from here on the ranks do the same
                scaler.unscale_(optimizer)
                norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
                recent.append(average(parts))
                _check_finite(step, recent[-1]["loss"], float(norm), scaler)
                scaler.step(optimizer)
                scaler.update()
                done, means = step + 1, _means(recent)
                if done % config.log_steps == 0 or done == config.steps:
                    scale = {"loss_scale": scaler.get_scale()} if scaler.is_enabled() else {}
                    log(done, {**means, "learning_rate": rate, **scale})
                if done % config.checkpoint_steps == 0 or done == config.steps:
                    checkpoint.save(done)
                if leads():
                    report(done, f"loss {means['loss']:.3f}")
    model.eval()
    return _means(recent)["loss"]


def _parts(step: int, loss: Loss, recent: Sequence[Mapping[str, float]]) -> Mapping[str, Tensor]:
    parts = loss if isinstance(loss, Mapping) else {"loss": loss}
    if "loss" not in parts or RESERVED & parts.keys():
        raise ValueError(
            f"step {step} has figures {[*parts]}, wanted `loss` and none of {sorted(RESERVED)}"
        )
    if recent and parts.keys() != recent[-1].keys():
        raise ValueError(f"step {step} has figures {[*parts]}, the last had {[*recent[-1]]}")
    return parts


def _means(recent: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in recent) / len(recent) for name in recent[-1]}


def _check_finite(step: int, loss: float, norm: float, scaler: torch.amp.GradScaler) -> None:
    """A gradient that overflows in fp16 is skipped by the scaler, while there is scale to take."""
    if not math.isfinite(loss) or not (math.isfinite(norm) or scaler.get_scale() > 1.0):
        raise DataError(
            f"step {step}: loss {loss:g}, length of its gradient {norm:g}, wanted finite ones",
            "lower learning_rate, look for extreme values in the data, or take another precision",
        )


@contextlib.contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Leaves torch's own generators to the caller as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def _seed_torch(device: torch.device, seed: int, step: int) -> None:
    """Seeds what a model draws itself (dropout); ranks draw for different rows.

    `torch.manual_seed` would format three stack traces a step where CUDA is not used.
    """
    sequence = np.random.SeedSequence([seed, step, rank()])
    (start,) = sequence.generate_state(1, np.uint64).tolist()
    torch.default_generator.manual_seed(start)
    if device.type == "cuda":
        torch.cuda.manual_seed(start)


@contextlib.contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal acts as it did before."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number: int, frame: FrameType | None) -> None:
        stop.set()
        restore()

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()
