"""The training loop: seeded steps, checkpoints, resumption, orderly interruption.

All randomness of a step follows from (seed, step), and a checkpoint holds weights and optimiser
in full, so a run that was killed at any moment ends with the same bits as one that was not, on the
same machine with the same number of threads.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from limpet.contracts.errors import DataError, LimpetError
from limpet.training.progress import Report
from limpet.training.run import CHECKPOINT, METRICS, write_whole

LossOfStep = Callable[[int, np.random.Generator], Tensor]
"""Takes the step and a generator seeded for it; gives the loss to descend."""


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
        warm_up_steps: Steps until the peak rate.
        clip_norm: Longest gradient that is followed at its full length.
        checkpoint_steps: Steps from one checkpoint to the next.
        log_steps: Steps from one line of `metrics.jsonl` to the next.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    seed: int
    warm_up_steps: int = 50
    clip_norm: float = 5.0
    checkpoint_steps: int = 200
    log_steps: int = 20

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        rise = min(1.0, (step + 1) / self.warm_up_steps)
        return self.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))


def fit(
    model: nn.Module,
    loss_of_step: LossOfStep,
    config: FitConfig,
    folder: Path,
    report: Report = lambda done, note: None,
) -> float:
    """Trains a model in place, from the folder's checkpoint if there is one.

    Args:
        model: Its parameters are trained.
        loss_of_step: The loss.
        config: How to descend.
        folder: Gets `checkpoint.safetensors` and `metrics.jsonl`.
        report: Called after each step.

    Returns:
        Mean loss of the last `log_steps` steps.

    Raises:
        TrainingInterruptedError: SIGINT or SIGTERM arrived; the checkpoint is written.
        DataError: The checkpoint is damaged or of another model, or the loss is not finite.
    """
    checkpoint, metrics = folder / CHECKPOINT, folder / METRICS
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    start = _load(checkpoint, parameters, optimizer) if checkpoint.exists() else 0
    _forget_after(metrics, start)
    recent: list[float] = []
    began = time.monotonic()
    model.train()
    with _stop_requests() as stop, metrics.open("a", encoding="utf-8") as log:
        for step in range(start, config.steps):
            if stop.is_set():
                _save(checkpoint, step, parameters, optimizer)
                raise TrainingInterruptedError(
                    f"interrupted before step {step} of {config.steps}, which {checkpoint} resumes",
                    "repeat the command with --resume",
                )
            rate = config.rate_at(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = loss_of_step(step, np.random.default_rng([config.seed, step]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters.values(), config.clip_norm)
            if not bool(torch.isfinite(norm)):
                raise DataError(
                    f"step {step}: loss {float(loss.detach())} has a gradient that is not finite",
                    "lower learning_rate, or look for extreme values in the data",
                )
            optimizer.step()
            recent = [*recent[-(config.log_steps - 1) :], float(loss.detach())]
            done = step + 1
            if done % config.log_steps == 0 or done == config.steps:
                line = {
                    "step": done,
                    "loss": sum(recent) / len(recent),
                    "learning_rate": rate,
                    "seconds": round(time.monotonic() - began, 3),
                }
                log.write(json.dumps(line) + "\n")
                log.flush()
            if done % config.checkpoint_steps == 0 or done == config.steps:
                _save(checkpoint, done, parameters, optimizer)
            report(done, f"loss {sum(recent) / len(recent):.3f}")
    model.eval()
    return sum(recent) / len(recent) if recent else _last_loss(metrics)


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


def _save(
    path: Path, step: int, parameters: dict[str, nn.Parameter], optimizer: torch.optim.AdamW
) -> None:
    tensors = {f"model/{name}": value.detach().cpu() for name, value in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer/{name}/{key}"] = value.detach().cpu()
    write_whole(path, save(tensors, metadata={"step": str(step)}))


def _load(path: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.AdamW) -> int:
    """Restores weights and optimiser; returns the step to go on with."""
    try:
        tensors = load_file(path)
        step = int(_metadata(path)["step"])
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors.pop(f"model/{name}"))
        for key, value in tensors.items():
            name, _, slot = key.removeprefix("optimizer/").rpartition("/")
            parameter = parameters[name]
            where = "cpu" if slot == "step" else parameter.device
            optimizer.state[parameter][slot] = value.to(where)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{path} is no checkpoint of this model: {error}", "begin anew with --force"
        ) from error
    return step


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _forget_after(metrics: Path, step: int) -> None:
    """Drops lines of steps that will be done again, and half a line of a kill."""
    if not metrics.exists():
        return
    kept = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            done = int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            break
        if done > step:
            break
        kept.append(line)
    write_whole(metrics, "".join(f"{line}\n" for line in kept).encode())


def _last_loss(metrics: Path) -> float:
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    return float(json.loads(lines[-1])["loss"]) if lines else math.nan
