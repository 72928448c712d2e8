"""Two processes under torchrun do what one does; `two_ranks` is what each of them runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from limpet.contracts.errors import UsageError
from limpet.training import ranks
from limpet.training.distributed import average, check_device, gather, process_group, shard
from limpet.training.fit import fit
from limpet.training.run import RunFolder, RunRecord, check_out, open_run
from tests.training.two_ranks import (
    BATCH,
    CONFIG,
    NAVIGATION,
    POSITIVES,
    STEPS,
    NavigationObjective,
    contrastive,
    everything_on_each_rank,
    fresh_anomaly_encoder,
    fresh_encoder,
    navigation_step,
    real_objective,
)

REPOSITORY = Path(__file__).resolve().parents[2]

# One process adds up a batch in another order than two do.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}
REAL = [f"real {positives}" for positives in POSITIVES]


def torchrun(*program: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in two processes, which meet on a port that the system picks."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", *program),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "error",
            # The program takes `tests` from here.
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        },
    )


@dataclass(frozen=True)
class Ranks:
    """What two ranks came to: their results, tensors and files, and what they printed."""

    results: list[dict[str, Any]]
    tensors: list[dict[str, Tensor]]
    files: list[Path]
    errors: str

    def weights(self, rank: int, scene: str) -> dict[str, Tensor]:
        start = f"{scene}/"
        tensors = self.tensors[rank].items()
        return {name.removeprefix(start): t for name, t in tensors if name.startswith(start)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(Path(__file__).with_name("two_ranks.py"), folder)
    assert done.returncode == 0, done.stderr
    return Ranks(
        results=[json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)],
        tensors=[load_file(folder / f"rank{rank}.safetensors") for rank in (0, 1)],
        files=[folder / f"files-of-rank-{rank}" for rank in (0, 1)],
        errors=done.stderr,
    )


@dataclass(frozen=True)
class Single:
    """What a single process came to."""

    loss: float
    weights: dict[str, Tensor]
    lines: list[dict[str, float]]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Single:
    folder = tmp_path_factory.mktemp("one")
    encoder = fresh_encoder()
    loss = fit(encoder, contrastive(encoder), CONFIG, folder)
    return Single(loss, encoder.state_dict(), lines(folder))


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], **ROUNDING)


def test_two_ranks_have_the_losses_of_a_single_process_on_the_same_global_batches(
    two: Ranks, one: Single
) -> None:
    found = lines(two.files[0] / "whole")
    assert len(found) == len(one.lines) == STEPS
    for figure in ("loss", "attraction", "learning_rate"):
        assert [line[figure] for line in found] == pytest.approx(
            [line[figure] for line in one.lines], rel=1e-4
        )
    assert [results["loss"] for results in two.results] == pytest.approx([one.loss] * 2, rel=1e-4)


def test_two_ranks_end_with_the_weights_of_a_single_process(two: Ranks, one: Single) -> None:
    moved = [
        float((value - one.weights[name]).abs().max())
        for name, value in fresh_encoder().state_dict().items()
    ]
    assert min(moved) > 0.01  # so that the comparison says something
    assert_close(two.weights(0, "whole"), one.weights)


@pytest.mark.parametrize("scene", ["whole", "all-to-all", "resumed", *REAL])
def test_both_ranks_hold_the_same_bits(two: Ranks, scene: str) -> None:
    first, second = two.weights(0, scene), two.weights(1, scene)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_loss_of_all_gathered_rows_on_each_rank_is_descended_as_by_a_single_process(
    two: Ranks, tmp_path: Path
) -> None:
    encoder = fresh_encoder()
    fit(encoder, everything_on_each_rank(encoder), CONFIG, tmp_path)
    assert_close(two.weights(0, "all-to-all"), encoder.state_dict())


@pytest.mark.parametrize("positives", POSITIVES)
def test_two_ranks_train_the_anomaly_encoder_as_a_single_process_does(
    two: Ranks, tmp_path: Path, positives: Literal["near", "weights"]
) -> None:
    encoder = fresh_anomaly_encoder()
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    fit(encoder, real_objective(encoder, positives), CONFIG, tmp_path)
    found, wanted = lines(two.files[0] / f"real {positives}"), lines(tmp_path)
    assert len(found) == len(wanted) == STEPS
    for figure in ("loss", "positive_cosine", "pseudo_on_target"):
        assert [line[figure] for line in found] == pytest.approx(
            [line[figure] for line in wanted], rel=1e-3
        )
    weights = encoder.state_dict()
    assert min(float((weights[name] - before[name]).abs().max()) for name in weights) > 0.01
    assert_close(two.weights(0, f"real {positives}"), weights)


def test_gathered_rows_are_in_the_order_of_the_batch(two: Ranks) -> None:
    for tensors in two.tensors:
        assert tensors["gathered"].flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert tensors["gathered bf16"].dtype == torch.bfloat16
        assert tensors["gathered bf16"].tolist() == [1.5, 2.5]


def test_the_gradient_of_a_row_is_what_all_ranks_losses_say_of_it(two: Ranks) -> None:
    # Rank q's loss is (q + 1) Σ x², so a row x gets (1 + 2) · 2x: it is 1 on rank 0, 2 on rank 1.
    assert two.tensors[0]["gradient"].tolist() == [[6.0], [6.0]]
    assert two.tensors[1]["gradient"].tolist() == [[12.0], [12.0]]
    assert [r["gradient bf16"] for r in two.results] == [["torch.bfloat16", [2.0]]] * 2


def test_gradients_are_averaged_where_any_rank_has_one_and_stay_none_elsewhere(two: Ranks) -> None:
    for results in two.results:
        assert results["gradients"] == [[1.5, 4.5], [2.0, -2.0], None]


def test_figures_are_averaged_and_flags_are_joined(two: Ranks) -> None:
    for results in two.results:
        assert results["average"] == {"x": 0.5}
        assert results["any"] == [True, False]


def test_a_signal_to_one_rank_stops_both_before_the_same_step(two: Ranks) -> None:
    for results in two.results:
        assert results["interruption"].startswith(f"interrupted before step 5 of {STEPS}")
    assert two.results[0]["resumed"] == [6, 7, 8]


def test_an_interrupted_run_resumes_on_two_ranks_to_the_same_bits(two: Ranks) -> None:
    whole, resumed = two.weights(0, "whole"), two.weights(0, "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_begun_on_two_ranks_goes_on_in_a_single_process(
    two: Ranks, one: Single, tmp_path: Path
) -> None:
    run = shutil.copytree(two.files[0] / "handed over", tmp_path / "run")
    encoder = fresh_encoder(9)
    steps: list[int] = []
    fit(encoder, contrastive(encoder), CONFIG, run, lambda done, note: steps.append(done))
    assert steps == [6, 7, 8]
    assert_close(encoder.state_dict(), one.weights)


def test_rank_0_alone_writes_files_and_shows_progress(two: Ranks) -> None:
    files = sorted(file.name for file in (two.files[0] / "whole").iterdir())
    assert files == ["checkpoint.safetensors", "metrics.jsonl", "tensorboard"]
    assert not two.files[1].exists()
    assert two.results[1]["resumed"] == []
    assert two.errors.count(f"training {STEPS}/{STEPS}") == 1


def test_a_loss_that_is_not_finite_on_one_rank_ends_both_with_the_error(two: Ranks) -> None:
    for results in two.results:
        assert results["not finite"].startswith("step 0: loss nan")


def test_the_command_trains_under_torchrun_to_the_weights_of_a_single_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from limpet.training.commands.train import command

    monkeypatch.chdir(tmp_path)
    np.savetxt("pump.csv", np.random.default_rng(0).standard_normal((1500, 2)), delimiter=",")
    Path("tiny.toml").write_text("steps = 4\nbatch = 8\nblocks = 3\nbank_frames = 64\nwidth = 8\n")
    line = ["anomaly", "--data", "pump.csv", "--rate-hz", "1", "--config", "tiny.toml", "--out"]
    single = CliRunner().invoke(command, [*line, "one"])
    assert single.exit_code == 0, single.output
    limpet = Path(sys.executable).with_name("limpet")
    done = torchrun("--no-python", limpet, "train", *line, "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: limpet export") == 1
    assert RunFolder(Path("two")).read().complete
    assert sorted(os.listdir("two")) == sorted(os.listdir("one"))
    trained, wanted = (load_file(f"{run}/weights.safetensors") for run in ("two", "one"))
    banks = [
        (tensors.pop("embedding_bank.members"), tensors.pop("embedding_bank.scale"))
        for tensors in (trained, wanted)
    ]
    assert_close(trained, wanted)
    # A frame between two centres goes to either by a rounding error, and moves both.
    (members, scale), (wanted_members, wanted_scale) = banks
    torch.testing.assert_close(scale, wanted_scale, rtol=0.02, atol=0.0)
    apart = torch.cdist(members, wanted_members).amin(1).square() / members.shape[1]
    assert float(apart.median()) < 0.1 * float(scale)


@pytest.fixture
def as_rank_1_of_2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ranks.VARIABLES:
        monkeypatch.setenv(name, {"WORLD_SIZE": "2"}.get(name, "1"))


def test_a_single_process_is_rank_0_of_1_and_everything_is_the_identity() -> None:
    rows = torch.ones(3, 2)
    with process_group():
        assert (ranks.rank(), ranks.world(), ranks.leads()) == (0, 1, True)
        assert shard(BATCH) == slice(0, BATCH)
        assert gather(rows) is rows
        assert average({"x": torch.tensor(2.0)}) == {"x": 2.0}
        assert not torch.distributed.is_initialized()


def test_some_of_the_variables_are_not_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (ranks.rank(), ranks.world()) == (0, 1)


@pytest.mark.usefixtures("as_rank_1_of_2")
def test_shards_are_the_consecutive_halves_of_a_batch_and_an_odd_one_is_refused() -> None:
    assert shard(10) == slice(5, 10)
    with pytest.raises(UsageError, match="11 rows does not divide among 2 ranks") as caught:
        shard(11)
    assert "take 10 or 12 rows" in caught.value.hint


@pytest.mark.usefixtures("as_rank_1_of_2")
def test_a_model_on_another_ranks_gpu_is_refused() -> None:
    check_device(torch.device("cpu"))
    check_device(torch.device("cuda", 1))
    with pytest.raises(UsageError, match="of rank 1 is on cuda:0, wanted cuda:1"):
        check_device(torch.device("cuda", 0))


@pytest.mark.usefixtures("as_rank_1_of_2")
def test_rank_1_neither_checks_nor_writes_a_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    check_out(tmp_path, resume=False, force=False)
    folder = open_run(tmp_path / "run", RunRecord(kind="anomaly"), resume=False, force=False)
    folder.write("weights.safetensors", b"")
    folder.remove_checkpoint()
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("objective", NAVIGATION)
def test_an_image_encoder_s_step_compares_the_frames_of_all_ranks(
    two: Ranks, tmp_path: Path, objective: NavigationObjective
) -> None:
    alone = navigation_step(tmp_path / "pairs", objective)
    for rank in (0, 1):
        assert_close(two.weights(rank, f"navigation {objective}"), alone)
