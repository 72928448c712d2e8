"""Faults that last for hundreds of rows, on plants of which a few hundred rows train.

    python -m tests.benchmarks.lasting_faults --processes 2

A development set for what a value is compared with: its own stream's slow level, which takes part
of a lasting fault for normal, or the training rows' level, which takes a plant that legitimately
runs elsewhere for faulty. The plants are synthetic, so that the second kind is there on purpose:

- steady: the operating point keeps to what training showed;
- moving: it steps from one set point to others all along, in training too, and beyond its range;
- moved: it is steady in training, and steps once later, where nothing is faulty.

What it taught, by AUROC of untrained encoders and moments on eight runs of each kind and fault
(`--untrained --plants 8`): to compare with the training's level gains 0.03 on steady plants and
loses 0.09 on those that moved; a slow level of 100,000 rows instead of 1,024 changes it by less
than 0.01; to judge features by what they deviate from one another brings 0.754 to 0.80, where PCA
(T² + Q) has 0.752.

Dimension legend: n rows, c channels.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from limpet.contracts.reports import format_table, write_json
from limpet.runtime.machine import describe_machine
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.evaluation import auroc
from tests.benchmarks.anomaly.figures import fill
from tests.benchmarks.anomaly.methods import BASELINES, fit_baseline, train_and_score

Values = NDArray[np.float64]

CHANNELS = 8
BEFORE, FAULTY, AFTER = 200, 350, 200
"""Rows behind training: normal, faulty, normal again."""
SET_POINT_ROWS = (60, 180)
"""How long a moving plant stays at one operating point."""


@dataclass(frozen=True, eq=False)
class Plant:
    """What makes one plant itself.

    Attributes:
        mix: What each of four causes adds to each channel. (4, c)
        load: What the operating point adds to each channel. (c,)
        noise: Standard deviation of each channel's own noise. (c,)
    """

    mix: Values
    load: Values
    noise: Values


def draw_plant(rng: np.random.Generator) -> Plant:
    """A plant of `CHANNELS` channels."""
    return Plant(
        rng.normal(0.0, 0.6, (4, CHANNELS)),
        rng.normal(0.0, 1.0, CHANNELS),
        rng.uniform(0.15, 0.6, CHANNELS),
    )


def causes(rng: np.random.Generator, n: int) -> Values:
    """A rhythm, and random causes that last for 5, 20 and 80 rows. (n, 4)"""
    columns = [np.sqrt(2.0) * np.sin(2 * np.pi * (np.arange(n) / 23 + rng.random()))]
    columns += [smooth_noise(rng, n, rows) for rows in (5, 20, 80)]
    return np.column_stack(columns)


def smooth_noise(rng: np.random.Generator, n: int, rows: float) -> Values:
    """Noise of unit variance that is forgotten after so many rows. (n,)"""
    keep = float(np.exp(-1.0 / rows))
    x = rng.normal(size=n)
    for i in range(1, n):
        x[i] = keep * x[i - 1] + np.sqrt(1.0 - keep * keep) * x[i]
    return np.asarray(x)


def operating_point(rng: np.random.Generator, kind: str, train_rows: int, n: int) -> Values:
    """The set point in units of what the causes do. (n,)"""
    if kind == "steady":
        return np.zeros(n)
    steps = np.zeros(n)
    if kind == "moved":
        steps[train_rows + BEFORE // 2] = rng.choice([-1.0, 1.0]) * 2.0
    else:
        at = 0
        while (at := at + int(rng.integers(*SET_POINT_ROWS))) < n:
            steps[at] = rng.normal(0.0, 1.5)
    target = np.cumsum(steps)
    reached = np.empty(n)
    now = 0.0
    for i in range(n):
        now += (target[i] - now) / 8.0  # a plant takes some rows to follow
        reached[i] = now
    return reached


Fault = Callable[[Plant, Values, Values, np.random.Generator], None]


def _shifted(plant: Plant, x: Values, z: Values, rng: np.random.Generator) -> None:
    channel = rng.integers(CHANNELS)
    x[:, channel] += rng.choice([-1.0, 1.0]) * x[:, channel].std()


def _uncoupled(plant: Plant, x: Values, z: Values, rng: np.random.Generator) -> None:
    """A channel loses what it shares with the others: as large and as slow as before."""
    channel = int(np.argmax(np.square(plant.mix).sum(0)))
    x[:, channel] += (causes(rng, len(x)) - z) @ plant.mix[:, channel]


def _noisy(plant: Plant, x: Values, z: Values, rng: np.random.Generator) -> None:
    for channel in rng.choice(CHANNELS, 2, replace=False):
        x[:, channel] += 1.5 * plant.noise[channel] * rng.normal(size=len(x))


def _drifting(plant: Plant, x: Values, z: Values, rng: np.random.Generator) -> None:
    way = rng.normal(size=CHANNELS) * x.std(0)
    x += np.linspace(0.0, 1.5, len(x))[:, None] * way


def _weakened(plant: Plant, x: Values, z: Values, rng: np.random.Generator) -> None:
    """Of one cause, half arrives, and the plant settles a little elsewhere."""
    cause = rng.integers(len(plant.mix))
    x -= 0.5 * z[:, [cause]] * plant.mix[[cause]]
    x += 0.5 * plant.mix[cause] * rng.choice([-1.0, 1.0])


FAULTS: dict[str, Fault] = {
    "shifted": _shifted, "uncoupled": _uncoupled, "noisy": _noisy, "drifting": _drifting,
    "weakened": _weakened,
}  # fmt: skip
"""What each does to faulty rows (n, c), of which the causes (n, 4) are known."""
KINDS = ("steady", "moving", "moved")


@dataclass(frozen=True, eq=False)
class Run:
    """One recording.

    Attributes:
        kind: How its operating point moves.
        fault: What fails.
        values: (n, c)
        labels: True where faulty. (n,)
        train_rows: Rows that train.
    """

    kind: str
    fault: str
    values: Values
    labels: NDArray[np.bool_]
    train_rows: int


def draw_runs(plants: int, least: int, most: int) -> Iterator[Run]:
    """For each kind and fault as many runs, each of a plant of its own, with so many to train."""
    for kind_number, kind in enumerate(KINDS):
        for fault_number, (fault, apply) in enumerate(FAULTS.items()):
            for number in range(plants):
                rng = np.random.default_rng([kind_number, fault_number, number])
                plant, train_rows = draw_plant(rng), int(rng.integers(least, most + 1))
                n = train_rows + BEFORE + FAULTY + AFTER
                z, point = causes(rng, n), operating_point(rng, kind, train_rows, n)
                x = z @ plant.mix + rng.normal(size=(n, CHANNELS)) * plant.noise
                labels = np.zeros(n, bool)
                labels[train_rows + BEFORE : n - AFTER] = True
                faulty = x[labels]
                apply(plant, faulty, z[labels], rng)
                x[labels] = faulty
                x += point[:, None] * plant.load + rng.normal(0.0, 5.0, CHANNELS)
                yield Run(kind, fault, x, labels, train_rows)


VARIANTS = {
    "ours": AnomalyConfig(),
    "level of the stream": AnomalyConfig(baseline="stream"),
    "level of the training": AnomalyConfig(baseline="training"),
    "level of the stream, 4096 rows": AnomalyConfig(baseline="stream", baseline_frames=4096.0),
    "level of the stream, 256 rows": AnomalyConfig(baseline="stream", baseline_frames=256.0),
}


UNTRAINED = {"steps": 1, "learning_rate": 1e-12}


def judge(run: Run, method: str, seed: int, untrained: bool) -> dict[str, dict[str, Any]]:
    """Figures of a run's rows behind training, by name of the score."""
    torch.set_num_threads(1)
    train = run.values[: run.train_rows]
    if method in VARIANTS:
        config = msgspec.structs.replace(
            VARIANTS[method], seed=seed, **(UNTRAINED if untrained else {})
        )
        fit = train_and_score(train, 1.0, [run.values], config)
    else:
        fit = fit_baseline(method, train, [run.values], seed)
    found = {}
    for name, parts in fit.scores.items():
        scores, labels = (x[run.train_rows :] for x in (fill(parts[0]), run.labels))
        flagged = scores >= fit.threshold
        found[method + name] = {
            "kind": run.kind,
            "fault": run.fault,
            "auroc": auroc(scores, labels),
            "false_alarms": float(flagged[~labels].mean()),
            "missed": float((~flagged)[labels].mean()),
        }
    return found


def main() -> None:
    """Measures, prints a table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plants", type=int, default=2, help="runs of each kind and fault")
    parser.add_argument("--rows", type=int, nargs=2, default=(300, 600), help="to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=[*VARIANTS, *BASELINES])
    parser.add_argument("--untrained", action="store_true", help="encoders as they are drawn")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    runs = list(draw_runs(options.plants, *options.rows))
    jobs = [
        (run, method, seed, options.untrained)
        for method in options.methods
        for seed in options.seeds
        for run in runs
    ]
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for found in pool.map(judge, *zip(*jobs, strict=True)):
            for name, figures in found.items():
                results[name].append(figures)
    print(format_table(*table(results)))
    write_json(
        options.json_file,
        {
            "machine": describe_machine(),
            "plants": options.plants,
            "rows": options.rows,
            "results": results,
        },
    )


def table(
    results: dict[str, list[dict[str, Any]]],
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Mean AUROC of each kind and each fault, and rates at the threshold."""
    header = ["AUROC", *KINDS, *FAULTS, "all", "false alarms", "missed"]
    rows = []
    for name, figures in results.items():
        groups = [[f for f in figures if f["kind"] == kind] for kind in KINDS]
        groups += [[f for f in figures if f["fault"] == fault] for fault in FAULTS]
        means = [f"{np.mean([f['auroc'] for f in group]):.3f}" for group in (*groups, figures)]
        rates = [
            f"{100 * np.mean([f[key] for f in figures]):.0f} %"
            for key in ("false_alarms", "missed")
        ]
        rows.append([name, *means, *rates])
    return header, rows


if __name__ == "__main__":
    main()
