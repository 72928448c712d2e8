"""The training loop: resumption, interruption, checkpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

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


Logged = list[dict[str, Any]]


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


def train(
    folder: Path, kill_at: int | None = None, config: FitConfig = CONFIG
) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    model = fresh_model()

    def loss(step: int, rng: np.random.Generator) -> Tensor:
        if step == kill_at:
            raise Killed
        return loss_of(model, step, rng)

    fit(model, loss, config, folder)
    return model.state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Logged]:
    folder = tmp_path_factory.mktemp("whole")
    weights = train(folder)
    return weights, logged(folder)


def logged(folder: Path) -> Logged:
    """Lines of `metrics.jsonl` without the time they took."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if name != "seconds"} for line in lines]


@pytest.mark.parametrize("step", range(STEPS))
def test_a_run_killed_at_any_step_and_resumed_ends_with_the_same_bits(
    step: int, tmp_path: Path, uninterrupted: tuple[dict[str, Tensor], Logged]
) -> None:
    with pytest.raises(Killed):
        train(tmp_path, kill_at=step)
    assert (tmp_path / "checkpoint.safetensors").exists() == (step >= CONFIG.checkpoint_steps)
    weights, lines = uninterrupted
    assert same(train(tmp_path), weights)
    assert logged(tmp_path) == lines


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_resumes_to_the_same_bits_too(
    precision: Literal["bf16", "fp16"], tmp_path: Path
) -> None:
    config = replace(CONFIG, precision=precision)
    weights = train(tmp_path / "whole", config=config)
    for step in (7, 11):
        with pytest.raises(Killed):
            train(tmp_path / "killed", kill_at=step, config=config)
    assert same(train(tmp_path / "killed", config=config), weights)
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")
    if precision == "fp16":  # otherwise no scale had to be restored
        assert logged(tmp_path / "whole")[-1]["loss_scale"] < 2.0**16


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_layers_compute_in_the_chosen_precision_and_weights_stay_single(
    precision: Literal["fp32", "bf16", "fp16"], dtype: torch.dtype, tmp_path: Path
) -> None:
    model = fresh_model()
    seen: set[torch.dtype] = set()

    def loss(step: int, rng: np.random.Generator) -> Tensor:
        output = model(torch.from_numpy(rng.standard_normal((8, 3)).astype(np.float32)))
        seen.add(output.dtype)
        squared: Tensor = (output.float() - 1.0).square().mean()
        return squared

    final = fit(model, loss, replace(CONFIG, precision=precision), tmp_path)
    assert seen == {dtype}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert final < logged(tmp_path)[0]["loss"]


def test_a_gradient_that_no_scale_brings_into_fp16_ends_training_with_an_error(
    tmp_path: Path,
) -> None:
    model = fresh_model()
    config = replace(CONFIG, steps=30, precision="fp16")
    with pytest.raises(DataError, match=r"step 16: loss 0, .* gradient nan"):
        # The root's slope at 0 is infinite; the scale starts at 2**16 and is halved each time.
        fit(model, lambda step, rng: (model(torch.ones(1, 3)) * 0).sum().sqrt(), config, tmp_path)


def test_dropout_and_running_statistics_resume_to_the_same_bits(tmp_path: Path) -> None:
    def run(folder: Path, kill_at: int | None) -> dict[str, Tensor]:
        folder.mkdir(exist_ok=True)
        model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), fresh_model())

        def loss(step: int, rng: np.random.Generator) -> Tensor:
            if step == kill_at:
                raise Killed
            return loss_of(model, step, rng)

        before = torch.random.get_rng_state()
        try:
            fit(model, loss, CONFIG, folder)
        finally:
            assert torch.equal(torch.random.get_rng_state(), before)
        return model.state_dict()

    torch.manual_seed(1)
    whole = run(tmp_path / "whole", None)
    with pytest.raises(Killed):
        run(tmp_path / "killed", 8)
    torch.manual_seed(2)
    assert same(run(tmp_path / "killed", None), whole)


def test_training_changes_the_weights_and_the_seed_matters(tmp_path: Path) -> None:
    trained = train(tmp_path)
    assert not same(trained, fresh_model().state_dict())
    other = fresh_model()
    other_config = replace(CONFIG, seed=4)
    (tmp_path / "other").mkdir()
    fit(other, lambda step, rng: loss_of(other, step, rng), other_config, tmp_path / "other")
    assert not same(trained, other.state_dict())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_leaves_a_checkpoint_of_the_very_step(
    number: signal.Signals, tmp_path: Path, uninterrupted: tuple[dict[str, Tensor], Logged]
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


def test_a_checkpoint_of_other_shapes_is_refused_even_where_they_would_stretch(
    tmp_path: Path,
) -> None:
    with pytest.raises(Killed):
        train(tmp_path, kill_at=6)
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 5))
    with pytest.raises(DataError, match=r"2.weight is \[1, 4\], wanted \[5, 4\]"):
        fit(model, lambda step, rng: model(torch.ones(1, 3)).sum(), CONFIG, tmp_path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header")
    with pytest.raises(DataError, match="no checkpoint of this model"):
        train(tmp_path)


def test_a_loss_that_is_not_finite_ends_training_with_an_error(tmp_path: Path) -> None:
    model = fresh_model()
    with pytest.raises(DataError, match="step 0: loss nan"):
        fit(model, lambda step, rng: loss_of(model, step, rng) * float("nan"), CONFIG, tmp_path)


def test_an_objective_may_log_figures_beside_its_loss(tmp_path: Path) -> None:
    model = fresh_model()

    def figures(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        return {"loss": loss_of(model, step, rng), "step squared": torch.tensor(step**2)}

    final = fit(model, figures, CONFIG, tmp_path)
    lines = logged(tmp_path)
    assert [*lines[0]] == ["step", "loss", "step squared", "learning_rate"]
    assert [line["step squared"] for line in lines] == [3.5, 31.5, 91.5]  # means of four steps
    assert lines[-1]["loss"] == final


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([["total"]], r"step 0 has figures \['total'\], wanted `loss` and none of"),
        ([["loss", "seconds"]], r"none of \['learning_rate', 'loss_scale', 'seconds', 'step'\]"),
        ([["loss", "a"], ["loss"]], r"step 1 has figures \['loss'\], the last had \['loss', 'a'\]"),
    ],
)
def test_figures_with_wrong_names_are_refused(
    names: list[list[str]], message: str, tmp_path: Path
) -> None:
    model = fresh_model()
    with pytest.raises(ValueError, match=message):
        fit(
            model,
            lambda step, rng: dict.fromkeys(names[step], loss_of(model, step, rng)),
            CONFIG,
            tmp_path,
        )
