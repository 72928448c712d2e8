"""The demo's picture: for each stream its signal, the truth, the incidents and the score.

Dimension legend: n rows of the recording, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.incidents import Comparison, Incident
from limpet.runtime.demo.drawing import (
    FAINT,
    FOUND,
    OUTSIDE,
    SCORE,
    SIGNAL,
    STYLE,
    TRAINING,
    TRUTH,
    line,
)
from limpet.runtime.demo.report import StreamReport, count_of
from limpet.runtime.demo.sources import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LANES = 4
"""Channels that are drawn at most."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """One stream to draw.

    Attributes:
        source: The recording.
        report: What came of it.
        scores_n: Scores of the streamed rows. (n,)
        release_threshold: An incident ends below this.
        incidents: In rows of the stream.
        found: Against the labels, None without any.
    """

    source: Source
    report: StreamReport
    scores_n: NDArray[np.float32]
    release_threshold: float
    incidents: Sequence[Incident]
    found: Comparison | None


def draw_timeline(path: Path, tracks: Sequence[Track]) -> None:
    """Draws the picture and writes it as PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13.0, 0.9 + 4.3 * len(tracks)), dpi=150, facecolor="white")
        FigureCanvasAgg(figure)
        heights = [3.0, 0.62, 1.9]
        outer = figure.add_gridspec(
            len(tracks), 1, left=0.085, right=0.985, hspace=0.3,
            top=1.0 - 0.85 / figure.get_figheight(), bottom=0.45 / figure.get_figheight(),
        )  # fmt: skip
        for row, track in enumerate(tracks):
            grid = outer[row].subgridspec(3, 1, height_ratios=heights, hspace=0.07)
            top = figure.add_subplot(grid[0])
            middle, low = (figure.add_subplot(grid[index], sharex=top) for index in (1, 2))
            _draw_track(track, top, middle, low)
        _legend(figure, any(track.found for track in tracks))
        figure.savefig(path, dpi=150)


def _draw_track(track: Track, signal: Axes, events: Axes, score: Axes) -> None:
    x_n = _positions(track.source)
    first = track.source.first_row
    _shade(track, x_n, (signal, score))
    _draw_signal(track, x_n, signal)
    _draw_events(track, x_n, events)
    streamed = x_n[first:]
    line(score, streamed, track.scores_n.astype(np.float64), color=SCORE, linewidth=0.7)
    score.axhline(track.report.threshold, color=FOUND, linewidth=0.9, linestyle="--")
    score.axhline(track.release_threshold, color=FOUND, linewidth=0.7, linestyle=":")
    reported = np.array([incident.reported for incident in track.incidents], np.intp)
    outside = {incident.number for incident in track.found.outside} if track.found else set()
    colors = [OUTSIDE if i.number in outside else FOUND for i in track.incidents]
    score.scatter(
        streamed[reported], track.scores_n[reported], s=14, c=colors, zorder=3, linewidths=0
    )
    finite = track.scores_n[np.isfinite(track.scores_n)]
    if len(finite):
        # A burst of a few rows must not flatten all the rest.
        most = max(float(np.quantile(finite, 0.9995)), 1.6 * track.report.threshold)
        score.set_ylim(min(0.0, float(finite.min())), 1.08 * most)
    score.set_ylabel("score")
    for axis in (signal, events):
        axis.tick_params(labelbottom=False)
    score.set_xlim(x_n[0], x_n[-1])
    _label_time(track.source, score)
    title = signal.set_title(track.source.name, loc="left", fontsize=12, fontweight="bold", pad=8)
    signal.annotate(
        track.source.title, xy=(1, 0), xycoords=title, xytext=(10, 0), textcoords="offset points",
        color=FAINT, va="bottom",
    )  # fmt: skip
    signal.set_title(_outcome(track), loc="right", fontsize=9, pad=8)


def _label_time(source: Source, axis: Axes) -> None:
    if source.recording.times_ns is None or source.counts_from_0:
        axis.set_xlabel("row" if source.recording.times_ns is None else "seconds", color=FAINT)
        return
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=5, maxticks=12)  # type: ignore[no-untyped-call]
    formatter = ConciseDateFormatter(  # type: ignore[no-untyped-call]
        locator,
        formats=["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S.%f"],
        zero_formats=["%Y", "%b %Y", "%d %b %Y", "%d %b", "%H:%M", "%H:%M:%S"],
        show_offset=False,
    )
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(formatter)


def _outcome(track: Track) -> str:
    report = track.report
    if not report.intervals:
        return count_of(report.incidents, "alert")
    return (
        f"{report.detected} of {len(report.intervals)} labelled intervals detected, "
        f"{count_of(report.outside or 0, 'alert')} outside"
    )


def _positions(source: Source) -> NDArray[Any]:
    """Where rows lie on the time axis. (n,)"""
    times_ns = source.recording.times_ns
    if times_ns is None:
        return np.arange(len(source.recording), dtype=np.float64)
    if source.counts_from_0:
        return times_ns / 1e9
    # Days since 1970, which is what matplotlib makes of dates itself.
    return times_ns / 86_400e9


def _shade(track: Track, x_n: NDArray[Any], axes: Sequence[Axes]) -> None:
    first = track.source.first_row
    for axis in axes:
        axis.axvspan(x_n[0], x_n[first], color=TRAINING, linewidth=0, zorder=0)
        for finding in track.found.findings if track.found else ():
            start, stop = finding.interval.start + first, finding.interval.stop + first - 1
            axis.axvspan(x_n[start], x_n[stop], color=TRUTH, alpha=0.38, linewidth=0, zorder=0.5)


def _draw_signal(track: Track, x_n: NDArray[Any], axis: Axes) -> None:
    """The channel, or the most blamed channels one above the other, each in its own range."""
    recording = track.source.recording
    chosen = _chosen_channels(track)
    if len(chosen) == 1:
        line(axis, x_n, recording.values[:, chosen[0]], color=SIGNAL, linewidth=0.75)
        axis.set_ylabel(_short(recording.channels[chosen[0]]))
        return
    for lane, channel in enumerate(reversed(chosen)):
        values = recording.values[:, channel]
        low, high = np.nanmin(values), np.nanmax(values)
        scaled = lane + 0.1 + 0.8 * (values - low) / ((high - low) or 1.0)
        line(axis, x_n, scaled, color=SIGNAL, linewidth=0.7)
    names = [_short(recording.channels[channel]) for channel in reversed(chosen)]
    axis.set_yticks([lane + 0.5 for lane in range(len(chosen))], names)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(0, len(chosen))


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def _chosen_channels(track: Track) -> list[int]:
    """The first channel and those with the largest shares in alerts, by position in the file."""
    recording = track.source.recording
    blame = np.zeros(len(recording.channels))
    for incident in track.incidents:
        for name, share in incident.channels:
            blame[recording.channels.index(name)] += share
    order = [0, *(int(i) for i in np.argsort(-blame, kind="stable") if i != 0)]
    return sorted(order[:LANES])


def _draw_events(track: Track, x_n: NDArray[Any], axis: Axes) -> None:
    """Two lanes: what is labelled, and what was reported."""
    first = track.source.first_row
    outside = {i.number for i in track.found.outside} if track.found else set()
    axis.axvspan(x_n[0], x_n[first], color=TRAINING, linewidth=0, zorder=0)
    for finding in track.found.findings if track.found else ():
        start, stop = finding.interval.start + first, finding.interval.stop + first - 1
        axis.broken_barh([(x_n[start], x_n[stop] - x_n[start])], (1.12, 0.76), color=TRUTH)
    shortest = (x_n[-1] - x_n[0]) / 600
    for incident in track.incidents:
        start, stop = x_n[incident.start + first], x_n[incident.stop + first - 1]
        color = OUTSIDE if incident.number in outside else FOUND
        axis.broken_barh([(start, max(stop - start, shortest))], (0.12, 0.76), color=color)
    axis.set_ylim(0, 2)
    axis.set_yticks([1.5, 0.5], ["label" if track.found else "", "alerts"])
    axis.tick_params(axis="y", length=0)
    axis.text(
        (x_n[0] + x_n[first]) / 2, 1.0, "training", color=FAINT, ha="center", va="center",
        fontsize=8,
    )  # fmt: skip


def _legend(figure: Figure, is_labelled: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color=TRAINING, label="rows that trained the encoder"),
        *(
            [
                Patch(color=TRUTH, alpha=0.6, label="labelled anomalous"),
                Patch(color=FOUND, label="alert within a label"),
                Patch(color=OUTSIDE, label="alert outside the labels"),
            ]
            if is_labelled
            else [Patch(color=FOUND, label="alert")]
        ),
        Line2D([], [], color=FOUND, linestyle="--", linewidth=1, label="threshold: opens an alert"),
        Line2D([], [], color=FOUND, linestyle=":", linewidth=1, label="release: closes it"),
    ]
    figure.legend(
        handles=handles, loc="upper left", ncols=len(handles), frameon=False, fontsize=8.5,
        bbox_to_anchor=(0.075, 1.0), handlelength=1.4, columnspacing=1.8,
    )  # fmt: skip
