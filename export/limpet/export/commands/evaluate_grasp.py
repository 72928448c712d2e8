"""`limpet evaluate grasp`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from limpet.training.commands import json_option

if TYPE_CHECKING:
    from limpet.export.evaluate_grasp import GraspEvaluation
    from limpet.training.grasp.judging.evaluation import ArmFigures, MeanFigures, RealFigures


@click.command("grasp")
@click.argument("model", metavar="RUN|BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder in GraspNet-1Billion's layout, or real scenes: .npz with depth and "
    "intrinsics_matrix, folders with depth.png and meta.mat.",
)
@click.option(
    "--split",
    metavar="NAME,…",
    help="Splits to judge: seen, similar, novel, validation, train [default: the tests there].",
)
@click.option(
    "--views",
    type=click.IntRange(min=1),
    metavar="N",
    help="Reference views of each scene, evenly spaced [default: all].",
)
@click.option(
    "--arms",
    metavar="NAME,…",
    help="Ways to grasps: two, one, prefusion, antipodal_two, antipodal_one [default: all].",
)
@click.option(
    "--lift",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Views of each split whose best grasp is lifted in simulation; synthetic scenes only.",
)
@click.option(
    "--camera",
    type=click.Choice(["realsense", "kinect"]),
    default="realsense",
    show_default=True,
    help="Whose images.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for unpacked labels [default: ~/.cache/limpet/grasp/labels].",
)
@json_option
def grasp(
    model: Path,
    data: Path,
    split: str | None,
    views: int | None,
    arms: str | None,
    lift: int,
    camera: str,
    cache: Path | None,
    json_file: Path | None,
) -> None:
    """Measure how good a grasp encoder's grasps are.

    Where the objects are known: average precision in percent as GraspNet's public evaluator
    computes it, of two views (two), the reference view alone (one) and both views' clouds merged
    outside the network (prefusion), all with the same weights, beside a sampler of antipodal points
    that learns nothing (antipodal_two, antipodal_one). The second view is the one that looks most
    squarely from the side. Corner views are the fifth of a split's views that see the smallest
    share of what could be grasped. Everything goes through the robot's own preprocessing, graph and
    decoding.

    In real scenes: which of the best 50 grasps are free of collision with the observed cloud, and
    antipodal on it within a friction of 0.4. On smoothed_object_pc where the file has it, else on
    all that stands out of the table. A camera sees one side, so antipodal is strict, by the cloud
    at both contacts, and antipodal_seen judges sides that face away by their outline. A missing
    grasp fails.

    --json writes: model, source (run or bundle), name, engine, data; splits, of each split scenes,
    views, judged (scene and view), corners (which of these see least), and arms, of each arm views,
    without (views without a grasp), grasps (mean), ap, ap_08, ap_04, view_ap (of each view),
    outcomes (shares: holds, slips, collides, empty), corner {views, ap, ap_08, ap_04}, lift
    {tried, held, success, outcomes} or null, and times_ms {prepare, model, decode, total,
    total_p95}; mean over the splits, of each arm ap, ap_08, ap_04, corner_ap, lift_success; and
    real, a list of {scene, nothing, before, after, antipodal}: before and after the model's own
    collision check, and the sampler; each {grasps, free, antipodal, antipodal_seen, free_antipodal,
    free_antipodal_seen}. A figure that is not defined is null.
    """
    from limpet.contracts.reports import write_json
    from limpet.export.evaluate_grasp import evaluate_grasp
    from limpet.training.grasp.judging.finders import ARMS

    report = evaluate_grasp(
        model,
        data,
        splits=None if split is None else _names(split),
        views=views,
        arms=ARMS if arms is None else _names(arms),
        lift=lift,
        camera=camera,
        cache=cache,
        report=_progress,
    )
    if not write_json(json_file, report):
        click.echo(_describe(report))


def _progress(text: str) -> None:
    """One line that is written over, where somebody sees it."""
    if sys.stderr.isatty():
        click.echo(f"\r{text}\033[K", nl=False, err=True)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


ARM_HEADER = [
    "", "", "AP", "AP0.8", "AP0.4", "corner AP", "grasps", "holds", "slips", "collides", "empty",
    "lifted", "ms",
]  # fmt: skip
REAL_HEADER = ["", "", "grasps", "free", "antipodal", "seen", "both", "both seen"]


def _describe(report: GraspEvaluation) -> str:
    from limpet.contracts.reports import format_table

    head = f"{report.name} ({report.source}) by {report.engine} on {report.data}"
    if report.real:
        rows = [row for one in report.real for row in _real_rows(one)]
        return "\n".join([head, format_table(REAL_HEADER, rows)])
    rows = [
        _arm_row(split, arm, figures)
        for split, one in report.splits.items()
        for arm, figures in one.arms.items()
    ]
    rows += [_mean_row(arm, figures) for arm, figures in report.mean.items()]
    counts = ", ".join(
        f"{one.views} views of {len(one.scenes)} {split} scenes"
        for split, one in report.splits.items()
    )
    return "\n".join([f"{head}: {counts}", format_table(ARM_HEADER, rows)])


def _arm_row(split: str, arm: str, figures: ArmFigures) -> list[str]:
    lift = figures.lift
    return [
        split,
        arm,
        *map(_percent, (figures.ap, figures.ap_08, figures.ap_04, figures.corner.ap)),
        f"{figures.grasps:.0f}",
        *(f"{figures.outcomes[name]:.2f}" for name in ("holds", "slips", "collides", "empty")),
        "–" if lift is None else f"{lift.held}/{lift.tried}",
        f"{figures.times_ms.total:.0f}",
    ]


def _mean_row(arm: str, figures: MeanFigures) -> list[str]:
    values = (figures.ap, figures.ap_08, figures.ap_04, figures.corner_ap)
    lifted = _percent(100 * figures.lift_success)
    return ["mean", arm, *map(_percent, values), *[""] * 5, lifted, ""]


def _real_rows(figures: RealFigures) -> list[list[str]]:
    rows = []
    for name in ("before", "after", "antipodal"):
        one = getattr(figures, name)
        shares = (
            one.free,
            one.antipodal,
            one.antipodal_seen,
            one.free_antipodal,
            one.free_antipodal_seen,
        )
        label = figures.nothing if name == "after" and figures.nothing else name
        rows.append(
            [Path(figures.scene).name, label, str(one.grasps), *(f"{s:.2f}" for s in shares)]
        )
    return rows


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"
