"""`limpet train anomaly` as a function: from a path to a RUN."""

from __future__ import annotations

import io
import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from safetensors.torch import save

from limpet.contracts.errors import ImpossibleHereError
from limpet.contracts.manifest import Calibration
from limpet.contracts.recordings import load_recordings
from limpet.contracts.signals import Float32
from limpet.training.anomaly.calibration import calibrate
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.data import TrainingData, Windows, prepare_training
from limpet.training.anomaly.evaluation import auroc
from limpet.training.anomaly.injection import inject
from limpet.training.anomaly.model import AnomalyScorer, build_scorer
from limpet.training.anomaly.objective import Batches
from limpet.training.distributed import process_group
from limpet.training.fit import FitConfig, fit
from limpet.training.progress import progress
from limpet.training.run import (
    SAMPLE,
    WEIGHTS,
    RunFolder,
    RunRecord,
    check_out,
    library_versions,
    now,
    open_run,
    source_commit,
)
from limpet.training.threads import one_thread

MOST_PROBES = 2048


class AnomalyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What training came to; the keys of `limpet train anomaly --json`.

    Attributes:
        run: The RUN folder.
        channels: Names of the channels. (c,)
        left_out: Columns that are no channels, each with the reason.
        rate_hz: Sampling rate.
        fit_windows: Windows that were learnt from.
        calibration: Thresholds, false-alarm rate, held-out rows.
        metrics: Measured figures.
        warnings: What was odd.
        seconds: Time it took, all in all.
    """

    run: str
    channels: list[str]
    left_out: list[str]
    rate_hz: float
    fit_windows: int
    calibration: Calibration
    metrics: dict[str, float]
    warnings: list[str]
    seconds: float


@process_group()
def train_anomaly(
    data: Path | str,
    out: Path | str,
    config: AnomalyConfig | None = None,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    key: str | None = None,
    ignore: Collection[str] = (),
    rate_hz: float | None = None,
    label: str | None = None,
    train_rows: int | None = None,
    resume: bool = False,
    force: bool = False,
    command: str = "",
) -> AnomalyReport:
    """Trains an anomaly encoder on recordings of normal operation and writes a RUN.

    Args:
        data: A recording or a folder of them.
        out: The RUN folder to write.
        config: What can be chosen; defaults where None.
        device: Where to train. Calibration always runs on the CPU.
        key: Array of an npz.
        ignore: Columns that are no channels.
        rate_hz: Sampling rate where the data has none.
        label: Label column, which is left out.
        train_rows: Uses only the first so many rows.
        resume: Goes on with an interrupted run.
        force: Replaces a run.
        command: The command line, for the record.

    Raises:
        DataError: The recordings cannot be read, or are too few.
        UsageError: `out` may not be written.
        ImpossibleHereError: `device` is not there.
        TrainingInterruptedError: SIGINT or SIGTERM arrived.
    """
    began = time.monotonic()
    config = config or AnomalyConfig()
    if device == "cuda" and not torch.cuda.is_available():
        raise ImpossibleHereError(
            "device cuda: this machine has no GPU that PyTorch can use", "take --device cpu"
        )
    check_out(Path(out), resume=resume, force=force)
    recordings = load_recordings(data, key=key, ignore=ignore, rate_hz=rate_hz, label=label)
    prepared = prepare_training(recordings, Path(data).name, config, train_rows)
    record = RunRecord(
        kind="anomaly",
        command=command,
        created=now(),
        commit=source_commit(),
        config=msgspec.to_builtins(config),
        seed=config.seed,
        data=prepared.digests,
        preprocessing=prepared.preprocessing,
        warnings=list(prepared.warnings),
        versions=library_versions("limpet", "numpy", "torch", "safetensors"),
    )
    folder = open_run(out, record, resume=resume, force=force)
    with one_thread():
        scorer, loss = _train(prepared, config, device, folder)
        scores = score_windows(scorer, prepared.held_out.values)
        calibration, warnings = calibrate(scores, config.false_alarm_rate, prepared.name)
        metrics = {"loss": loss, **_measure(scorer, prepared, config)}
    complete = msgspec.structs.replace(
        record,
        complete=True,
        calibration=calibration,
        metrics=metrics,
        warnings=[*record.warnings, *warnings],
    )
    _finish(folder, scorer, prepared, complete)
    return AnomalyReport(
        run=str(folder.path),
        channels=prepared.preprocessing.channels,
        left_out=list(prepared.left_out),
        rate_hz=prepared.preprocessing.rate_hz,
        fit_windows=len(prepared.fit),
        calibration=calibration,
        metrics=metrics,
        warnings=complete.warnings,
        seconds=round(time.monotonic() - began, 3),
    )


@torch.no_grad()
def score_windows(scorer: AnomalyScorer, windows: Float32, batch: int = 512) -> Float32:
    """Scores prepared windows (m, w, c) → (m,)."""
    scores = [
        scorer(torch.from_numpy(np.ascontiguousarray(windows[start : start + batch])))[1].numpy()
        for start in range(0, len(windows), batch)
    ]
    return np.concatenate([np.empty(0, np.float32), *scores])


def _train(
    data: TrainingData, config: AnomalyConfig, device: str, folder: RunFolder
) -> tuple[AnomalyScorer, float]:
    members = _spread_out(data.fit, config.bank_windows)
    scorer = build_scorer(config, len(data.preprocessing.channels), len(members))
    encoder = scorer.encoder.to(device)
    batches = Batches(data.fit.values, data.fit.stretch, config)
    descent = FitConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    with progress(f"training on {data.name}", config.steps) as report:
        loss = fit(
            encoder,
            lambda step, rng: batches.loss(encoder, rng, device),
            descent,
            folder.path,
            report,
        )
    scorer.cpu().eval()
    probes = _spread_out(data.fit, MOST_PROBES)
    apart = np.abs(data.fit.ends[probes][:, None] - data.fit.ends[members][None, :])  # (p, k)
    scorer.fill_bank(
        torch.from_numpy(data.fit.values[members]),
        torch.from_numpy(data.fit.values[probes]),
        torch.from_numpy(apart < config.window_rows),
    )
    return scorer, loss


def _spread_out(windows: Windows, most: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Indices of at most so many windows, evenly over time."""
    return np.linspace(0, len(windows) - 1, min(most, len(windows))).astype(np.intp)


def _measure(scorer: AnomalyScorer, data: TrainingData, config: AnomalyConfig) -> dict[str, float]:
    """AUROC of injected against untouched held-out windows, the plain window distance beside it.

    The kinds of anomaly are those that training injected, so this says that training worked, not
    how well real faults are found.
    """
    normal = data.held_out.values[_spread_out(data.held_out, MOST_PROBES)]
    anomalous = inject(
        normal,
        data.fit.values,
        np.random.default_rng([config.seed, config.steps]),
        weakest=config.weakest,
        strongest=config.strongest,
    ).clip(-config.clip, config.clip)
    both = np.concatenate([normal, anomalous])
    truth = np.repeat([False, True], [len(normal), len(anomalous)])
    flat = []
    with torch.no_grad():
        for start in range(0, len(both), 512):
            window = torch.from_numpy(both[start : start + 512])
            flat.append(scorer.distance("window", window.flatten(1)).numpy())
    where = f"{data.name} held-out, injected anomalies:"
    return {
        f"{where} auroc": auroc(score_windows(scorer, both), truth),
        f"{where} auroc of raw-window kNN": auroc(np.concatenate(flat), truth),
    }


def _finish(
    folder: RunFolder, scorer: AnomalyScorer, data: TrainingData, record: RunRecord
) -> None:
    """Writes what the run came to; the record last, since it says that all is there."""
    tensors = {name: value.contiguous() for name, value in scorer.state_dict().items()}
    folder.write(WEIGHTS, save(tensors))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, rows=data.sample_rows)
    folder.write(SAMPLE, buffer.getvalue())
    folder.write_record(record)
    folder.remove_checkpoint()
