"""The curves of `limpet bench serve` as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limpet.runtime.bench.serving import LANE, ServingRow
from limpet.runtime.bench.serving_load import LoadReport
from limpet.runtime.demo.drawing import FAINT, FOUND, INK, SIGNAL, STYLE, TRUTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"tcp": SIGNAL, "ipc": TRUTH, LANE: FOUND, "identity": SIGNAL, "work-1ms": FOUND}
GROWTH = {"clients": SIGNAL, "streams": FOUND, "requests": INK}
GROWTH_WORDS = {
    "clients": "idle clients connected",
    "streams": "idle streams registered",
    "requests": "requests served before",
}
WIDTH_IN, HEIGHT_IN, DPI = 11.0, 9.5, 120


def check_picture() -> None:
    """Raises `ImportError` where nothing can be drawn, before hours of measuring."""
    import matplotlib.figure  # noqa: F401


def draw_serving(path: Path, rows: Sequence[ServingRow], load: LoadReport | None) -> None:
    """Draws what was measured."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        axes = figure.subplots(3, 2)
        _draw_ratios(axes[0, 0], rows)
        if load is not None:
            _draw_throughput(axes[0, 1], load)
            _draw_open_loop(axes[1, 0], load)
            _draw_overload(axes[1, 1], load)
            _draw_growth(axes[2, 0], load)
            _draw_mixed(axes[2, 1], load)
        figure.savefig(path, dpi=DPI, format="png")


def _draw_ratios(axis: Axes, rows: Sequence[ServingRow]) -> None:
    if not rows:
        axis.set_axis_off()
        return
    axis.set_title("A request beside a raw ZeroMQ echo of its bytes", loc="left")
    axis.axhline(1.0, color=FAINT, linewidth=0.8)
    sizes = list(dict.fromkeys(row.size for row in rows))
    transports = list(dict.fromkeys(row.transport for row in rows))
    for place, transport in enumerate(transports):
        mine = [row for row in rows if row.transport == transport]
        at = np.array([sizes.index(row.size) for row in mine]) + 0.25 * (place - 1)
        colour = COLOURS.get(transport, INK)
        axis.bar(at, [row.ratio_p50 for row in mine], 0.22, color=colour, label=transport)
        axis.plot(at, [row.ratio_p99 for row in mine], "_", color=INK, markersize=12)
    axis.set_xticks(range(len(sizes)), sizes)
    axis.set_ylabel("(request − engine) ÷ echo\n– is p99 ÷ p99")
    # Above the bars, which may be of any height.
    axis.set_ylim(top=1.25 * axis.get_ylim()[1])
    axis.legend(frameon=False, loc="upper right", ncols=len(transports))


def _draw_throughput(axis: Axes, load: LoadReport) -> None:
    axis.set_title("Clients that wait for their answers", loc="left")
    for model in dict.fromkeys(row.model for row in load.throughput):
        mine = [row for row in load.throughput if row.model == model]
        axis.plot(
            [row.clients for row in mine],
            [row.per_s for row in mine],
            "o-",
            color=COLOURS.get(model, INK),
            label=model,
        )
    axis.set(xscale="log", yscale="log", xlabel="clients", ylabel="results per second")
    clients = sorted({row.clients for row in load.throughput})
    axis.set_xticks(clients, [str(count) for count in clients])
    axis.minorticks_off()
    axis.legend(frameon=False)


def _draw_open_loop(axis: Axes, load: LoadReport) -> None:
    axis.set_title("Arrivals at fixed times, waiting counted", loc="left")
    for model in dict.fromkeys(row.model for row in load.open_loop):
        for kind, style in (("constant", "-"), ("poisson", "--")):
            mine = [r for r in load.open_loop if (r.model, r.arrivals) == (model, kind)]
            for quantile, marker in (("p50_ms", "o"), ("p99_ms", "^"), ("p999_ms", "x")):
                axis.plot(
                    [row.load for row in mine],
                    [getattr(row, quantile) for row in mine],
                    style,
                    marker=marker,
                    color=COLOURS.get(model, INK),
                    label=f"{model}, {kind}" if quantile == "p50_ms" else None,
                )
    axis.set(yscale="log", xlabel="offered, part of capacity", ylabel="ms; ● p50, ▲ p99, × p99.9")
    axis.set_ylim(top=12 * axis.get_ylim()[1])  # room for the legend above the lines
    axis.legend(frameon=False, loc="upper left", ncols=2)


def _draw_overload(axis: Axes, load: LoadReport) -> None:
    over = load.overload
    title = f"Twice the capacity: goodput {over.goodput:.2f} of {over.capacity_per_s:.0f}/s"
    axis.set_title(title, loc="left")
    names = ["result", "stale", "rejected", "unanswered"]
    counts = [over.results, over.stale, over.rejected, over.unanswered]
    axis.barh(names, counts, color=[SIGNAL, TRUTH, FAINT, FOUND])
    axis.invert_yaxis()
    axis.set_xlabel(
        f"requests in {over.seconds:g} s; results {over.result_age_p50_ms:.0f} ms old (p50), "
        f"{over.result_age_max_ms:.0f} at most\nanother client's p99: "
        f"{over.good_idle_p99_ms:.1f} ms alone, {over.good_beside_p99_ms:.1f} beside, "
        f"{over.recovered_ms:.1f} after"
    )


def _draw_growth(axis: Axes, load: LoadReport) -> None:
    axis.set_title("A request of one client beside many", loc="left")
    for of in dict.fromkeys(row.of for row in load.growth):
        mine = [row for row in load.growth if row.of == of]
        counts = [row.count for row in mine]
        style: dict[str, Any] = {"color": GROWTH[of]}
        axis.plot(counts, [r.p50_ms for r in mine], "o-", label=GROWTH_WORDS[of], **style)
        axis.plot(counts, [r.p99_ms for r in mine], "^--", **style)
    axis.set(xscale="log", yscale="log", ylabel="ms; ● p50, ▲ p99")
    axis.set_ylim(top=4 * axis.get_ylim()[1])
    axis.legend(frameon=False, loc="upper right", ncols=1)


def _draw_mixed(axis: Axes, load: LoadReport) -> None:
    mixed = load.mixed
    missed = sum(row.missed for row in mixed.models)
    by_runtime = sum(row.missed_by_runtime for row in mixed.models)
    axis.set_title(
        f"Three models together: {missed} missed, {by_runtime} by the runtime", loc="left"
    )
    minutes = [stretch.end_s / 60 for stretch in mixed.stretches]
    for place, row in enumerate(mixed.models):
        style: dict[str, Any] = {"color": COLOURS.get(row.model, INK)}
        label = f"{row.model}, {row.rate_hz:g}/s"
        axis.plot(minutes, [s.p50_ms[place] for s in mixed.stretches], "o-", label=label, **style)
        axis.plot(minutes, [s.p99_ms[place] for s in mixed.stretches], "^--", **style)
    memory = mixed.memory
    slope = (
        ""
        if memory is None
        else (f"; memory {memory.mb_per_min:+.2f} ± {memory.plus_minus:.2f} MB a minute")
    )
    axis.set(yscale="log", xlabel=f"minutes{slope}", ylabel="ms; ● p50, ▲ p99")
    axis.set_ylim(top=6 * axis.get_ylim()[1])
    axis.legend(frameon=False, loc="upper right", ncols=3)
