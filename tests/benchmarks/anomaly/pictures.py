"""Pictures of what the figures say: signal, labels, our score and the best plain method's.

Of each data set the series on which ours does worst, at the median and best, so that none is picked
by hand. Dimension legend: n rows, c channels, g segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.incidents import labelled_intervals
from limpet.runtime.demo.drawing import FAINT, FOUND, SCORE, SIGNAL, STYLE, TRAINING, TRUTH, line
from limpet.training.anomaly.evaluation import auroc
from tests.benchmarks.anomaly import methods
from tests.benchmarks.anomaly.cells import Cell
from tests.benchmarks.anomaly.figures import fill, judge_segments
from tests.benchmarks.anomaly.series import Segments, Series
from tests.benchmarks.public_metrics import Series as PublicSeries
from tests.benchmarks.public_metrics import public_figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, SEED = "ours", 0
LANES = 3
"""Channels that are drawn at most: those that differ most between labelled rows and others."""
FAR = 30.0
"""Times the threshold from which scores are drawn on a logarithmic scale."""
COLOURS = 48
"""Of a picture, which keeps its file small."""

FIGURES = {
    "smap": "SMAP VUS-PR", "skab": "SKAB AUROC", "nab": "NAB VUS-PR", "ucr": "UCR VUS-PR",
    "femto": "FEMTO Spearman", "cwru": "CWRU AUROC, least", "robot_failures": "robot AUROC",
}  # fmt: skip
"""The figure by which a data set's methods and series are ranked."""

PICTURES = {
    "smap": ("smap",),
    "skab": ("skab",),
    "nab_ucr": ("nab", "ucr"),
    "segments": ("femto", "cwru", "robot_failures"),
}
"""Files, and the data sets in each."""

Load = Callable[[Cell], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, eq=False)
class View:
    """What one method says of a series.

    Attributes:
        method: Its name.
        scores: NaN where there is none. (n,)
        threshold: The calibrated one.
        figure: How well it does.
    """

    method: str
    scores: NDArray[np.float64]
    threshold: float
    figure: float


@dataclass(frozen=True, eq=False)
class Panel:
    """One series to draw.

    Attributes:
        title: Data set and name.
        place: Where it stands among its data set's series by our figure.
        values: Signal. (n, c)
        labels: True where anomalous. (n,)
        train_rows: Rows at the beginning that trained, 0 where others did.
        unit: What a row is.
        figure: Name of the figure.
        ours: Our score.
        other: The best plain method's.
    """

    title: str
    place: str
    values: NDArray[np.float64]
    labels: NDArray[np.bool_]
    train_rows: int
    unit: str
    figure: str
    ours: View
    other: View


def draw_all(
    folder: Path,
    items: Sequence[Series | Segments],
    results: Sequence[Mapping[str, Any]],
    load: Load,
) -> list[Path]:
    """Draws every picture.

    Args:
        folder: Where to.
        items: All series.
        results: As in the benchmark's JSON: they say which plain method is best.
        load: Cached arrays of a cell.
    """
    paths = []
    for name, datasets in PICTURES.items():
        panels = []
        for dataset in datasets:
            there = [item for item in items if item.dataset == dataset]
            panels += _panels(there, _best_baseline(results, FIGURES[dataset]), load, len(datasets))
        paths.append(folder / f"anomaly_{name}.png")
        draw(paths[-1], panels)
    return paths


def _best_baseline(results: Sequence[Mapping[str, Any]], figure: str) -> str:
    found = {r["method"]: r["mean"] for r in results if r["figure"] == figure}
    return max(methods.BASELINES, key=lambda method: found[method])


def _panels(
    items: Sequence[Series | Segments], baseline: str, load: Load, datasets: int
) -> list[Panel]:
    """Panels of a data set's worst, median and best series; fewer where it shares a picture."""
    ours = _figures(items, OURS, load)
    order = [int(i) for i in np.argsort(ours, kind="stable")]
    places = {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}
    chosen = list(dict.fromkeys(list(places.values())[: 4 - datasets]))
    many = len(items)
    names = {i: f"{name} of {many}" if many > 1 else "the only one" for name, i in places.items()}
    others = _figures([items[i] for i in chosen], baseline, load)
    return [
        _panel(
            items[i],
            baseline,
            load,
            (ours[i], other),
            names[i],
        )
        for i, other in zip(chosen, others, strict=True)
    ]


def _figures(items: Sequence[Series | Segments], method: str, load: Load) -> list[float]:
    """The data set's figure for each series."""
    loaded = [(item, load(Cell(method, SEED, item))["scores"]) for item in items]
    if isinstance(items[0], Series) and items[0].dataset != "skab":
        public = [
            PublicSeries(fill(scores[0]), item.labels, item.values[:, 0])
            for item, scores in loaded
            if isinstance(item, Series)
        ]
        return [figures.vus_pr for figures in public_figures(public)]
    return [_figure(item, scores) for item, scores in loaded]


def _figure(item: Series | Segments, scores: NDArray[Any]) -> float:
    if isinstance(item, Series):
        tail = slice(item.first_row, None)
        return auroc(fill(scores[0])[tail], item.labels[tail])
    found: dict[str, float] = {}
    judge_segments(item, scores, found.__setitem__)
    return found[FIGURES[item.dataset]]


def _panel(
    item: Series | Segments, baseline: str, load: Load, figures: tuple[float, float], place: str
) -> Panel:
    views = []
    for method, figure in zip((OURS, baseline), figures, strict=True):
        arrays = load(Cell(method, SEED, item))
        scores = arrays["scores"]
        one = scores[0] if isinstance(item, Series) else np.nanmean(scores, axis=1)
        name = "limpet" if method == OURS else method
        views.append(View(name, one.astype(np.float64), float(arrays["threshold"]), figure))
    if isinstance(item, Series):
        values = item.values[:, :1] if item.dataset == "smap" else item.values
        labels, train, unit = item.labels, item.train_rows, "row"
    else:
        segments = np.concatenate(list(item.test.values()))
        values = np.sqrt(np.square(segments).mean(axis=1))  # RMS, (g, c)
        names = np.repeat(list(item.test), [len(x) for x in item.test.values()])
        labels, train, unit = ~np.isin(names, ["normal", "life"]), 0, "segment"
        if item.dataset == "cwru":  # whose windows have an RMS of 1
            values = np.abs(segments).max(axis=1)
        if item.dataset == "femto":
            train = len(item.train)
    return Panel(
        f"{item.dataset.replace('_', ' ')} {item.name}", place, values, labels, train, unit,
        FIGURES[item.dataset].split(" ", 1)[1], views[0], views[1],
    )  # fmt: skip


# Drawing ------------------------------------------------------------------------------------------


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Draws panels one below the other and writes them as PNG of few colours."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 0.7 + 3.3 * len(panels)), dpi=110, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        height = figure.get_figheight()
        outer = figure.add_gridspec(
            len(panels), 1, left=0.15, right=0.985, hspace=0.42,
            top=1.0 - 0.75 / height, bottom=0.45 / height,
        )  # fmt: skip
        for row, panel in enumerate(panels):
            grid = outer[row].subgridspec(3, 1, height_ratios=[1.3, 1.0, 1.0], hspace=0.12)
            top = figure.add_subplot(grid[0])
            axes = [top, *(figure.add_subplot(grid[i], sharex=top) for i in (1, 2))]
            _draw_panel(panel, axes)
        _legend(figure)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def _draw_panel(panel: Panel, axes: Sequence[Axes]) -> None:
    x = np.arange(len(panel.labels))
    for axis in axes:
        axis.axvspan(0, panel.train_rows, color=TRAINING, linewidth=0, zorder=0)
        for interval in labelled_intervals(panel.labels):
            # At least wide enough to be seen: a label of one row in 20,000 is less than a pixel.
            wide = max(interval.stop - interval.start, len(x) / 500)
            axis.axvspan(
                interval.start, interval.start + wide, color=TRUTH, alpha=0.45, linewidth=0,
                zorder=0.5,
            )  # fmt: skip
    _draw_signal(panel, x, axes[0])
    for axis, view, color in ((axes[1], panel.ours, SCORE), (axes[2], panel.other, FAINT)):
        line(axis, x, view.scores, color=color, linewidth=0.8)
        axis.axhline(view.threshold, color=FOUND, linewidth=0.9, linestyle="--")
        _limit(view, axis)
        axis.set_ylabel(
            f"{_wrapped(view.method)}\n{panel.figure} {view.figure:.2f}",
            rotation=0, ha="right", va="center", fontsize=8.5, labelpad=10,
        )  # fmt: skip
        axis.tick_params(axis="y", labelsize=7)
    for axis in axes[:2]:
        axis.tick_params(labelbottom=False)
    axes[0].set_xlim(0, len(x) - 1)
    axes[2].set_xlabel(panel.unit, color=FAINT, labelpad=1)
    axes[0].set_title(panel.title, loc="left", fontsize=11, fontweight="bold", pad=5)
    axes[0].set_title(panel.place, loc="right", fontsize=9, color=FAINT, pad=5)


def _limit(view: View, axis: Axes) -> None:
    """Shows scores up to all but a few; logarithmic beyond the threshold where they go far."""
    finite = view.scores[np.isfinite(view.scores)]
    low = min(float(finite.min()), view.threshold)
    high = max(float(np.quantile(finite, 0.998)), view.threshold + 0.3 * (view.threshold - low))
    if high > FAR * view.threshold:
        axis.set_yscale("symlog", linthresh=view.threshold, linscale=0.5)
        axis.set_ylim(0.0, 3.0 * high)
        axis.set_yticks([view.threshold, high], [f"{view.threshold:.2g}", f"{high:.2g}"])
        axis.minorticks_off()
        return
    axis.set_ylim(low - 0.04 * (high - low), high + 0.12 * (high - low))
    axis.locator_params(axis="y", nbins=3)


def _draw_signal(panel: Panel, x: NDArray[np.intp], axis: Axes) -> None:
    """The channels that differ most where rows are labelled, one above the other."""
    values, labels = panel.values, panel.labels
    moved = np.zeros(values.shape[1])
    if labels.any() and not labels.all():
        moved = np.abs(values[labels].mean(axis=0) - values[~labels].mean(axis=0))
        moved /= np.maximum(values[~labels].std(axis=0), 1e-9)
    chosen = sorted(np.argsort(-moved, kind="stable")[:LANES].tolist())
    for lane, channel in enumerate(reversed(chosen)):
        one = values[:, channel]
        scaled = lane + 0.08 + 0.84 * (one - one.min()) / (np.ptp(one) or 1.0)
        line(axis, x, scaled, color=SIGNAL, linewidth=0.7)
    what = "signal" if panel.unit == "row" else "level"
    more = f"\n{len(chosen)} of {values.shape[1]}" if values.shape[1] > len(chosen) else ""
    axis.set_ylabel(f"{what}{more}", rotation=0, ha="right", va="center")
    axis.set_ylim(0, len(chosen))
    axis.set_yticks([])


def _wrapped(method: str) -> str:
    head, _, tail = method.partition(" ")
    return f"{head}\n{tail}" if tail else head


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color=TRAINING, label="rows that trained"),
        Patch(color=TRUTH, alpha=0.6, label="labelled anomalous"),
        Line2D([], [], color=SIGNAL, label="signal"),
        Line2D([], [], color=SCORE, label="limpet's score"),
        Line2D([], [], color=FAINT, label="best plain method's score"),
        Line2D([], [], color=FOUND, linestyle="--", label="calibrated threshold"),
    ]
    figure.legend(
        handles=handles, loc="upper left", ncols=len(handles), frameon=False, fontsize=8.5,
        bbox_to_anchor=(0.14, 1.0), handlelength=1.4, columnspacing=1.8,
    )  # fmt: skip
