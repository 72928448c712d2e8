"""From cached scores to the table: figures of each series, their mean, their spread over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from limpet.training.anomaly.evaluation import auroc
from tests.benchmarks.anomaly.series import Segments, Series
from tests.benchmarks.public_metrics import Series as PublicSeries
from tests.benchmarks.public_metrics import public_figures

SMOOTHED_SNAPSHOTS = 5
"""Snapshots over which a bearing's score is averaged, up to the newest."""


class FinishedCell(Protocol):
    """A method, a seed and a series."""

    method: str
    seed: int
    item: Series | Segments


@dataclass
class Report:
    """What the benchmark prints and writes.

    Attributes:
        results: One entry for each method and figure: values by seed, mean and spread.
        facts: By data set, figures of single series and of training.
        header: Of the table.
        table: Its rows.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    header: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)


def fill(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows before the first score count with it, later ones without with the one before."""
    known = np.flatnonzero(np.isfinite(scores))
    last = np.maximum.accumulate(np.where(np.isfinite(scores), np.arange(len(scores)), known[0]))
    return np.asarray(scores[last], np.float64)


def summarise(
    cells: Sequence[FinishedCell], load: Callable[[Any], Mapping[str, NDArray[Any]]]
) -> Report:
    """Computes all figures.

    Args:
        cells: All cells.
        load: Their cached arrays.
    """
    found: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    flags: dict[tuple[str, int], list[tuple[NDArray[Any], NDArray[Any]]]] = defaultdict(list)
    public: list[tuple[str, str, int, PublicSeries]] = []
    targets: dict[str, list[float]] = defaultdict(list)
    single: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        arrays, item = load(cell), cell.item
        if cell.method == "ours":
            targets[item.dataset].append(float(arrays["on_target"]))
        for key in (key for key in arrays if key.startswith("scores")):
            method = cell.method + key.removeprefix("scores")
            if cell.method != "ours" and method != cell.method:
                continue
            scores = arrays[key]

            def note(
                figure: str, value: float, method: str = method, seed: int = cell.seed
            ) -> None:
                found[method, figure][seed].append(value)

            if isinstance(item, Segments):
                judge_segments(item, scores, note)
                if method == "ours":
                    single[item.dataset][item.name].append(
                        found[method, _main_figure(item.dataset)][cell.seed][-1]
                    )
                continue
            filled, labels = fill(scores[0]), item.labels
            if item.dataset == "skab":
                tail = slice(item.first_row, None)
                note("SKAB AUROC", auroc(filled[tail], labels[tail]))
                if key == "scores":
                    flagged = filled[tail] >= float(arrays["threshold"])
                    flags[method, cell.seed].append((flagged, labels[tail]))
            else:
                name = f"{item.dataset.upper()} VUS-PR"
                note(f"{item.dataset.upper()} AUROC", auroc(filled, labels))
                public.append(
                    (method, name, cell.seed, PublicSeries(filled, labels, item.values[:, 0]))
                )
    for (method, name, seed, _), figures in zip(
        public, public_figures([entry[3] for entry in public]), strict=True
    ):
        found[method, name][seed].append(figures.vus_pr)
    for (method, seed), parts in flags.items():
        flagged, labels = (np.concatenate(x) for x in zip(*parts, strict=True))
        hits = int((flagged & labels).sum())
        found[method, "SKAB F1"][seed] = [2 * hits / (int(flagged.sum()) + int(labels.sum()))]
        found[method, "SKAB FAR"][seed] = [float(flagged[~labels].mean())]
        found[method, "SKAB MAR"][seed] = [float((~flagged)[labels].mean())]
    return _report(found, targets, single)


def _main_figure(dataset: str) -> str:
    return {"femto": "FEMTO Spearman", "cwru": "CWRU AUROC, least"}.get(dataset, "robot AUROC")


def judge_segments(
    item: Segments, scores: NDArray[np.floating], note: Callable[[str, float], None]
) -> None:
    """Notes the figures of one item by their names."""
    level = np.nanmean(scores, axis=1)  # of each segment
    groups, at = {}, 0
    for name, segments in item.test.items():
        groups[name] = level[at : at + len(segments)]
        at += len(segments)
    if item.dataset == "femto":
        life = groups["life"]
        smooth = [life[max(0, i + 1 - SMOOTHED_SNAPSHOTS) : i + 1].mean() for i in range(len(life))]
        note("FEMTO Spearman", float(spearmanr(smooth, np.arange(len(life))).statistic))
        return
    normal = groups.pop("normal")
    figures = []
    for faulty in groups.values():
        truth = np.repeat([False, True], [len(normal), len(faulty)])
        figures.append(auroc(np.concatenate([normal, faulty]), truth))
    if item.dataset == "cwru":
        note(f"CWRU AUROC, {item.name}", float(np.mean(figures)))
        note("CWRU AUROC, least", min(figures))
    else:
        note("robot AUROC", float(np.mean(figures)))


def _report(
    found: Mapping[tuple[str, str], Mapping[int, list[float]]],
    targets: Mapping[str, list[float]],
    single: Mapping[str, Mapping[str, list[float]]],
) -> Report:
    report = Report()
    aggregate = {"FEMTO Spearman": np.median, "CWRU AUROC, least": np.min}
    by_method: dict[str, dict[str, str]] = defaultdict(dict)
    for (method, figure), seeds in found.items():
        combine = aggregate.get(figure, np.mean)
        values = [float(combine(values)) for _, values in sorted(seeds.items())]
        report.results.append(
            {
                "method": method,
                "figure": figure,
                "series": len(next(iter(seeds.values()))),
                "by_seed": values,
                "mean": float(np.mean(values)),
                "spread": float(np.ptp(values)),
            }
        )
        by_method[method][figure] = f"{np.mean(values):.3f}" + (
            f" ±{np.ptp(values) / 2:.3f}" if len(values) > 1 else ""
        )
    columns = sorted({figure for _, figure in found})
    report.header = ["", *columns]
    report.table = [
        [method, *(figures.get(column, "") for column in columns)]
        for method, figures in by_method.items()
    ]
    for dataset, shares in targets.items():
        known = [share for share in shares if np.isfinite(share)]
        facts: dict[str, Any] = {
            f"{name}, by seed": values for name, values in single[dataset].items()
        }
        if known:
            facts["stage 1 on target, mean"] = float(np.mean(known))
            facts["stage 1 on target, least"] = float(np.min(known))
        report.facts[dataset] = facts
        report.results.append({"method": "ours", "figure": f"{dataset} facts", **facts})
    return report
