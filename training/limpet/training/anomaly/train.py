"""`limpet train anomaly` as a function: from a path to a RUN."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from limpet.contracts.manifest import Calibration
from limpet.contracts.recordings import load_recordings
from limpet.contracts.signals import Float32
from limpet.training.anomaly.bank import add_held_out, calibration_scores, fill_banks
from limpet.training.anomaly.calibration import calibrate, calibrate_per_day
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.data import TrainingData, prepare_training
from limpet.training.anomaly.evaluation import auroc
from limpet.training.anomaly.injection import inject
from limpet.training.anomaly.model import AnomalyScorer, build_scorer
from limpet.training.anomaly.objective import Batches
from limpet.training.anomaly.relations import learn_relations
from limpet.training.distributed import process_group
from limpet.training.fit import check_gpu, fit_encoder
from limpet.training.run import RunFolder, check_out, new_record, open_run
from limpet.training.threads import one_thread

MOST_PROBES = 512


class AnomalyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What training came to; the keys of `limpet train anomaly --json`.

    Attributes:
        run: The RUN folder.
        channels: Names of the channels. (c,)
        left_out: Columns that are no channels, each with the reason.
        rate_hz: Sampling rate.
        fit_frames: Frames that were learnt from.
        calibration: Thresholds, false-alarm rate, held-out rows.
        metrics: Measured figures.
        warnings: What was odd.
        seconds: Time it took, all in all.
    """

    run: str
    channels: list[str]
    left_out: list[str]
    rate_hz: float
    fit_frames: int
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
    check_gpu(device)
    check_out(Path(out), resume=resume, force=force)
    recordings = load_recordings(data, key=key, ignore=ignore, rate_hz=rate_hz, label=label)
    prepared = prepare_training(recordings, Path(data).name, config, train_rows)
    record = new_record(
        "anomaly",
        config,
        data=prepared.digests,
        preprocessing=prepared.preprocessing,
        warnings=prepared.warnings,
        command=command,
    )
    folder = open_run(out, record, resume=resume, force=force)
    with one_thread():
        scorer, loss = _train(prepared, config, device, folder)
        scores = calibration_scores(scorer, prepared.stretches, config.seed)
        calibration, warnings = _calibrate(scores, prepared, config)
        metrics = {"loss": loss, **_measure(scorer, prepared, config)}
        add_held_out(scorer, prepared.stretches, config.seed)
    complete = msgspec.structs.replace(
        record,
        complete=True,
        calibration=calibration,
        metrics=metrics,
        warnings=[*record.warnings, *warnings],
    )
    folder.finish(scorer.state_dict(), {"rows": prepared.sample_rows}, complete)
    return AnomalyReport(
        run=str(folder.path),
        channels=prepared.preprocessing.channels,
        left_out=list(prepared.left_out),
        rate_hz=prepared.preprocessing.rate_hz,
        fit_frames=sum(int(s.fit.sum()) for s in prepared.stretches),
        calibration=calibration,
        metrics=metrics,
        warnings=complete.warnings,
        seconds=round(time.monotonic() - began, 3),
    )


def _calibrate(
    scores: Float32, data: TrainingData, config: AnomalyConfig
) -> tuple[Calibration, tuple[str, ...]]:
    if config.false_alarms_per_day is None:
        return calibrate(scores, config.false_alarm_rate, data.name)
    rows_per_frame = config.hop_rows if data.choices.bands else 1
    frames_per_day = 86_400.0 * data.preprocessing.rate_hz / rows_per_frame
    return calibrate_per_day(
        scores, config.false_alarms_per_day, frames_per_day, rows_per_frame, data.name
    )


def _train(
    data: TrainingData, config: AnomalyConfig, device: str, folder: RunFolder
) -> tuple[AnomalyScorer, float]:
    features = data.stretches[0].samples.shape[1]
    fit_frames = sum(int((s.fit & s.scored).sum()) for s in data.stretches)
    bank = min(config.bank_frames, max(config.neighbours, fit_frames // 2))
    scorer = build_scorer(config, features, data.choices.blocks, bank)
    encoder = scorer.encoder.to(device)
    apart = learn_relations(scorer, data.stretches)
    batches = Batches(apart, data.discrete, config, data.choices.blocks)
    loss = fit_encoder(
        encoder, lambda step, rng: batches.loss(encoder, rng, device), config, folder, data.name
    )
    scorer.cpu().eval()
    fill_banks(scorer, data.stretches, config.seed)
    return scorer, loss


def _measure(scorer: AnomalyScorer, data: TrainingData, config: AnomalyConfig) -> dict[str, float]:
    """AUROC of injected against untouched held-out stretches.

    The kinds of anomaly are those that training injected, so this says that training worked, not
    how well real faults are found.
    """
    span = scorer.look_back_frames
    windows = np.concatenate(
        [
            sliding_window_view(s.samples, span, axis=0).transpose(0, 2, 1)[~s.fit[span - 1 :]]
            for s in data.stretches
            if len(s) >= span
        ]
    )
    windows = windows[np.linspace(0, len(windows) - 1, min(MOST_PROBES, len(windows))).astype(int)]
    rng = np.random.default_rng([config.seed, config.steps])
    anomalous = windows.copy()
    tail = slice(-max(1, span // 2), None)
    anomalous[:, tail] = inject(
        windows[:, tail], windows[:, tail], rng,
        weakest=config.weakest, strongest=config.strongest,
    ).clip(-config.clip, config.clip)  # fmt: skip
    both = torch.from_numpy(np.concatenate([windows, anomalous]))
    truth = np.repeat([False, True], [len(windows), len(anomalous)])
    with torch.no_grad():
        scores = [
            scorer(part, torch.ones_like(part), part.new_zeros(len(part), scorer.state_size))[1][
                :, -1
            ]
            for part in torch.split(both, 64)
        ]
    figure = auroc(torch.cat(scores).numpy(), truth)
    return {f"{data.name} held-out, injected anomalies: auroc": figure}
