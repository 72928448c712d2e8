"""The training loop: resumption, interruption, checkpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limpet.contracts.errors import DataError
from limpet.training.fit import FitConfig, TrainingInterruptedError, fit

STEPS = 12
CONFIG = FitConfig(
    steps=STEPS, learning_rate=0.1, weight_decay=0.01, seed=3, warm_up_steps=2,
    checkpoint_steps=5, log_steps=4,
)  # fmt: skip


class Killed(BaseException):
    """Ends training as abruptly as Python can."""


def fresh_model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))


def loss_of(model: nn.Module, step: int, rng: np.random.Generator) -> Tensor:
    x = torch.from_numpy(rng.standard_normal((8, 3)).astype(np.float32))
    loss: Tensor = (model(x) - x.sum(1, keepdim=True)).square().mean()
    return loss


def train(folder: Path, kill_at: int | None = None) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    model = fresh_model()

    def loss(step: int, rng: np.random.Generator) -> Tensor:
        if step == kill_at:
            raise Killed
        return loss_of(model, step, rng)

    fit(model, loss, CONFIG, folder)
    return model.state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[str]]:
    folder = tmp_path_factory.mktemp("whole")
    weights = train(folder)
    return weights, steps_logged(folder)


def steps_logged(folder: Path) -> list[str]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [f"{json.loads(line)['step']} {json.loads(line)['learning_rate']}" for line in lines]


@pytest.mark.parametrize("step", range(STEPS))
def test_a_run_killed_at_any_step_and_resumed_ends_with_the_same_bits(
    step: int, tmp_path: Path, uninterrupted: tuple[dict[str, Tensor], list[str]]
) -> None:
    with pytest.raises(Killed):
        train(tmp_path, kill_at=step)
    assert (tmp_path / "checkpoint.safetensors").exists() == (step >= CONFIG.checkpoint_steps)
    weights, logged = uninterrupted
    assert same(train(tmp_path), weights)
    assert steps_logged(tmp_path) == logged


def test_training_changes_the_weights_and_the_seed_matters(tmp_path: Path) -> None:
    trained = train(tmp_path)
    assert not same(trained, fresh_model().state_dict())
    other = fresh_model()
    other_config = FitConfig(**{**CONFIG.__dict__, "seed": 4})
    (tmp_path / "other").mkdir()
    fit(other, lambda step, rng: loss_of(other, step, rng), other_config, tmp_path / "other")
    assert not same(trained, other.state_dict())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_leaves_a_checkpoint_of_the_very_step(
    number: signal.Signals, tmp_path: Path, uninterrupted: tuple[dict[str, Tensor], list[str]]
) -> None:
    model = fresh_model()

    def loss(step: int, rng: np.random.Generator) -> Tensor:
        if step == 7:
            os.kill(os.getpid(), number)
        return loss_of(model, step, rng)

    before = signal.getsignal(number)
    with pytest.raises(TrainingInterruptedError, match="before step 8 of 12"):
        fit(model, loss, CONFIG, tmp_path)
    assert signal.getsignal(number) is before
    done: list[int] = []
    resumed = fresh_model()
    fit(
        resumed,
        lambda step, rng: loss_of(resumed, step, rng),
        CONFIG,
        tmp_path,
        lambda step, _: done.append(step),
    )
    assert done == [9, 10, 11, 12]
    assert same(resumed.state_dict(), uninterrupted[0])


ENDLESS = """
import sys, torch
from pathlib import Path
from torch import nn
from limpet.training.fit import FitConfig, fit
model = nn.Linear(2, 1)
config = FitConfig(
    steps=10**6, learning_rate=0.1, weight_decay=0.0, seed=0, checkpoint_steps=1, log_steps=1
)
fit(model, lambda step, rng: model(torch.ones(1, 2)).square().sum(), config, Path(sys.argv[1]))
"""


def test_a_process_killed_while_it_writes_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)])
    deadline = time.monotonic() + 60
    metrics = tmp_path / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 20:
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.kill()
    process.wait()
    model = nn.Linear(2, 1)
    config = FitConfig(steps=10**6, learning_rate=0.1, weight_decay=0.0, seed=0)
    reached: list[int] = []

    def stop_at_once(step: int, rng: np.random.Generator) -> Tensor:
        reached.append(step)
        raise Killed

    with pytest.raises(Killed):
        fit(model, stop_at_once, config, tmp_path)
    assert reached[0] >= 19


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, kill_at=6)
    model = nn.Linear(3, 2)
    with pytest.raises(DataError, match="no checkpoint of this model"):
        fit(model, lambda step, rng: model(torch.ones(1, 3)).sum(), CONFIG, tmp_path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header")
    with pytest.raises(DataError, match="no checkpoint of this model"):
        train(tmp_path)


def test_a_loss_that_is_not_finite_ends_training_with_an_error(tmp_path: Path) -> None:
    model = fresh_model()
    with pytest.raises(DataError, match="step 0: loss nan"):
        fit(model, lambda step, rng: loss_of(model, step, rng) * float("nan"), CONFIG, tmp_path)
